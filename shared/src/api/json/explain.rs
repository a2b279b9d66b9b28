//! The slow path of reading a request: one that the fast path stumbled over, a field at a time, for
//! its id and for the words that refuse it.

use super::fields::{Field, Flat, no_such_field, wrong_kind};
use super::requests::Refusal;
use super::shorten;
use crate::api::{ErrorCode, OpKind, Request};
use crate::ids::RequestId;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The slow path: one request, a field at a time.
pub(super) fn explain(text: &str) -> Result<Request, Refusal> {
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
            Err(error) => {
                return Err(bad(match op {
                    Some(op) if !field.belongs_to(op) => no_such_field(op, name),
                    _ => wrong(field, raw, &error),
                }));
            }
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

/// The fields of a JSON object as they came, duplicates included. Of more than could possibly be
/// right it keeps only the first, and the ids.
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
