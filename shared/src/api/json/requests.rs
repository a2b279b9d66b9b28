//! The server's side: a client's frame to requests, and to the words that refuse one.
//!
//! A frame is read twice at most. The fast path reads well-formed requests in one pass, without a tree; what
//! is well-formed and yet wrong (an empty key, a field of another op) it refuses by itself. Whatever it
//! stumbles over, the slow path looks at again, a request at a time and a field at a time, for the id and for
//! what to say.

use super::shorten;
use crate::api::{ApiError, ErrorCode, Op, OpKind, Request, Response, Value};
use crate::ids::{RequestId, SessionUuid};
use crate::limits;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// What a client's frame held.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// In the frame's order: a request, or the response that refuses it. Never empty.
    pub requests: Vec<Result<Request, Response>>,
    /// Whether it was an array. A frame that is refused as a whole counts as one request, for it gets one
    /// response.
    pub batch: bool,
}

/// Reads a client's frame: one request, or an array of 1 to [`limits::BATCH_REQUESTS_MAX`].
///
/// Every request that comes out is within its limits: key not empty and at most
/// [`limits::KEY_BYTES_MAX`], values at most [`limits::VALUE_BYTES_MAX`], a page of 1 to
/// [`limits::LIST_ENTRIES_MAX`] entries. One malformed request of an array is refused alone; a frame that is
/// no JSON, an empty array and one that is too long are refused as a whole, with `"id":null`.
#[must_use]
pub fn decode_requests(text: &str) -> Decoded {
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
struct Refusal {
    id: Option<RequestId>,
    code: ErrorCode,
    message: String,
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

/// The fields of any request, as they came.
#[derive(Default)]
struct Flat {
    id: Option<u64>,
    op: Option<OpKind>,
    key: Option<String>,
    value: Option<Value>,
    /// Outer `None`: left out. Inner `None`: `null`.
    test: Option<Option<Value>>,
    prefix: Option<String>,
    after: Option<String>,
    limit: Option<u64>,
    session: Option<SessionUuid>,
}

/// The name of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Field {
    Id,
    Op,
    Key,
    Value,
    Test,
    Prefix,
    After,
    Limit,
    Session,
}

impl Field {
    fn named(name: &str) -> Option<Field> {
        Some(match name {
            "id" => Field::Id,
            "op" => Field::Op,
            "key" => Field::Key,
            "value" => Field::Value,
            "test" => Field::Test,
            "prefix" => Field::Prefix,
            "after" => Field::After,
            "limit" => Field::Limit,
            "session" => Field::Session,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Field::Id => "id",
            Field::Op => "op",
            Field::Key => "key",
            Field::Value => "value",
            Field::Test => "test",
            Field::Prefix => "prefix",
            Field::After => "after",
            Field::Limit => "limit",
            Field::Session => "session",
        }
    }

    fn must_be(self) -> &'static str {
        match self {
            Field::Id => "a whole number from 1 to 9007199254740991",
            Field::Op | Field::Key | Field::Prefix | Field::After => "a string",
            Field::Value => "a string or {\"base64\":\"…\"}",
            Field::Test => "a string, {\"base64\":\"…\"} or null",
            Field::Limit => "a whole number from 1 to 1000",
            Field::Session => "a UUID in its 36 characters",
        }
    }
}

const _: () =
    assert!(limits::LIST_ENTRIES_MAX == 1000 && RequestId::MAX.0 == 9_007_199_254_740_991);

impl Flat {
    /// The request, if its fields are those of its op and within their limits.
    fn into_request(self) -> Result<Request, Refusal> {
        let id = self.id.and_then(RequestId::new);
        let refuse = |code, message| Refusal { id, code, message };
        let bad = |message| refuse(ErrorCode::BadRequest, message);
        let missing = |op: OpKind, field: Field| {
            bad(format!(
                "op \"{}\" needs the field \"{}\"",
                op.as_str(),
                field.name()
            ))
        };
        let Some(known_id) = id else {
            let is = if self.id.is_some() {
                "must be"
            } else {
                "is missing; it is"
            };
            return Err(bad(format!("\"id\" {is} {}", Field::Id.must_be())));
        };
        let Some(op) = self.op else {
            return Err(bad("\"op\" is missing".to_owned()));
        };
        if let Some(field) = self.stray(op) {
            return Err(bad(no_such_field(op, field.name())));
        }
        let check_value = |field: Field, value: Value| {
            if value.0.len() <= limits::VALUE_BYTES_MAX {
                return Ok(value);
            }
            let message = format!(
                "\"{}\" has {} bytes; at most {} are allowed",
                field.name(),
                value.0.len(),
                limits::VALUE_BYTES_MAX
            );
            Err(refuse(ErrorCode::TooLarge, message))
        };
        let check_text = |field: Field, text: String| {
            if text.len() <= limits::KEY_BYTES_MAX {
                return Ok(text);
            }
            let message = format!(
                "\"{}\" has {} bytes; at most {} are allowed",
                field.name(),
                text.len(),
                limits::KEY_BYTES_MAX
            );
            Err(refuse(ErrorCode::TooLarge, message))
        };
        let key = |key: Option<String>| match key {
            None => Err(missing(op, Field::Key)),
            Some(key) if key.is_empty() => Err(bad("\"key\" is empty".to_owned())),
            Some(key) => check_text(Field::Key, key),
        };
        let value = |value: Option<Value>| match value {
            None => Err(missing(op, Field::Value)),
            Some(value) => check_value(Field::Value, value),
        };
        let op = match op {
            OpKind::Get => Op::Get {
                key: key(self.key)?,
            },
            OpKind::Set => Op::Set {
                key: key(self.key)?,
                value: value(self.value)?,
            },
            OpKind::TestSet => {
                let key = key(self.key)?;
                let test = match self.test {
                    None => return Err(missing(op, Field::Test)),
                    Some(None) => None,
                    Some(Some(test)) => Some(check_value(Field::Test, test)?),
                };
                Op::TestSet {
                    key,
                    test,
                    value: value(self.value)?,
                }
            }
            OpKind::Delete => Op::Delete {
                key: key(self.key)?,
            },
            OpKind::List => {
                let default = u64::from(limits::LIST_ENTRIES_DEFAULT);
                let limit = match u32::try_from(self.limit.unwrap_or(default)) {
                    Ok(limit @ 1..=limits::LIST_ENTRIES_MAX) => limit,
                    _ => return Err(bad(wrong_kind(Field::Limit))),
                };
                Op::List {
                    prefix: check_text(Field::Prefix, self.prefix.unwrap_or_default())?,
                    after: check_text(Field::After, self.after.unwrap_or_default())?,
                    limit,
                }
            }
            OpKind::Status => Op::Status,
            OpKind::Hello => match self.session {
                None => return Err(missing(op, Field::Session)),
                Some(session) => Op::Hello { session },
            },
        };
        Ok(Request { id: known_id, op })
    }

    /// A field that is there and does not belong to the op.
    fn stray(&self, op: OpKind) -> Option<Field> {
        let keyed = !matches!(op, OpKind::List | OpKind::Status | OpKind::Hello);
        let valued = matches!(op, OpKind::Set | OpKind::TestSet);
        let listing = op == OpKind::List;
        [
            (Field::Key, self.key.is_some() && !keyed),
            (Field::Value, self.value.is_some() && !valued),
            (Field::Test, self.test.is_some() && op != OpKind::TestSet),
            (Field::Prefix, self.prefix.is_some() && !listing),
            (Field::After, self.after.is_some() && !listing),
            (Field::Limit, self.limit.is_some() && !listing),
            (
                Field::Session,
                self.session.is_some() && op != OpKind::Hello,
            ),
        ]
        .into_iter()
        .find_map(|(field, stray)| stray.then_some(field))
    }

    /// Takes one field's value; `read` is called once, for its kind.
    fn fill<'de, E>(&mut self, field: Field, value: impl ReadValue<'de, E>) -> Result<bool, E> {
        fn put<T>(slot: &mut Option<T>, value: T) -> bool {
            let first = slot.is_none();
            *slot = Some(value);
            first
        }
        Ok(match field {
            Field::Id => put(&mut self.id, value.read()?),
            Field::Op => put(&mut self.op, value.read()?),
            Field::Key => put(&mut self.key, value.read()?),
            Field::Value => put(&mut self.value, value.read()?),
            Field::Test => put(&mut self.test, value.read()?),
            Field::Prefix => put(&mut self.prefix, value.read()?),
            Field::After => put(&mut self.after, value.read()?),
            Field::Limit => put(&mut self.limit, value.read()?),
            Field::Session => put(&mut self.session, value.read::<Hyphenated>()?.0),
        })
    }
}

