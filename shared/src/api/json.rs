//! The JSON form of [`super`]'s types, and nothing else: what a frame may hold, what is refused and
//! with which words. Who may send it when, and what it does, is for others.
//!
//! Reading and writing are apart, and so are the two directions:
//!
//! - [`write`](self) (`json/write.rs`) makes frames, straight into a `String`;
//! - [`decode_requests`] (`json/requests.rs`, with `fields.rs` and `explain.rs`; `plain.rs` is the
//!   short cut) is the server's side, and its hot path. It trusts nothing: any op or field that it
//!   does not know is refused by name, and a frame costs memory in proportion to its own bytes only;
//! - [`decode_responses`] (`json/responses.rs`) is the client's side. It ignores what it does not
//!   know.

mod explain;
mod fields;
mod plain;
mod requests;
mod responses;
#[cfg(test)]
mod tests;
mod write;

pub use requests::{Decoded, decode_requests};
pub use responses::{NotAResponse, decode_responses};
pub use write::{requests_to_json, responses_to_json};
pub(crate) use write::{write_entry, write_request};

use super::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Whether a byte ends a JSON string, or is escaped in one. All of them are ASCII, so each is a character of its own.
fn is_special(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Whether there is such a byte. Without a branch for each: several times faster than looking for the first.
fn any_special(piece: &[u8]) -> bool {
    let look = |any, &byte: &u8| any | is_special(byte);
    piece.iter().fold(false, look)
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            // Between nodes: the bytes as they are.
            return serializer.serialize_bytes(&self.0);
        }
        match self.as_str() {
            Some(text) => serializer.serialize_str(text),
            None => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &STANDARD.encode(&self.0))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        if !deserializer.is_human_readable() {
            return Bytes::deserialize(deserializer).map(Value);
        }
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or {\"base64\":\"…\"}")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::from(text))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        Ok(Value::from(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        match map.next_key::<Base64Key>()? {
            Some(Base64Key) => {}
            None => return Err(A::Error::invalid_value(Unexpected::Map, &self)),
        }
        let Base64(bytes) = map.next_value()?;
        match map.next_key::<Base64Key>()? {
            None => Ok(Value::from(bytes)),
            Some(Base64Key) => Err(A::Error::duplicate_field("base64")),
        }
    }
}

/// The only field of a value that is no string.
struct Base64Key;

impl<'de> Deserialize<'de> for Base64Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Base64Key, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Base64Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"base64\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Base64Key, E> {
                if text == "base64" {
                    Ok(Base64Key)
                } else {
                    Err(E::invalid_value(Unexpected::Str(shorten(text)), &self))
                }
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// Bytes in standard base64 with its padding.
struct Base64(Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Base64, D::Error> {
        struct TextVisitor;
        impl Visitor<'_> for TextVisitor {
            type Value = Base64;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64 text")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Base64, E> {
                match STANDARD.decode(text) {
                    Ok(bytes) => Ok(Base64(bytes)),
                    Err(error) => Err(E::custom(format_args!("bad base64: {error}"))),
                }
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// As much of a peer's text as an error message repeats.
fn shorten(text: &str) -> &str {
    const CHARS_MAX: usize = 40;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
