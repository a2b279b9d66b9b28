//! The client's side: a server's frame to responses.
//!
//! A response does not say what was asked; its reader must know. What it does not know in a
//! response it ignores, a new error code included: that is how version 1 grows.

use crate::api::{
    ApiError, ErrorCode, Limits, ListEntry, OpKind, Outcome, Reply, Response, Status, Value,
};
use crate::ids::{RequestId, Seq, SessionUuid};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Why a server's frame could not be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a response: {0}")]
pub struct NotAResponse(pub String);

/// Reads a server's frame: one response, or an array of any length. `kind_of` says what was asked
/// under an id; answers to ids that it does not know (given up, say) are left out.
///
/// A response with a known id whose fields are not those of an answer to what was asked comes out
/// as an [`ErrorCode::Internal`] with [`Outcome::Unknown`], so that its request does end.
///
/// # Errors
/// The frame is no JSON, or holds something that is no response, or has no id.
pub fn decode_responses(
    text: &str,
    kind_of: impl Fn(RequestId) -> Option<OpKind>,
) -> Result<Vec<Response>, NotAResponse> {
    let is_array = text.trim_ascii_start().starts_with('[');
    if is_array {
        if let Ok(all) = serde_json::from_str::<Vec<Flat>>(text) {
            let is_status = |flat: &Flat| flat.kind(&kind_of) == Some(OpKind::Status);
            if !all.iter().any(is_status) {
                return Ok(all
                    .into_iter()
                    .filter_map(|flat| flat.response(&kind_of))
                    .collect());
            }
        }
        let all = serde_json::from_str::<Vec<&RawValue>>(text)
            .map_err(|error| NotAResponse(error.to_string()))?;
        let mut responses = Vec::with_capacity(all.len());
        for one in all {
            responses.extend(decode_one(one.get(), &kind_of)?);
        }
        return Ok(responses);
    }
    Ok(decode_one(text, &kind_of)?.into_iter().collect())
}

fn decode_one(
    text: &str,
    kind_of: &impl Fn(RequestId) -> Option<OpKind>,
) -> Result<Option<Response>, NotAResponse> {
    match serde_json::from_str::<Flat>(text) {
        Ok(flat) if flat.error.is_none() && flat.kind(kind_of) == Some(OpKind::Status) => {
            let result = match serde_json::from_str::<Status>(text) {
                Ok(status) => Ok(Reply::Status(Box::new(status))),
                Err(error) => Err(unreadable(&error.to_string())),
            };
            Ok(Some(Response {
                id: flat.id.and_then(RequestId::new),
                result,
            }))
        }
        Ok(flat) => Ok(flat.response(kind_of)),
        Err(error) => {
            // Not what we know as a response. If it names a request of ours, that one fails alone.
            let Ok(IdOnly { id }) = serde_json::from_str::<IdOnly>(text) else {
                return Err(NotAResponse(error.to_string()));
            };
            let id = id.and_then(RequestId::new);
            let asked = id.is_some_and(|id| kind_of(id).is_some());
            let result = Err(unreadable(&error.to_string()));
            Ok(asked.then_some(Response { id, result }))
        }
    }
}

fn unreadable(why: &str) -> ApiError {
    let message = format!("the answer could not be read: {why}");
    ApiError::unknown(ErrorCode::Internal, message)
}

#[derive(Deserialize)]
struct IdOnly {
    #[serde(deserialize_with = "Option::deserialize")]
    id: Option<u64>,
}

/// The fields of any response but `status`. `deserialize_with` makes `id` a must; `null` is one of
/// its values.
#[derive(Deserialize)]
struct Flat {
    #[serde(deserialize_with = "Option::deserialize")]
    id: Option<u64>,
    error: Option<ErrorFields>,
    /// Outer `None`: left out. Inner `None`: `null`.
    #[serde(default, deserialize_with = "nullable")]
    value: Option<Option<Value>>,
    revision: Option<Seq>,
    swapped: Option<bool>,
    deleted: Option<bool>,
    entries: Option<Vec<ListEntry>>,
    more: Option<bool>,
    session: Option<SessionUuid>,
    resumed: Option<bool>,
    opened: Option<Box<str>>,
    protocol: Option<u32>,
    server: Option<String>,
    limits: Option<Limits>,
}

#[derive(Deserialize)]
struct ErrorFields {
    code: String,
    #[serde(default)]
    message: String,
    outcome: Option<String>,
}

fn nullable<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}

impl Flat {
    fn kind(&self, kind_of: &impl Fn(RequestId) -> Option<OpKind>) -> Option<OpKind> {
        self.id.and_then(RequestId::new).and_then(kind_of)
    }

    /// The response, unless it answers what was not asked.
    fn response(self, kind_of: &impl Fn(RequestId) -> Option<OpKind>) -> Option<Response> {
        let kind = match self.id {
            Some(_) => Some(self.kind(kind_of)?),
            None => None,
        };
        let id = self.id.and_then(RequestId::new);
        if let Some(error) = self.error {
            return Some(Response {
                id,
                result: Err(error.into()),
            });
        }
        // Only errors have `"id":null`; anything else without one answers nothing.
        let reply = self.reply(kind?);
        let result = reply.ok_or_else(|| unreadable("a field is missing"));
        Some(Response { id, result })
    }

    fn reply(self, kind: OpKind) -> Option<Reply> {
        Some(match kind {
            OpKind::Get => Reply::Get {
                value: self.value?,
                revision: self.revision?,
            },
            OpKind::Set => Reply::Set {
                value: self.value??,
                revision: self.revision?,
            },
            OpKind::TestSet => Reply::TestSet {
                swapped: self.swapped?,
                value: self.value?,
                revision: self.revision?,
            },
            OpKind::Delete => Reply::Delete {
                deleted: self.deleted?,
                revision: self.revision?,
            },
            OpKind::List => Reply::List {
                entries: self.entries?,
                more: self.more?,
            },
            OpKind::Status => return None, // read by decode_one
            OpKind::Hello => Reply::Hello {
                session: self.session?,
                resumed: self.resumed?,
                opened: self.opened,
                protocol: self.protocol?,
                server: self.server?,
                limits: self.limits?,
            },
        })
    }
}

impl From<ErrorFields> for ApiError {
    fn from(fields: ErrorFields) -> ApiError {
        let outcome = match fields.outcome.as_deref() {
            Some("not_applied") => Outcome::NotApplied,
            // What is not said, or said in a word from the future, is not known.
            _ => Outcome::Unknown,
        };
        match ErrorCode::named(&fields.code) {
            Some(code) => ApiError {
                code,
                message: fields.message,
                outcome,
            },
            None => ApiError {
                code: ErrorCode::Internal,
                message: format!("{}: {}", fields.code, fields.message),
                outcome,
            },
        }
    }
}