/// Where a field's value comes from: the frame itself, or a piece of it.
trait ReadValue<'de, E> {
    fn read<T: Deserialize<'de>>(self) -> Result<T, E>;
}

struct FromMap<'a, A>(&'a mut A);

impl<'de, A: MapAccess<'de>> ReadValue<'de, A::Error> for FromMap<'_, A> {
    fn read<T: Deserialize<'de>>(self) -> Result<T, A::Error> {
        self.0.next_value()
    }
}

impl<'de> ReadValue<'de, serde_json::Error> for &'de RawValue {
    fn read<T: Deserialize<'de>>(self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.get())
    }
}

impl<'de> Deserialize<'de> for Flat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Flat, D::Error> {
        struct FlatVisitor;
        impl<'de> Visitor<'de> for FlatVisitor {
            type Value = Flat;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a request")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Flat, A::Error> {
                let mut flat = Flat::default();
                while let Some(field) = map.next_key::<Field>()? {
                    if !flat.fill(field, FromMap(&mut map))? {
                        return Err(A::Error::duplicate_field(field.name()));
                    }
                }
                Ok(flat)
            }
        }
        deserializer.deserialize_map(FlatVisitor)
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Field, D::Error> {
        struct FieldVisitor;
        impl Visitor<'_> for FieldVisitor {
            type Value = Field;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a field")
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Field, E> {
                Field::named(name).ok_or_else(|| E::unknown_field(shorten(name), &[]))
            }
        }
        deserializer.deserialize_identifier(FieldVisitor)
    }
}

