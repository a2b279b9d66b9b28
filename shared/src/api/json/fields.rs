//! The fields of a request: their names, what they must be, and which op has which.

use super::requests::Refusal;
use super::shorten;
use crate::api::{ErrorCode, Op, OpKind, Request, Value};
use crate::ids::{RequestId, SessionUuid};
use crate::limits;
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The fields of any request, as they came.
#[derive(Default)]
pub(super) struct Flat {
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
pub(super) enum Field {
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
    pub(super) fn named(name: &str) -> Option<Field> {
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

    pub(super) fn name(self) -> &'static str {
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

    pub(super) fn belongs_to(self, op: OpKind) -> bool {
        match self {
            Field::Id | Field::Op => true,
            Field::Key => !matches!(op, OpKind::List | OpKind::Status | OpKind::Hello),
            Field::Value => matches!(op, OpKind::Set | OpKind::TestSet),
            Field::Test => op == OpKind::TestSet,
            Field::Prefix | Field::After | Field::Limit => op == OpKind::List,
            Field::Session => op == OpKind::Hello,
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
    pub(super) fn into_request(self) -> Result<Request, Refusal> {
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
        [
            (Field::Key, self.key.is_some()),
            (Field::Value, self.value.is_some()),
            (Field::Test, self.test.is_some()),
            (Field::Prefix, self.prefix.is_some()),
            (Field::After, self.after.is_some()),
            (Field::Limit, self.limit.is_some()),
            (Field::Session, self.session.is_some()),
        ]
        .into_iter()
        .find_map(|(field, there)| (there && !field.belongs_to(op)).then_some(field))
    }

    /// Takes one field's value; `read` is called once, for its kind.
    pub(super) fn fill<'de, E>(
        &mut self,
        field: Field,
        value: impl ReadValue<'de, E>,
    ) -> Result<bool, E> {
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
pub(super) trait ReadValue<'de, E> {
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

/// A session's name as it goes over the wire: a UUID with its hyphens, and no other way to write
/// one.
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

pub(super) fn wrong_kind(field: Field) -> String {
    format!("\"{}\" must be {}", field.name(), field.must_be())
}

pub(super) fn no_such_field(op: OpKind, name: &str) -> String {
    format!("op \"{}\" has no field \"{}\"", op.as_str(), shorten(name))
}
