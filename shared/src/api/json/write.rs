//! Making frames: straight into a `String`, without a tree between.

use super::{any_special, is_special};
use crate::api::{ApiError, ListEntry, Op, Reply, Request, Response, Value};
use crate::ids::RequestId;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A frame of several requests: a JSON array. The protocol allows 1 to
/// [`BATCH_REQUESTS_MAX`](crate::limits::BATCH_REQUESTS_MAX) in one.
#[must_use]
pub fn requests_to_json(requests: &[Request]) -> String {
    array(requests, Request::write_json)
}

/// A frame of several responses: a JSON array.
#[must_use]
pub fn responses_to_json(responses: &[Response]) -> String {
    array(responses, Response::write_json)
}

fn array<T>(items: &[T], write: impl Fn(&T, &mut String)) -> String {
    let mut out = String::with_capacity(2 + items.len() * 64);
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(item, &mut out);
    }
    out.push(']');
    out
}

impl Request {
    /// A frame of this request alone.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(128);
        self.write_json(&mut out);
        out
    }

    /// Appends the request as a JSON object.
    pub fn write_json(&self, out: &mut String) {
        write_request(self.id, &self.op, out);
    }
}

/// Appends a request as a JSON object.
pub(crate) fn write_request(id: RequestId, op: &Op, out: &mut String) {
    out.push_str("{\"id\":");
    push_u64(out, id.0);
    match op {
        Op::Get { key } => {
            out.push_str(",\"op\":\"get\",\"key\":");
            push_str(out, key);
        }
        Op::Set { key, value } => {
            out.push_str(",\"op\":\"set\",\"key\":");
            push_str(out, key);
            out.push_str(",\"value\":");
            push_value(out, value);
        }
        Op::TestSet { key, test, value } => {
            out.push_str(",\"op\":\"testset\",\"key\":");
            push_str(out, key);
            out.push_str(",\"test\":");
            push_optional(out, test.as_ref());
            out.push_str(",\"value\":");
            push_value(out, value);
        }
        Op::Delete { key } => {
            out.push_str(",\"op\":\"delete\",\"key\":");
            push_str(out, key);
        }
        Op::List {
            prefix,
            after,
            limit,
        } => {
            out.push_str(",\"op\":\"list\",\"prefix\":");
            push_str(out, prefix);
            out.push_str(",\"after\":");
            push_str(out, after);
            out.push_str(",\"limit\":");
            push_u64(out, u64::from(*limit));
        }
        Op::Status => out.push_str(",\"op\":\"status\""),
        Op::Hello { session } => {
            out.push_str(",\"op\":\"hello\",\"session\":");
            push_str(out, &session.to_string());
        }
    }
    out.push('}');
}

impl Response {
    /// A frame of this response alone.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(128);
        self.write_json(&mut out);
        out
    }

    /// Appends the response as a JSON object.
    pub fn write_json(&self, out: &mut String) {
        out.push_str("{\"id\":");
        match self.id {
            Some(id) => push_u64(out, id.0),
            None => out.push_str("null"),
        }
        match &self.result {
            Ok(reply) => write_reply(reply, out),
            Err(error) => write_error(error, out),
        }
        out.push('}');
    }
}

