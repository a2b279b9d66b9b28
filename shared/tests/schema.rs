//! The checked-in JSON Schema is the generated one, and it says what the server does: every example
//! of the reference conforms, and what the server refuses does not.
//!
//! `cargo test -p kvservice-shared --features schema`

#![cfg(all(feature = "schema", not(target_arch = "wasm32")))]

mod document;

use document::{Example, examples};
use kvservice_shared::api::json::decode_requests;
use kvservice_shared::api::schema;
use serde_json::Value;

const CHECKED_IN: &str = include_str!("../../docs/client-protocol.schema.json");

#[test]
fn the_checked_in_schema_is_current() {
    // Compared as JSON: the order of an object's fields depends on serde_json's features, and those
    // on what else is built.
    let generated: Value = serde_json::from_str(&schema::document()).expect("JSON");
    let checked_in: Value = serde_json::from_str(CHECKED_IN).expect("JSON");
    assert!(
        generated == checked_in,
        "docs/client-protocol.schema.json is not what the types say; \
         cargo run -p kvservice-shared --features schema --example client-schema"
    );
}

#[test]
fn every_example_of_the_reference_conforms() {
    let root: Value = serde_json::from_str(CHECKED_IN).expect("JSON");
    for example in examples() {
        let (side, frame) = match &example {
            Example::Request { frame } => ("ClientFrame", frame),
            Example::Response { frame, .. } => ("ServerFrame", frame),
            // No frame: it goes over HTTP.
            Example::Dump { .. } => continue,
        };
        let value: Value = serde_json::from_str(frame).expect(frame);
        assert!(conforms(&value, &root["$defs"][side], &root), "{frame}");
    }
}

#[test]
fn the_schema_and_the_server_agree() {
    let root: Value = serde_json::from_str(CHECKED_IN).expect("JSON");
    let values = [
        r#""a""#,
        r#""""#,
        "null",
        "7",
        r#"{"base64":"YQ=="}"#,
        r#"{"base64":7}"#,
        "{}",
    ];
    let uuid = r#""67e55044-10b1-426f-9247-bb680e5fe0c8""#;
    let mut agreed = [0, 0];
    for op in [
        "get", "set", "testset", "delete", "list", "status", "hello", "incr",
    ] {
        let mut frames = vec![format!(r#"{{"id":1,"op":"{op}"}}"#)];
        for fields in [
            &["key"][..],
            &["key", "value"],
            &["key", "test", "value"],
            &["prefix"],
        ] {
            for varied in fields {
                for value in values {
                    let mut frame = format!(r#"{{"id":1,"op":"{op}""#);
                    for field in fields {
                        let value = if field == varied { value } else { r#""x""# };
                        frame += &format!(r#","{field}":{value}"#);
                    }
                    frames.push(frame + "}");
                }
            }
        }
        for limit in ["0", "1", "1000", "1001", "1.5", "null", r#""1""#] {
            frames.push(format!(
                r#"{{"id":1,"op":"{op}","prefix":"","after":"","limit":{limit}}}"#
            ));
        }
        for session in [uuid, r#""me""#, "7"] {
            frames.push(format!(r#"{{"id":1,"op":"{op}","session":{session}}}"#));
        }
        for id in [
            "0",
            "9007199254740991",
            "9007199254740992",
            "null",
            r#""1""#,
            "-1",
        ] {
            frames.push(format!(
                r#"{{"id":{id},"op":"{op}","key":"a","value":"b"}}"#
            ));
        }
        for frame in frames {
            let accepted = decode_requests(&frame).requests[0].is_ok();
            let value: Value = serde_json::from_str(&frame).expect(&frame);
            let valid = conforms(&value, &root["$defs"]["ClientFrame"], &root);
            assert_eq!(accepted, valid, "{frame}");
            agreed[usize::from(accepted)] += 1;
        }
    }
    assert!(
        agreed[0] > 50 && agreed[1] >= 20,
        "both kinds were tried: {agreed:?}"
    );
    assert!(!conforms(
        &Value::Array(Vec::new()),
        &root["$defs"]["ClientFrame"],
        &root
    ));
}

/// As much of JSON Schema as the document uses; anything else in it is a failure here.
fn conforms(value: &Value, schema: &Value, root: &Value) -> bool {
    let rules = match schema {
        Value::Bool(all) => return *all,
        Value::Object(rules) => rules,
        other => panic!("not a schema: {other}"),
    };
    let list = |rule: &Value| rule.as_array().expect("a list of schemas").clone();
    rules.iter().all(|(name, rule)| match name.as_str() {
        "$ref" => {
            let pointer = rule
                .as_str()
                .and_then(|to| to.strip_prefix('#'))
                .expect("a local reference");
            conforms(
                value,
                root.pointer(pointer).expect("what is referred to"),
                root,
            )
        }
        "anyOf" => list(rule).iter().any(|one| conforms(value, one, root)),
        "oneOf" => {
            list(rule)
                .iter()
                .filter(|one| conforms(value, one, root))
                .count()
                == 1
        }
        "allOf" => list(rule).iter().all(|one| conforms(value, one, root)),
        "const" => value == rule,
        "enum" => list(rule).contains(value),
        "type" => match rule {
            Value::Array(types) => types.iter().any(|one| has_type(value, one)),
            one => has_type(value, one),
        },
        "required" => {
            let has = |name: &Value| value.get(name.as_str().expect("a name")).is_some();
            !value.is_object() || list(rule).iter().all(has)
        }
        "properties" => rule
            .as_object()
            .expect("schemas by name")
            .iter()
            .all(|(name, schema)| {
                value
                    .get(name)
                    .is_none_or(|value| conforms(value, schema, root))
            }),
        "additionalProperties" => {
            assert_eq!(rule, &Value::Bool(false));
            let known = |name: &String| schema["properties"].get(name).is_some();
            value
                .as_object()
                .is_none_or(|fields| fields.keys().all(known))
        }
        "items" => value
            .as_array()
            .is_none_or(|items| items.iter().all(|one| conforms(one, rule, root))),
        "minItems" => value
            .as_array()
            .is_none_or(|items| items.len() as u64 >= number(rule)),
        "maxItems" => value
            .as_array()
            .is_none_or(|items| items.len() as u64 <= number(rule)),
        "minLength" => value
            .as_str()
            .is_none_or(|text| text.chars().count() as u64 >= number(rule)),
        "maxLength" => value
            .as_str()
            .is_none_or(|text| text.chars().count() as u64 <= number(rule)),
        "minimum" => value
            .as_f64()
            .is_none_or(|value| value >= number(rule) as f64),
        "maximum" => value
            .as_f64()
            .is_none_or(|value| value <= number(rule) as f64),
        "pattern" => value.as_str().is_none_or(|text| {
            // The only pattern is a UUID's.
            let hex = |(at, c): (usize, char)| match at {
                8 | 13 | 18 | 23 => c == '-',
                _ => c.is_ascii_hexdigit(),
            };
            text.len() == 36 && text.chars().enumerate().all(hex)
        }),
        "title" | "description" | "default" | "format" | "contentEncoding" => true,
        other => panic!("the schema has a rule that this test does not know: {other}"),
    })
}

fn number(rule: &Value) -> u64 {
    rule.as_f64().expect("a number") as u64
}

fn has_type(value: &Value, name: &Value) -> bool {
    match name.as_str().expect("a type") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("no such type here: {other}"),
    }
}
