//! The lines of a dump: what `GET /v1/dump` answers with, and what `kvservice restore` reads.
//!
//! A line for each key, in the order of their bytes, and one more at the very end. A dump without its last
//! line is not whole, whatever became of the rest.

use super::json::write_entry;
use super::{ListEntry, Value};
use crate::ids::Seq;
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use serde::Deserialize;
use std::fmt::Write;

/// One line of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DumpLine {
    /// `{"key":"color","value":"red","revision":7}`
    Entry(ListEntry),
    /// `{"end":true,"revision":9,"keys":1}`
    End(DumpEnd),
}

/// The last line of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpEnd {
    /// The point that the dump shows: every write up to here, and none after.
    pub revision: Seq,
    /// The lines before this one.
    pub keys: u64,
}

/// Why a text is no line of a dump.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DumpLineError {
    /// It is no JSON object, or a field is of the wrong type.
    #[error("{0}")]
    Json(String),
    /// A field is missing.
    #[error("{0:?} is missing")]
    Missing(&'static str),
    /// The key is empty, or longer than a key may be.
    #[error("the key has {0} bytes: 1 to {KEY_BYTES_MAX} are allowed")]
    Key(usize),
    /// The value is longer than a value may be.
    #[error("the value has {0} bytes: at most {VALUE_BYTES_MAX} are allowed")]
    Value(usize),
}

/// Every field that a line can have. Others are ignored, as in a response.
#[derive(Deserialize)]
struct Fields {
    key: Option<String>,
    value: Option<Value>,
    revision: Option<Seq>,
    #[serde(default)]
    end: bool,
    keys: Option<u64>,
}

impl DumpLine {
    /// Reads a line, with or without its newline.
    ///
    /// # Errors
    /// It is none, or holds a key or value that no server takes.
    pub fn parse(line: &[u8]) -> Result<DumpLine, DumpLineError> {
        let fields: Fields =
            serde_json::from_slice(line).map_err(|error| DumpLineError::Json(error.to_string()))?;
        let revision = fields.revision.ok_or(DumpLineError::Missing("revision"))?;
        if fields.end {
            let keys = fields.keys.ok_or(DumpLineError::Missing("keys"))?;
            return Ok(DumpLine::End(DumpEnd { revision, keys }));
        }
        let key = fields.key.ok_or(DumpLineError::Missing("key"))?;
        let value = fields.value.ok_or(DumpLineError::Missing("value"))?;
        if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
            return Err(DumpLineError::Key(key.len()));
        }
        if value.0.len() > VALUE_BYTES_MAX {
            return Err(DumpLineError::Value(value.0.len()));
        }
        Ok(DumpLine::Entry(ListEntry {
            key,
            value,
            revision,
        }))
    }
}

impl ListEntry {
    /// Appends the entry as a line of a dump, newline and all.
    pub fn write_dump_line(&self, out: &mut String) {
        write_entry(self, out);
        out.push('\n');
    }
}

impl DumpEnd {
    /// Appends the last line of a dump, newline and all.
    pub fn write_dump_line(&self, out: &mut String) {
        let (revision, keys) = (self.revision.0, self.keys);
        // Writing to a string cannot fail.
        let _ = writeln!(out, r#"{{"end":true,"revision":{revision},"keys":{keys}}}"#);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DUMP_LINE_BYTES_MAX;

    fn entry(key: &str, value: impl Into<Value>, revision: u64) -> ListEntry {
        ListEntry {
            key: key.to_owned(),
            value: value.into(),
            revision: Seq(revision),
        }
    }

    #[test]
    fn lines_are_written_and_come_back() {
        let entries = [
            (
                entry("color", "red", 7),
                r#"{"key":"color","value":"red","revision":7}"#,
            ),
            (
                entry("ä\n\"", "a\\\u{1}", 8),
                r#"{"key":"ä\n\"","value":"a\\\u0001","revision":8}"#,
            ),
            (
                entry("raw", vec![0xff, 0x00], 9),
                r#"{"key":"raw","value":{"base64":"/wA="},"revision":9}"#,
            ),
        ];
        for (entry, line) in entries {
            let mut out = String::new();
            entry.write_dump_line(&mut out);
            assert_eq!(out, format!("{line}\n"));
            assert_eq!(DumpLine::parse(out.as_bytes()), Ok(DumpLine::Entry(entry)));
        }
        let end = DumpEnd {
            revision: Seq(9),
            keys: 3,
        };
        let mut out = String::new();
        end.write_dump_line(&mut out);
        assert_eq!(out, "{\"end\":true,\"revision\":9,\"keys\":3}\n");
        assert_eq!(DumpLine::parse(out.as_bytes()), Ok(DumpLine::End(end)));
    }

    #[test]
    fn the_longest_line_is_within_the_limit() {
        let mut out = String::new();
        let key = "\u{1}".repeat(KEY_BYTES_MAX);
        entry(&key, "\u{1}".repeat(VALUE_BYTES_MAX), u64::MAX).write_dump_line(&mut out);
        assert!(out.len() <= DUMP_LINE_BYTES_MAX, "{}", out.len());
        assert!(DumpLine::parse(out.as_bytes()).is_ok());
    }

    #[test]
    fn what_is_no_line_is_refused_by_name() {
        let refusal = |line: &str| DumpLine::parse(line.as_bytes()).unwrap_err();
        assert_eq!(
            refusal(r#"{"key":"a","value":"1"}"#),
            DumpLineError::Missing("revision")
        );
        assert_eq!(
            refusal(r#"{"value":"1","revision":1}"#),
            DumpLineError::Missing("key")
        );
        assert_eq!(
            refusal(r#"{"key":"a","revision":1}"#),
            DumpLineError::Missing("value")
        );
        assert_eq!(
            refusal(r#"{"end":true,"revision":1}"#),
            DumpLineError::Missing("keys")
        );
        assert_eq!(
            refusal(r#"{"key":"","value":"1","revision":1}"#),
            DumpLineError::Key(0)
        );
        let long = format!(
            r#"{{"key":"a","value":"{}","revision":1}}"#,
            "x".repeat(VALUE_BYTES_MAX + 1)
        );
        assert_eq!(refusal(&long), DumpLineError::Value(VALUE_BYTES_MAX + 1));
        for line in [
            "",
            "{",
            "[]",
            "nonsense",
            r#"{"key":1}"#,
            r#"{"key":"a"} x"#,
        ] {
            assert!(matches!(refusal(line), DumpLineError::Json(_)), "{line}");
        }
    }

    /// A later server may say more.
    #[test]
    fn fields_that_are_not_known_are_ignored() {
        let line = r#"{"key":"a","value":"1","revision":1,"expires":5}"#;
        assert_eq!(
            DumpLine::parse(line.as_bytes()),
            Ok(DumpLine::Entry(entry("a", "1", 1)))
        );
    }
}
