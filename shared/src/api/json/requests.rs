//! The server's side: a client's frame to requests, and to the words that refuse one.
//!
//! Frames in the form that most clients send are read by `plain.rs`; all others here.
//!
//! A frame is read twice at most. The fast path reads well-formed requests in one pass, without a
//! tree; what is well-formed and yet wrong (an empty key, a field of another op) it refuses by
//! itself. Whatever it stumbles over, the slow path looks at again, a request at a time and a field
//! at a time, for the id and for what to say.

use super::explain::explain;
use super::fields::Flat;
use super::plain::decode_plain;
use crate::api::{ApiError, ErrorCode, Request, Response};
use crate::ids::RequestId;
use crate::limits;
use serde::de::{DeserializeSeed, Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::fmt;

/// What a client's frame held.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// In the frame's order: a request, or the response that refuses it. Never empty.
    pub requests: Vec<Result<Request, Response>>,
    /// Whether it was an array. A frame that is refused as a whole counts as one request, for it
    /// gets one response.
    pub batch: bool,
}

/// Reads a client's frame: one request, or an array of 1 to [`limits::BATCH_REQUESTS_MAX`].
///
/// Every request that comes out is within its limits: key not empty and at most
/// [`limits::KEY_BYTES_MAX`], values at most [`limits::VALUE_BYTES_MAX`], a page of 1 to
/// [`limits::LIST_ENTRIES_MAX`] entries. One malformed request of an array is refused alone; a
/// frame that is no JSON, an empty array and one that is too long are refused as a whole, with
/// `"id":null`.
#[must_use]
pub fn decode_requests(text: &str) -> Decoded {
    decode_plain(text).unwrap_or_else(|| decode_any(text))
}

/// The same for frames of any form.
pub(super) fn decode_any(text: &str) -> Decoded {
    if text.trim_ascii_start().starts_with('[') {
        return decode_batch(text);
    }
    let request = match serde_json::from_str::<Flat>(text) {
        Ok(flat) => flat.into_request(),
        Err(_) => explain(text),
    };
    Decoded {
        requests: vec![request.map_err(Response::from)],
        batch: false,
    }
}

fn decode_batch(text: &str) -> Decoded {
    let mut too_many = false;
    let requests = read_array(text, &mut too_many, FlatSeed).or_else(|stumble| {
        if too_many {
            return Err(stumble);
        }
        let raw = read_array(text, &mut too_many, RawSeed)?;
        Ok(raw
            .into_iter()
            .map(|one| explain(one.get()).map_err(Response::from))
            .collect())
    });
    match requests {
        Ok(requests) if requests.is_empty() => whole(
            ErrorCode::BadRequest,
            "a batch holds at least one request".to_owned(),
        ),
        Ok(requests) => Decoded {
            requests,
            batch: true,
        },
        Err(_) if too_many => whole(
            ErrorCode::TooLarge,
            format!(
                "a batch holds at most {} requests",
                limits::BATCH_REQUESTS_MAX
            ),
        ),
        Err(error) => whole(ErrorCode::BadRequest, format!("not JSON: {error}")),
    }
}

/// A frame that is refused as a whole.
fn whole(code: ErrorCode, message: String) -> Decoded {
    let refusal = Refusal {
        id: None,
        code,
        message,
    };
    Decoded {
        requests: vec![Err(refusal.into())],
        batch: false,
    }
}

/// Why a request is not carried out. Small, so that the good path moves little.
pub(super) struct Refusal {
    pub(super) id: Option<RequestId>,
    pub(super) code: ErrorCode,
    pub(super) message: String,
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Response {
        let error = ApiError::not_applied(refusal.code, refusal.message);
        Response {
            id: refusal.id,
            result: Err(error),
        }
    }
}

/// Reads a JSON array of at most [`limits::BATCH_REQUESTS_MAX`] elements; stops at one more, and
/// says so.
fn read_array<'de, S>(
    text: &'de str,
    too_many: &mut bool,
    seed: S,
) -> Result<Vec<S::Value>, serde_json::Error>
where
    S: DeserializeSeed<'de> + Copy,
{
    struct BatchVisitor<'a, S> {
        too_many: &'a mut bool,
        seed: S,
    }
    impl<'de, S: DeserializeSeed<'de> + Copy> Visitor<'de> for BatchVisitor<'_, S> {
        type Value = Vec<S::Value>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of requests")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut elements = Vec::new();
            while elements.len() < limits::BATCH_REQUESTS_MAX {
                match seq.next_element_seed(self.seed)? {
                    Some(element) => elements.push(element),
                    None => return Ok(elements),
                }
            }
            if seq.next_element::<IgnoredAny>()?.is_some() {
                *self.too_many = true;
                return Err(A::Error::custom("too many"));
            }
            Ok(elements)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let elements = deserializer.deserialize_seq(BatchVisitor { too_many, seed })?;
    deserializer.end()?;
    Ok(elements)
}

/// The fast path's elements: requests, or refusals of what is well-formed and yet wrong.
#[derive(Clone, Copy)]
struct FlatSeed;

impl<'de> DeserializeSeed<'de> for FlatSeed {
    type Value = Result<Request, Response>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        Ok(Flat::deserialize(deserializer)?
            .into_request()
            .map_err(Response::from))
    }
}

/// The slow path's elements: any JSON.
#[derive(Clone, Copy)]
struct RawSeed;

impl<'de> DeserializeSeed<'de> for RawSeed {
    type Value = &'de RawValue;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        <&RawValue>::deserialize(deserializer)
    }
}
