//! The client protocol as a JSON Schema, generated from the types that the server compiles, so that
//! `docs/client-protocol.schema.json` cannot say something else than the code does.
//!
//! The plain structs (`status`, `limits`, errors) derive theirs. Requests and responses are read
//! and written by hand in [`json`](super::json), so theirs are written by hand too, here; the tests
//! hold both against the examples of the reference.

use super::{ApiError, Limits, ListEntry, OpKind, Request, Response, Status, Value};
use crate::ids::{RequestId, Seq, SessionUuid};
use crate::limits;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, json};
use std::borrow::Cow;

/// The schema document: a frame of either direction. Pretty-printed, with a newline at the end.
#[must_use]
pub fn document() -> String {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let from_client = generator.subschema_for::<ClientFrame>();
    let from_server = generator.subschema_for::<ServerFrame>();
    let document = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "kvservice client protocol, version 1",
        "description": "A text frame of the WebSocket sub-protocol kvservice.v1.json. \
            A client sends #/$defs/ClientFrame and receives #/$defs/ServerFrame.",
        "anyOf": [from_client, from_server],
        "$defs": generator.take_definitions(true),
    });
    let mut text = serde_json::to_string_pretty(&document).expect("JSON prints");
    text.push('\n');
    text
}

/// What a client sends.
struct ClientFrame;

/// What a server sends.
struct ServerFrame;

macro_rules! schema {
    ($type:ty, $name:literal, |$generator:pat_param| $schema:expr) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn schema_id() -> Cow<'static, str> {
                concat!(module_path!(), "::", $name).into()
            }
            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

schema!(ClientFrame, "ClientFrame", |generator| {
    let request = generator.subschema_for::<Request>();
    json_schema!({
        "description": "One request, or a batch.",
        "anyOf": [
            request,
            {
                "type": "array",
                "items": request,
                "minItems": 1,
                "maxItems": limits::BATCH_REQUESTS_MAX,
            },
        ],
    })
});

schema!(ServerFrame, "ServerFrame", |generator| {
    let response = generator.subschema_for::<Response>();
    json_schema!({
        "description": "One response, or several. They come in any order.",
        "anyOf": [response, { "type": "array", "items": response }],
    })
});

schema!(RequestId, "RequestId", |_| json_schema!({
    "description": "Chosen by the client; the response carries it.",
    "type": "integer",
    "minimum": 1,
    "maximum": RequestId::MAX.0,
}));

schema!(Seq, "Revision", |_| json_schema!({
    "description": "A place in the order of all writes: grows with every write, may have gaps. \
        0 where there is none.",
    "type": "integer",
    "minimum": 0,
}));

schema!(SessionUuid, "SessionUuid", |_| json_schema!({
    "description": "A session's name: a random UUID of the client's.",
    "type": "string",
    "format": "uuid",
    "pattern": "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$",
}));

schema!(Value, "Value", |_| json_schema!({
    "description": format!(
        "At most {} bytes: a string where they are UTF-8, base64 otherwise.",
        limits::VALUE_BYTES_MAX
    ),
    "anyOf": [
        { "type": "string" },
        {
            "type": "object",
            "properties": { "base64": { "type": "string", "contentEncoding": "base64" } },
            "required": ["base64"],
            "additionalProperties": false,
        },
    ],
}));

/// A non-empty string of so many bytes at most; JSON Schema can only count characters.
fn key() -> serde_json::Value {
    json!({
        "description": format!("Not empty, at most {} bytes of UTF-8.", limits::KEY_BYTES_MAX),
        "type": "string",
        "minLength": 1,
        "maxLength": limits::KEY_BYTES_MAX,
    })
}

fn part_of_key(description: &str) -> serde_json::Value {
    json!({
        "description": description,
        "type": "string",
        "maxLength": limits::KEY_BYTES_MAX,
    })
}

