//! What the prompt prints, line by line of the protocol's table.

use crate::api::{
    ApiError, ErrorCode, FrontEndStatus, LearnerPhase, LearnerStatus, ListEntry, MemberStatus,
    Mode, Reply, Role, Status, StorageKind, Value,
};
use crate::command::{Command, HELP, render};
use crate::ids::Seq;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn printed(line: &str, result: Result<Reply, ApiError>) -> String {
    render(&Command::parse(line).expect(line), &result)
}

fn got(value: Option<Value>) -> Result<Reply, ApiError> {
    Ok(Reply::Get {
        value,
        revision: Seq(1),
    })
}

fn tested(swapped: bool, value: Option<&str>) -> Result<Reply, ApiError> {
    Ok(Reply::TestSet {
        swapped,
        value: value.map(Value::from),
        revision: Seq(1),
    })
}

fn deleted(deleted: bool) -> Result<Reply, ApiError> {
    Ok(Reply::Delete {
        deleted,
        revision: Seq(1),
    })
}

fn listed(keys: &[(&str, &str)], more: bool) -> Result<Reply, ApiError> {
    let entry = |&(key, value): &(&str, &str)| ListEntry {
        key: key.to_owned(),
        value: value.into(),
        revision: Seq(1),
    };
    Ok(Reply::List {
        entries: keys.iter().map(entry).collect(),
        more,
    })
}