impl<'de> Deserialize<'de> for OpKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OpKind, D::Error> {
        struct OpVisitor;
        impl Visitor<'_> for OpVisitor {
            type Value = OpKind;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an op")
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<OpKind, E> {
                OpKind::named(name)
                    .ok_or_else(|| E::invalid_value(Unexpected::Str(shorten(name)), &self))
            }
        }
        deserializer.deserialize_str(OpVisitor)
    }
}

/// A session's name as it goes over the wire: a UUID with its hyphens, and no other way to write one.
struct Hyphenated(SessionUuid);

impl<'de> Deserialize<'de> for Hyphenated {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hyphenated, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        match uuid::Uuid::try_parse(&text) {
            Ok(uuid) if text.len() == uuid::fmt::Hyphenated::LENGTH => {
                Ok(Hyphenated(SessionUuid(uuid)))
            }
            _ => Err(D::Error::invalid_value(
                Unexpected::Str(shorten(&text)),
                &"a UUID",
            )),
        }
    }
}

/// Reads a JSON array of at most [`limits::BATCH_REQUESTS_MAX`] elements; stops at one more, and says so.
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

/// The slow path: one request, a field at a time.
fn explain(text: &str) -> Result<Request, Refusal> {
    let anonymous = |message| Refusal {
        id: None,
        code: ErrorCode::BadRequest,
        message,
    };
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        return Err(anonymous(format!("not JSON: {error}")));
    }
    let Ok(Fields(fields)) = serde_json::from_str::<Fields<'_>>(text) else {
        return Err(anonymous("a request is a JSON object".to_owned()));
    };

    // The id first, so that whatever else is wrong can be said under it. Given twice, it is none.
    let mut ids = fields.iter().filter(|(name, _)| name == "id");
    let id = match (ids.next(), ids.next()) {
        (Some((_, raw)), None) => serde_json::from_str::<u64>(raw.get()).ok(),
        _ => None,
    };
    let bad = |message| Refusal {
        id: id.and_then(RequestId::new),
        code: ErrorCode::BadRequest,
        message,
    };
    let op = fields
        .iter()
        .find(|(name, _)| name == "op")
        .map(|(_, raw)| raw);
    let op = op.and_then(|raw| serde_json::from_str::<OpKind>(raw.get()).ok());

    let mut flat = Flat::default();
    for (name, raw) in &fields {
        let Some(field) = Field::named(name) else {
            return Err(bad(match op {
                Some(op) => no_such_field(op, name),
                None => format!("unknown field \"{}\"", shorten(name)),
            }));
        };
        match flat.fill(field, *raw) {
            Ok(true) => {}
            Ok(false) => return Err(bad(format!("\"{}\" is given twice", field.name()))),
            Err(error) => return Err(bad(wrong(field, raw, &error))),
        }
    }
    flat.into_request()
}

/// What is wrong with the value of a field.
fn wrong(field: Field, raw: &RawValue, error: &serde_json::Error) -> String {
    let error = error.to_string();
    if error.starts_with("bad base64") {
        // Without the place in the field's text, which says nothing about the frame.
        let end = error.find(" at line ").unwrap_or(error.len());
        return format!("\"{}\": {}", field.name(), &error[..end]);
    }
    match (field, serde_json::from_str::<Cow<'_, str>>(raw.get())) {
        (Field::Op, Ok(name)) => format!("unknown op \"{}\"", shorten(&name)),
        _ => wrong_kind(field),
    }
}

fn wrong_kind(field: Field) -> String {
    format!("\"{}\" must be {}", field.name(), field.must_be())
}

fn no_such_field(op: OpKind, name: &str) -> String {
    format!("op \"{}\" has no field \"{}\"", op.as_str(), shorten(name))
}

/// The fields of a JSON object as they came, duplicates included. Of more than could possibly be right it
/// keeps only the first, and the ids.
struct Fields<'de>(Vec<(Cow<'de, str>, &'de RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields<'de>, D::Error> {
        const FIELDS_MAX: usize = 16; // there are nine names
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
                let mut ids = 0;
                while let Some((name, raw)) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
                    let is_id = name == "id";
                    ids += usize::from(is_id);
                    if fields.len() < FIELDS_MAX || (is_id && ids <= 2) {
                        fields.push((name, raw));
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}