/// An op's request: `id` and `op`, its fields, and no other.
fn request_of(
    op: OpKind,
    description: &str,
    generator: &mut SchemaGenerator,
    required: &[&str],
    fields: serde_json::Value,
) -> serde_json::Value {
    let mut properties = Map::new();
    properties.insert(
        "id".to_owned(),
        json!(generator.subschema_for::<RequestId>()),
    );
    properties.insert("op".to_owned(), json!({ "const": op.as_str() }));
    if let serde_json::Value::Object(fields) = fields {
        properties.extend(fields);
    }
    let required: Vec<&str> = ["id", "op"].iter().chain(required).copied().collect();
    json!({
        "title": op.as_str(),
        "description": description,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

schema!(Request, "Request", |generator| {
    let value = generator.subschema_for::<Value>();
    let session = generator.subschema_for::<SessionUuid>();
    let nullable = json!({ "anyOf": [value, { "type": "null" }] });
    let mut test = nullable;
    test["description"] = "What the key must hold; null: only if it is absent.".into();
    let limit = json!({
        "type": "integer",
        "minimum": 1,
        "maximum": limits::LIST_ENTRIES_MAX,
        "default": limits::LIST_ENTRIES_DEFAULT,
    });
    let requests = [
        request_of(
            OpKind::Get,
            "Read one key.",
            generator,
            &["key"],
            json!({ "key": key() }),
        ),
        request_of(
            OpKind::Set,
            "Write one key.",
            generator,
            &["key", "value"],
            json!({ "key": key(), "value": value }),
        ),
        request_of(
            OpKind::TestSet,
            "Write one key if it holds what is expected.",
            generator,
            &["key", "test", "value"],
            json!({ "key": key(), "test": test, "value": value }),
        ),
        request_of(
            OpKind::Delete,
            "Remove one key.",
            generator,
            &["key"],
            json!({ "key": key() }),
        ),
        request_of(
            OpKind::List,
            "One page of keys, in the order of their bytes.",
            generator,
            &[],
            json!({
                "prefix": part_of_key("Only keys that start with this."),
                "after": part_of_key("Only keys after this one."),
                "limit": limit,
            }),
        ),
        request_of(OpKind::Status, "The chain.", generator, &[], json!({})),
        request_of(
            OpKind::Hello,
            "Names the session of this connection. First on a connection.",
            generator,
            &["session"],
            json!({ "session": session }),
        ),
    ];
    json_schema!({
        "description": "A request. Any op or field that the server does not know is refused by name.",
        "oneOf": requests,
    })
});

/// An op's response. A client ignores fields that it does not know, so there may be more.
fn response_to(
    op: OpKind,
    generator: &mut SchemaGenerator,
    fields: &[(&str, serde_json::Value)],
) -> serde_json::Value {
    let mut properties = Map::new();
    properties.insert(
        "id".to_owned(),
        json!(generator.subschema_for::<RequestId>()),
    );
    properties.extend(
        fields
            .iter()
            .map(|(name, schema)| ((*name).to_owned(), schema.clone())),
    );
    let required: Vec<&str> = ["id"]
        .into_iter()
        .chain(fields.iter().map(|(name, _)| *name))
        .collect();
    json!({
        "title": format!("response to {}", op.as_str()),
        "type": "object",
        "properties": properties,
        "required": required,
    })
}

schema!(Response, "Response", |generator| {
    let value = json!(generator.subschema_for::<Value>());
    let found = json!({ "anyOf": [value, { "type": "null" }] });
    let revision = json!(generator.subschema_for::<Seq>());
    let boolean = json!({ "type": "boolean" });
    let entries = json!({ "type": "array", "items": generator.subschema_for::<ListEntry>() });
    let status = json!(generator.subschema_for::<Status>());
    let hello = [
        ("session", json!(generator.subschema_for::<SessionUuid>())),
        ("resumed", boolean.clone()),
        ("opened", json!({ "type": "string" })),
        ("protocol", json!({ "type": "integer", "minimum": 1 })),
        ("server", json!({ "type": "string" })),
        ("limits", json!(generator.subschema_for::<Limits>())),
    ];
    let responses = [
        response_to(
            OpKind::Get,
            generator,
            &[("value", found.clone()), ("revision", revision.clone())],
        ),
        response_to(
            OpKind::Set,
            generator,
            &[("value", value), ("revision", revision.clone())],
        ),
        response_to(
            OpKind::TestSet,
            generator,
            &[
                ("swapped", boolean.clone()),
                ("value", found),
                ("revision", revision.clone()),
            ],
        ),
        response_to(
            OpKind::Delete,
            generator,
            &[("deleted", boolean.clone()), ("revision", revision)],
        ),
        response_to(
            OpKind::List,
            generator,
            &[("entries", entries), ("more", boolean)],
        ),
        json!({ "allOf": [response_to(OpKind::Status, generator, &[]), status] }),
        response_to(OpKind::Hello, generator, &hello),
        json!({
            "title": "error",
            "type": "object",
            "properties": {
                "id": {
                    "description": "null where no id could be read.",
                    "anyOf": [generator.subschema_for::<RequestId>(), { "type": "null" }],
                },
                "error": generator.subschema_for::<ApiError>(),
            },
            "required": ["id", "error"],
        }),
    ];
    json_schema!({
        "description": "A response. Which one it is, its reader knows from what was asked under the id.",
        "anyOf": responses,
    })
});
