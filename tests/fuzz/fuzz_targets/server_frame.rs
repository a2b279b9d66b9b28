//! A server's text frame, as the page and the terminal read it.
#![no_main]

use kvservice_fuzz::within_memory;
use kvservice_shared::api::json::{decode_responses, responses_to_json};
use kvservice_shared::api::{OpKind, Response};
use kvservice_shared::command::{Command, render};
use kvservice_shared::ids::RequestId;
use libfuzzer_sys::fuzz_target;

/// What was asked under an id: 1 to 7 stand for the ops in their order, 8 was never sent, and so on.
fn asked(id: RequestId) -> Option<OpKind> {
    let at = usize::try_from((id.0 - 1) % 8).ok()?;
    OpKind::ALL.get(at).copied()
}

fuzz_target!(|text: &str| {
    let decoded = within_memory(text.len(), 128, || decode_responses(text, asked));
    let Ok(responses) = decoded else { return };
    assert!(text.trim_ascii_start().starts_with('[') || responses.len() <= 1);
    for response in &responses {
        check_one(response);
    }
    let again = decode_responses(&responses_to_json(&responses), asked);
    assert_eq!(again, Ok(responses));
});

fn check_one(response: &Response) {
    assert!(response.id.is_none() || response.id.and_then(asked).is_some());
    assert!(response.id.is_some() || response.result.is_err());
    let again = decode_responses(&response.to_json(), asked);
    assert_eq!(again.as_deref(), Ok(std::slice::from_ref(response)));
    for command in commands() {
        let printed = render(&command, &response.result);
        let steers = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        let mut lines = printed.split('\n');
        assert!(!lines.any(|line| line.contains(steers)), "{printed:?}");
    }
}

/// One of each, so that one of them is answered.
fn commands() -> [Command; 6] {
    let key = || "key".to_owned();
    [
        Command::Get { key: key() },
        Command::Set {
            key: key(),
            value: key(),
        },
        Command::TestSet {
            key: key(),
            test: None,
            value: key(),
        },
        Command::Delete { key: key() },
        Command::List { prefix: key() },
        Command::Status,
    ]
}