#[test]
fn answers_print_as_in_the_table() {
    let set = |value: &str| {
        Ok(Reply::Set {
            value: value.into(),
            revision: Seq(1),
        })
    };
    let table = [
        (
            " get( color )",
            got(Some("red".into())),
            "get(color) -> red",
        ),
        ("get(color)", got(None), "get(color) -> (none)"),
        (
            "get(color)",
            got(Some("(none)".into())),
            r#"get(color) -> "(none)""#,
        ),
        ("get(color)", got(Some("".into())), r#"get(color) -> """#),
        (
            "get(color)",
            got(Some("two\nlines".into())),
            r#"get(color) -> "two\nlines""#,
        ),
        (
            "get(color)",
            got(Some(vec![0xff, 0].into())),
            "get(color) -> base64:/wA=",
        ),
        (
            r#"get("my color")"#,
            got(Some("red".into())),
            r#"get("my color") -> red"#,
        ),
        ("set(color,red)", set("red"), "set(color,red) -> red"),
        (r#"set(color,"")"#, set(""), r#"set(color,"") -> """#),
        (
            "testset(color,red,blue)",
            tested(true, Some("blue")),
            "testset(color,red,blue) -> blue [set]",
        ),
        (
            "testset(color,red,blue)",
            tested(false, Some("green")),
            "testset(color,red,blue) -> green [not set]",
        ),
        (
            "testset(color,red,blue)",
            tested(false, None),
            "testset(color,red,blue) -> (none) [not set]",
        ),
        (
            "testset(color,,blue)",
            tested(true, Some("blue")),
            "testset(color,,blue) -> blue [set]",
        ),
        ("delete(color)", deleted(true), "delete(color) -> deleted"),
        ("delete(color)", deleted(false), "delete(color) -> (none)"),
        (
            "list()",
            listed(&[("a", "1"), ("b c", "2 3")], false),
            "a -> 1\n\"b c\" -> \"2 3\"",
        ),
        ("list(x)", listed(&[], false), "(none)"),
        ("list()", listed(&[("a", "1")], true), "a -> 1\n(more)"),
        ("help", got(None), HELP),
    ];
    for (line, result, expected) in table {
        assert_eq!(printed(line, result), expected);
    }
}

#[test]
fn errors_print_their_code_and_an_unknown_outcome() {
    let unavailable = ApiError::not_applied(ErrorCode::Unavailable, "no node has joined yet");
    assert_eq!(
        printed("set(a,b)", Err(unavailable)),
        "set(a,b) -> error unavailable: no node has joined yet"
    );
    let timeout = || ApiError::unknown(ErrorCode::Timeout, "not committed\nwithin 5 s");
    assert_eq!(
        printed("set(a,b)", Err(timeout())),
        "set(a,b) -> error timeout: not committed within 5 s (outcome unknown: it may have been written)"
    );
    // A read has no outcome.
    assert_eq!(
        printed("get(a)", Err(timeout())),
        "get(a) -> error timeout: not committed within 5 s"
    );
}

#[test]
fn an_answer_to_something_else_is_an_error() {
    assert_eq!(
        printed("set(a,b)", got(None)),
        "set(a,b) -> error internal: an answer to something else came"
    );
}

fn member(node: &str, address: &str, role: Role, to: [Option<&str>; 2], at: u64) -> MemberStatus {
    MemberStatus {
        node: node.to_owned(),
        address: address.to_owned(),
        role,
        next: to[0].map(str::to_owned),
        second: to[1].map(str::to_owned),
        durable: Seq(at),
        stable: Seq(99),
        committed: Seq(99),
        applied: Seq(99),
        hash: "00c0ffee00c0ffee".to_owned(),
        storage: StorageKind::Memory,
    }
}

fn chain() -> Status {
    Status {
        mode: Mode::Chain,
        cluster: Some("5f0c".to_owned()),
        epoch: 12,
        members: vec![
            member(
                "n1",
                "10.0.0.1:7411",
                Role::Head,
                [Some("10.0.0.22:7411"), Some("x:1")],
                100,
            ),
            member(
                "n12",
                "10.0.0.22:7411",
                Role::Middle,
                [Some("x:1"), None],
                99,
            ),
            member("n3", "x:1", Role::Tail, [None, None], 99),
        ],
        learners: vec![LearnerStatus {
            node: "n4".to_owned(),
            address: "x:2".to_owned(),
            phase: LearnerPhase::Snapshot,
            behind: 5,
            received_bytes: 1024,
            total_bytes: 4096,
        }],
        front_end: FrontEndStatus {
            head: Some("10.0.0.1:7411".to_owned()),
            second: Some("10.0.0.22:7411".to_owned()),
        },
        events: Vec::new(),
        waiting: None,
    }
}

fn lines(status: Status) -> Vec<String> {
    let text = printed("status", Ok(Reply::Status(Box::new(status))));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn status_shows_the_chain_head_to_tail() {
    assert_eq!(
        lines(chain()),
        [
            "chain, cluster 5f0c, epoch 12, 3 members",
            "  front-end                          next 10.0.0.1:7411   second 10.0.0.22:7411",
            "  n1         head    10.0.0.1:7411   next 10.0.0.22:7411  second x:1             \
             durable 100  stable 99  committed 99  applied 99  hash 00c0ffee00c0ffee  memory",
            "  n12        middle  10.0.0.22:7411  next x:1             second -               \
             durable 99   stable 99  committed 99  applied 99  hash 00c0ffee00c0ffee  memory",
            "  n3         tail    x:1             next -               second -               \
             durable 99   stable 99  committed 99  applied 99  hash 00c0ffee00c0ffee  memory",
            "  n4  joining  x:2  snapshot  5 entries behind  1024 of 4096 bytes",
        ]
    );
}

#[test]
fn status_says_what_is_awaited() {
    let empty = Status {
        cluster: None,
        epoch: 0,
        members: Vec::new(),
        learners: Vec::new(),
        front_end: FrontEndStatus::default(),
        ..chain()
    };
    assert_eq!(
        lines(empty.clone()),
        [
            "chain, no cluster yet, epoch 0, 0 members",
            "  front-end  next -  second -",
            "no node has joined yet",
        ]
    );
    let waiting = Status {
        waiting: Some("n1 or n2 to come back".to_owned()),
        ..empty
    };
    assert_eq!(
        lines(waiting).last().map(String::as_str),
        Some("waiting: n1 or n2 to come back")
    );
}

#[test]
fn status_of_a_single_server_shows_no_pointers() {
    let single = Status {
        mode: Mode::Single,
        members: vec![member("n1", "-", Role::Single, [None, None], 99)],
        learners: Vec::new(),
        front_end: FrontEndStatus::default(),
        ..chain()
    };
    assert_eq!(
        lines(single),
        [
            "single server, cluster 5f0c, epoch 12",
            "  n1  single  -  durable 99  stable 99  committed 99  applied 99  \
             hash 00c0ffee00c0ffee  memory",
        ]
    );
}

#[test]
fn nothing_printed_steers_the_terminal() {
    let mut status = chain();
    status.members[0].address = "\u{1b}[2J\n".to_owned();
    status.waiting = Some("a\u{1b}b".to_owned());
    for line in lines(status) {
        assert!(!line.contains(char::is_control), "{line:?}");
    }
    let error = ApiError::not_applied(ErrorCode::Busy, "\u{1b}[2J");
    for result in [Err(error), got(Some("\u{1b}[2J\u{9b}".into()))] {
        assert!(!printed("get(a)", result).contains(char::is_control));
    }
}

/// A server's words, and the names in a status, come from elsewhere.
#[test]
fn nothing_ends_a_line_that_is_not_its_end() {
    for ends in ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'] {
        let error = ApiError::unknown(ErrorCode::Internal, format!("a{ends}b"));
        assert_eq!(
            printed("get(k)", Err(error)),
            "get(k) -> error internal: a b"
        );
        let waiting = Status {
            waiting: Some(format!("a{ends}b")),
            ..no_chain()
        };
        let printed = printed("status", Ok(Reply::Status(Box::new(waiting))));
        assert!(printed.ends_with("waiting: a b"), "{printed:?}");
    }
}

fn no_chain() -> Status {
    Status {
        mode: Mode::Chain,
        cluster: None,
        epoch: 0,
        members: Vec::new(),
        learners: Vec::new(),
        front_end: FrontEndStatus::default(),
        events: Vec::new(),
        waiting: None,
    }
}
