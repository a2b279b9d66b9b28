//! Lines that parse, lines that do not and what they are told, and round trips.

use crate::api::{Op, OpKind};
use crate::command::{COMMANDS, Command, HELP};
use crate::testing::cases;
use proptest::option;
use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn get(key: &str) -> Command {
    Command::Get {
        key: key.to_owned(),
    }
}

fn set(key: &str, value: &str) -> Command {
    Command::Set {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

fn testset(key: &str, test: Option<&str>, value: &str) -> Command {
    Command::TestSet {
        key: key.to_owned(),
        test: test.map(str::to_owned),
        value: value.to_owned(),
    }
}

fn delete(key: &str) -> Command {
    Command::Delete {
        key: key.to_owned(),
    }
}

fn list(prefix: &str) -> Command {
    Command::List {
        prefix: prefix.to_owned(),
    }
}

#[test]
fn lines_parse_and_echo_in_canonical_form() {
    let table = [
        ("get(color)", get("color"), "get(color)"),
        ("  get ( color )  ", get("color"), "get(color)"),
        ("\tget(\u{a0}color\u{a0})\r\n", get("color"), "get(color)"),
        (r#"get("color")"#, get("color"), "get(color)"),
        (
            "get(a:b/c.d=e'[]{}\\#)",
            get("a:b/c.d=e'[]{}\\#"),
            "get(a:b/c.d=e'[]{}\\#)",
        ),
        ("get(färbe😀)", get("färbe😀"), "get(färbe😀)"),
        ("set(color,red)", set("color", "red"), "set(color,red)"),
        ("set( color , red )", set("color", "red"), "set(color,red)"),
        (r#"set(color,"")"#, set("color", ""), r#"set(color,"")"#),
        (
            r#"set(m,"to be, or (not)")"#,
            set("m", "to be, or (not)"),
            r#"set(m,"to be, or (not)")"#,
        ),
        (r#"set(m," x ")"#, set("m", " x "), r#"set(m," x ")"#),
        (
            r#"set(m,"\"\\\/\b\f\n\r\t")"#,
            set("m", "\"\\/\u{8}\u{c}\n\r\t"),
            r#"set(m,"\"\\/\b\f\n\r\t")"#,
        ),
        (
            r#"set(m,"\u00e9\u00E9\ud83d\ude00")"#,
            set("m", "éé😀"),
            "set(m,éé😀)",
        ),
        (
            r#"set(m,"\u001b[31m")"#,
            set("m", "\u{1b}[31m"),
            r#"set(m,"\u001b[31m")"#,
        ),
        (
            "set(m,\u{1b}[31m)",
            set("m", "\u{1b}[31m"),
            r#"set(m,"\u001b[31m")"#,
        ),
        (
            "set(m,\"a\tb\u{85}\u{2028}\")",
            set("m", "a\tb\u{85}\u{2028}"),
            r#"set(m,"a\tb\u0085\u2028")"#,
        ),
        (
            "testset(color,red,blue)",
            testset("color", Some("red"), "blue"),
            "testset(color,red,blue)",
        ),
        (
            "testset(color,,blue)",
            testset("color", None, "blue"),
            "testset(color,,blue)",
        ),
        (
            "testset(color, , blue)",
            testset("color", None, "blue"),
            "testset(color,,blue)",
        ),
        (
            r#"testset(color,"",blue)"#,
            testset("color", Some(""), "blue"),
            r#"testset(color,"",blue)"#,
        ),
        ("delete(color)", delete("color"), "delete(color)"),
        ("list(co)", list("co"), "list(co)"),
        ("list()", list(""), "list()"),
        ("list( )", list(""), "list()"),
        (r#"list("")"#, list(""), "list()"),
        ("status", Command::Status, "status"),
        (" help ", Command::Help, "help"),
        ("exit\n", Command::Exit, "exit"),
    ];
    for (line, command, canonical) in table {
        assert_eq!(Command::parse(line).as_ref(), Ok(&command), "{line}");
        assert_eq!(command.to_string(), canonical, "{line}");
        assert_eq!(Command::parse(canonical), Ok(command), "{line}");
    }
}

#[test]
fn lines_that_do_not_parse_say_what_is_wrong_and_where() {
    let names = "there are get, set, testset, delete, list, status, help, exit";
    let wants = "text with spaces, commas or brackets goes in double quotes";
    let table = [
        ("", 0, format!("a command is missing; {names}")),
        ("   ", 3, format!("a command is missing; {names}")),
        (
            "  gett(color)",
            2,
            format!("there is no command gett; {names}"),
        ),
        ("GET(color)", 0, format!("there is no command GET; {names}")),
        (
            "(color)",
            0,
            "a line begins with a command, not with \"(\"".to_owned(),
        ),
        (
            "\"get\"(color)",
            0,
            "a line begins with a command, not with a double quote".to_owned(),
        ),
        ("get", 3, "it is written get(id)".to_owned()),
        (
            "get color",
            4,
            "nothing may follow the command but its brackets".to_owned(),
        ),
        ("get()", 4, "id is missing".to_owned()),
        ("get(\"\")", 4, "a key is not empty".to_owned()),
        (
            "get(color",
            9,
            "the bracket at character 4 is not closed".to_owned(),
        ),
        (
            "get(",
            4,
            "the bracket at character 4 is not closed".to_owned(),
        ),
        (
            "get(color))",
            10,
            "nothing may follow the command, but here is \")\"".to_owned(),
        ),
        (
            "get(color) x",
            11,
            "nothing may follow the command, but here is x".to_owned(),
        ),
        (
            "get(a,b)",
            6,
            "too many arguments; it is written get(id)".to_owned(),
        ),
        (
            "get(a b)",
            6,
            format!("expected , or ) but here is b; {wants}"),
        ),
        (
            "get(a(b))",
            5,
            format!("expected , or ) but here is \"(\"; {wants}"),
        ),
        (
            "get(a\"b\")",
            5,
            format!("expected , or ) but here is a double quote; {wants}"),
        ),
        (
            "get(\"a\"b)",
            7,
            format!("expected , or ) but here is b; {wants}"),
        ),
        (
            "get(\"a)",
            7,
            "the double quote at character 5 is not closed".to_owned(),
        ),
        (
            "set(färbe)",
            9,
            "val is missing; it is written set(id,val)".to_owned(),
        ),
        (
            "set(a,)",
            6,
            "val is missing; the empty string is written \"\"".to_owned(),
        ),
        ("set(,b)", 4, "id is missing".to_owned()),
        (
            "set(a, )",
            7,
            "val is missing; the empty string is written \"\"".to_owned(),
        ),
        (
            "set(a,b,c)  ",
            8,
            "too many arguments; it is written set(id,val)".to_owned(),
        ),
        (
            "testset(a,b)  ",
            11,
            "newVal is missing; it is written testset(id,testVal,newVal)".to_owned(),
        ),
        (
            "testset(a)",
            9,
            "testVal is missing; it is written testset(id,testVal,newVal)".to_owned(),
        ),
        (
            "testset(a,b,)",
            12,
            "newVal is missing; the empty string is written \"\"".to_owned(),
        ),
        ("list", 4, "it is written list(prefix)".to_owned()),
        (
            "status()",
            6,
            "it is written status, without brackets".to_owned(),
        ),
        (
            "exit now",
            5,
            "nothing may follow the command but its brackets".to_owned(),
        ),
        (
            r#"set(a,"\x")"#,
            7,
            r#"no such escape; there are \" \\ \/ \b \f \n \r \t \uXXXX"#.to_owned(),
        ),
        (
            r#"set(a,"\"#,
            7,
            r#"no such escape; there are \" \\ \/ \b \f \n \r \t \uXXXX"#.to_owned(),
        ),
        (
            r#"set(a,"é\u12g4")"#,
            8,
            "\\u takes four hex digits".to_owned(),
        ),
        (r#"set(a,"\u12"#, 7, "\\u takes four hex digits".to_owned()),
        (
            r#"set(a,"\ud83dx")"#,
            7,
            "half of a character: \\uD800 to \\uDBFF and \\uDC00 to \\uDFFF go in pairs".to_owned(),
        ),
        (
            r#"set(a,"\ude00\ud83d")"#,
            7,
            "half of a character: \\uD800 to \\uDBFF and \\uDC00 to \\uDFFF go in pairs".to_owned(),
        ),
        (
            r#"set(a,"\ud83d\u0041")"#,
            7,
            "half of a character: \\uD800 to \\uDBFF and \\uDC00 to \\uDFFF go in pairs".to_owned(),
        ),
        (
            r#"set(a,"\ud83d\u")"#,
            13,
            "\\u takes four hex digits".to_owned(),
        ),
    ];
    for (line, at, message) in table {
        let error = Command::parse(line).expect_err(line);
        assert_eq!(error.message, message, "{line}");
        assert_eq!(error.at, at, "{line}");
    }
}

#[test]
fn an_error_displays_its_place_from_one() {
    let error = Command::parse("get()").expect_err("no key");
    assert_eq!(error.to_string(), "id is missing (at character 5)");
}

#[test]
fn commands_stand_for_requests() {
    assert_eq!(
        get("a").to_op(),
        Some(Op::Get {
            key: "a".to_owned()
        })
    );
    assert_eq!(
        testset("a", None, "b").to_op(),
        Some(Op::TestSet {
            key: "a".to_owned(),
            test: None,
            value: "b".into()
        })
    );
    assert_eq!(
        testset("a", Some(""), "b").to_op(),
        Some(Op::TestSet {
            key: "a".to_owned(),
            test: Some("".into()),
            value: "b".into()
        })
    );
    assert_eq!(
        list("co").to_op(),
        Some(Op::List {
            prefix: "co".to_owned(),
            after: String::new(),
            limit: 100
        })
    );
    assert_eq!(
        Command::Status.to_op().map(|op| op.kind()),
        Some(OpKind::Status)
    );
    assert_eq!(Command::Help.to_op(), None);
    assert_eq!(Command::Exit.to_op(), None);
}

#[test]
fn every_command_is_in_the_help() {
    for known in COMMANDS {
        assert!(known.signature.starts_with(known.name), "{}", known.name);
        let line = HELP
            .lines()
            .find(|line| line.split("  ").next() == Some(known.signature));
        let line = line.unwrap_or_else(|| panic!("help has no line for {}", known.signature));
        assert!(line.ends_with(known.help), "{line}");
        // What the signature says parses.
        assert!(
            Command::parse(known.signature).is_ok(),
            "{}",
            known.signature
        );
    }
}

fn text() -> impl Strategy<Value = String> {
    let special = prop::sample::select(
        " ,()\"\\\n\t\u{1b}\u{a0}\u{2028}ab"
            .chars()
            .collect::<Vec<_>>(),
    );
    let chars = prop_oneof![3 => special, 1 => any::<char>()];
    prop::collection::vec(chars, 0..12).prop_map(|chars| chars.into_iter().collect())
}

fn key() -> impl Strategy<Value = String> {
    text().prop_filter("not empty", |key| !key.is_empty())
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        key().prop_map(|key| Command::Get { key }),
        (key(), text()).prop_map(|(key, value)| Command::Set { key, value }),
        (key(), option::of(text()), text()).prop_map(|(key, test, value)| Command::TestSet {
            key,
            test,
            value
        }),
        key().prop_map(|key| Command::Delete { key }),
        text().prop_map(|prefix| Command::List { prefix }),
        Just(Command::Status),
        Just(Command::Help),
        Just(Command::Exit),
    ]
}

/// Text made of the pieces of the grammar.
fn almost_a_line() -> impl Strategy<Value = String> {
    let pieces = [
        "get", "set", "testset", "list", "status", "(", ")", ",", "\"", " ", "\\", "\\u", "d83d",
        "a", "é",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..14)
        .prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn the_canonical_form_means_the_same(command in command()) {
        let line = command.to_string();
        prop_assert!(!line.chars().any(char::is_control), "{:?}", line);
        prop_assert_eq!(Command::parse(&line), Ok(command));
    }

    #[test]
    fn a_truncated_line_is_an_error(command in command()) {
        let line = command.to_string();
        for (end, _) in line.char_indices() {
            prop_assert!(Command::parse(&line[..end]).is_err(), "{}", &line[..end]);
        }
    }

    #[test]
    fn any_line_parses_to_its_canonical_form_or_points_into_itself(
        line in prop_oneof![any::<String>(), almost_a_line()]
    ) {
        match Command::parse(&line) {
            Ok(command) => prop_assert_eq!(Command::parse(&command.to_string()), Ok(command)),
            Err(error) => {
                prop_assert!(error.at <= line.chars().count());
                prop_assert!(!error.message.is_empty());
                prop_assert!(!error.message.chars().any(char::is_control));
            }
        }
    }
}
