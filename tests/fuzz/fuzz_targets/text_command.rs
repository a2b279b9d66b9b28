//! A line of the prompt, and what is printed for it.
#![no_main]

use kvservice_shared::api::json::decode_requests;
use kvservice_shared::api::{ApiError, ErrorCode, ListEntry, Op, Reply, Request, Value};
use kvservice_shared::command::{Command, render};
use kvservice_shared::ids::{RequestId, Seq};
use kvservice_shared::limits;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &str| {
    match Command::parse(line) {
        Err(error) => {
            assert!(error.at <= line.chars().count(), "{error:?}");
            assert_printable(&error.to_string());
        }
        Ok(command) => {
            let canonical = command.to_string();
            assert_printable(&canonical);
            let again = Command::parse(&canonical);
            assert_eq!(again.as_ref(), Ok(&command), "{canonical:?}");
            assert_eq!(again.map(|again| again.to_string()), Ok(canonical));
            check_request(&command);
            check_print(&command, line);
        }
    }
});

/// What the server would make of it.
fn check_request(command: &Command) {
    let Some(op) = command.to_op() else { return };
    let too_long = match &op {
        Op::Get { key } | Op::Delete { key } | Op::Set { key, .. } | Op::TestSet { key, .. } => {
            key.len() > limits::KEY_BYTES_MAX
        }
        Op::List { prefix, .. } => prefix.len() > limits::KEY_BYTES_MAX,
        Op::Status | Op::Hello { .. } => false,
    };
    let request = Request {
        id: RequestId(1),
        op,
    };
    let decoded = decode_requests(&request.to_json()).requests.remove(0);
    match decoded {
        Ok(decoded) => assert_eq!(decoded, request),
        Err(refusal) => assert!(too_long, "{refusal:?}"),
    }
}

/// Whatever is in the store, and whatever a server says, stays on its line and steers no terminal.
fn check_print(command: &Command, text: &str) {
    let value = Value::from(text);
    let revision = Seq(1);
    let reply = match command {
        Command::Get { .. } => Reply::Get {
            value: Some(value),
            revision,
        },
        Command::Set { .. } => Reply::Set { value, revision },
        Command::TestSet { .. } => Reply::TestSet {
            swapped: false,
            value: Some(value),
            revision,
        },
        Command::Delete { .. } => Reply::Delete {
            deleted: true,
            revision,
        },
        Command::List { .. } => Reply::List {
            entries: vec![ListEntry {
                key: text.to_owned(),
                value,
                revision,
            }],
            more: false,
        },
        Command::Status | Command::Help | Command::Exit => return,
    };
    assert_printable(&render(command, &Ok(reply)));
    let error = ApiError::unknown(ErrorCode::Internal, text);
    assert_printable(&render(command, &Err(error)));
}

fn assert_printable(line: &str) {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    assert!(!line.contains(breaks), "{line:?}");
}