/// The fields of a reply, each with a comma before it.
fn write_reply(reply: &Reply, out: &mut String) {
    match reply {
        Reply::Get { value, revision } => {
            out.push_str(",\"value\":");
            push_optional(out, value.as_ref());
            push_revision(out, revision.0);
        }
        Reply::Set { value, revision } => {
            out.push_str(",\"value\":");
            push_value(out, value);
            push_revision(out, revision.0);
        }
        Reply::TestSet {
            swapped,
            value,
            revision,
        } => {
            out.push_str(",\"swapped\":");
            push_bool(out, *swapped);
            out.push_str(",\"value\":");
            push_optional(out, value.as_ref());
            push_revision(out, revision.0);
        }
        Reply::Delete { deleted, revision } => {
            out.push_str(",\"deleted\":");
            push_bool(out, *deleted);
            push_revision(out, revision.0);
        }
        Reply::List { entries, more } => {
            out.push_str(",\"entries\":[");
            for (index, entry) in entries.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_entry(entry, out);
            }
            out.push_str("],\"more\":");
            push_bool(out, *more);
        }
        Reply::Status(status) => push_fields(out, status.as_ref()),
        Reply::Hello {
            session,
            resumed,
            opened,
            protocol,
            server,
            limits,
        } => {
            out.push_str(",\"session\":");
            push_str(out, &session.to_string());
            out.push_str(",\"resumed\":");
            push_bool(out, *resumed);
            if let Some(opened) = opened {
                out.push_str(",\"opened\":");
                push_str(out, opened);
            }
            out.push_str(",\"protocol\":");
            push_u64(out, u64::from(*protocol));
            out.push_str(",\"server\":");
            push_str(out, server);
            out.push_str(",\"limits\":{");
            let start = out.len();
            push_fields(out, limits);
            out.remove(start); // the comma that push_fields begins with
            out.push('}');
        }
    }
}

/// Appends a key with its value and revision as a JSON object.
pub(crate) fn write_entry(entry: &ListEntry, out: &mut String) {
    out.push_str("{\"key\":");
    push_str(out, &entry.key);
    out.push_str(",\"value\":");
    push_value(out, &entry.value);
    push_revision(out, entry.revision.0);
    out.push('}');
}

fn write_error(error: &ApiError, out: &mut String) {
    out.push_str(",\"error\":{\"code\":\"");
    out.push_str(error.code.as_str());
    out.push_str("\",\"message\":");
    push_str(out, &error.message);
    out.push_str(",\"outcome\":\"");
    out.push_str(error.outcome.as_str());
    out.push_str("\"}");
}

fn push_optional(out: &mut String, value: Option<&Value>) {
    match value {
        Some(value) => push_value(out, value),
        None => out.push_str("null"),
    }
}

fn push_value(out: &mut String, value: &Value) {
    match value.as_str() {
        Some(text) => push_str(out, text),
        None => {
            out.push_str("{\"base64\":\"");
            STANDARD.encode_string(&value.0, out);
            out.push_str("\"}");
        }
    }
}

fn push_revision(out: &mut String, revision: u64) {
    out.push_str(",\"revision\":");
    push_u64(out, revision);
}

fn push_bool(out: &mut String, value: bool) {
    out.push_str(if value { "true" } else { "false" });
}

/// The fields of a plain struct, each with a comma before it.
fn push_fields(out: &mut String, fields: &impl serde::Serialize) {
    let object =
        serde_json::to_string(fields).expect("plain structs of text and numbers serialize");
    out.push(',');
    out.push_str(
        object
            .trim_start_matches('{')
            .strip_suffix('}')
            .unwrap_or_default(),
    );
}

fn push_u64(out: &mut String, number: u64) {
    out.push_str(itoa::Buffer::new().format(number));
}

/// A JSON string: quotes, and an escape where JSON asks for one.
///
/// Most text needs none, so it is looked at in pieces first, as [`any_special`] says.
pub(crate) fn push_str(out: &mut String, text: &str) {
    const PIECE_BYTES: usize = 64;
    out.push('"');
    let mut written = 0;
    for (piece, bytes) in text.as_bytes().chunks(PIECE_BYTES).enumerate() {
        if !any_special(bytes) {
            continue;
        }
        let special = bytes
            .iter()
            .enumerate()
            .filter(|(_, byte)| is_special(**byte));
        for (offset, &byte) in special {
            let index = piece * PIECE_BYTES + offset;
            out.push_str(&text[written..index]);
            push_escape(out, byte);
            written = index + 1;
        }
    }
    out.push_str(&text[written..]);
    out.push('"');
}

fn push_escape(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' => "\\\"",
        b'\\' => "\\\\",
        b'\n' => "\\n",
        b'\r' => "\\r",
        b'\t' => "\\t",
        0x08 => "\\b",
        0x0c => "\\f",
        _ => {
            out.push_str("\\u00");
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
            return;
        }
    };
    out.push_str(short);
}
