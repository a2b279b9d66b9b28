//! What is sent again after a connection broke, and what is not: one situation a test.

use super::{Rig, config, was_set};
use crate::api::{ApiError, ErrorCode, Outcome};
use crate::ids::RequestId;
use crate::session::Session;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn after_resumed_everything_unanswered_is_sent_again_in_order() {
    let mut rig = Rig::new(config());
    rig.go_live(false);
    let ids: Vec<RequestId> = (0..4)
        .map(|n| if n == 1 { rig.get("a") } else { rig.set("a") })
        .collect();
    rig.answer(ids[2], was_set());
    rig.lose();
    let queued = rig.set("b");
    rig.go_live(true);
    assert_eq!(rig.ids(), [ids[0].0, ids[1].0, ids[3].0, queued.0]);
    assert_eq!(rig.results(), [(ids[2].0, was_set())]);
    rig.answer(ids[0], was_set());
    assert_eq!(rig.results(), [(ids[0].0, was_set())]);
}

#[test]
fn after_not_resumed_sent_writes_end_unknown_and_the_rest_is_sent() {
    let mut rig = Rig::new(config());
    rig.go_live(false);
    let write = rig.set("a");
    let read = rig.get("a");
    rig.lose();
    let queued = rig.set("b");
    rig.go_live(false);
    assert_eq!(
        rig.failures(),
        [(write.0, ErrorCode::Timeout, Outcome::Unknown)]
    );
    assert_eq!(rig.ids(), [read.0, queued.0]);
    // What ended does not come back with the next connection, and the others do.
    rig.lose();
    rig.go_live(true);
    assert_eq!(rig.ids(), [read.0, queued.0]);
    assert_eq!(rig.results(), []);
}

/// The server forgot the session; the `hello` that opened it anew was never answered; the next one
/// finds it and says "resumed", but what was sent before is not in it. Sending it again would apply
/// it twice.
#[test]
fn resumed_means_nothing_once_an_answer_to_hello_was_lost() {
    let mut rig = Rig::new(config());
    rig.go_live(false);
    let write = rig.set("a");
    rig.lose();
    let wait_ms = rig.session.next_wake_ms().expect("a retry") - rig.now_ms;
    rig.pass(wait_ms);
    rig.with(Session::connected);
    rig.lose();
    rig.go_live(true);
    assert_eq!(
        rig.failures(),
        [(write.0, ErrorCode::Timeout, Outcome::Unknown)]
    );
    assert_eq!(rig.ids(), Vec::<u64>::new());
    // An answer that arrives clears the doubt.
    let write = rig.set("a");
    rig.lose();
    rig.go_live(true);
    assert_eq!(rig.ids(), [write.0]);
}

/// Where the server names the `hello` that opened the session, a lost answer leaves no doubt.
#[test]
fn a_session_that_was_opened_by_another_hello_is_another() {
    for (opened, resent) in [("1", true), ("2", false)] {
        let mut rig = Rig::new(config());
        rig.go_live_to(false, Some("1"));
        let write = rig.set("a");
        rig.lose();
        let wait_ms = rig.session.next_wake_ms().expect("a retry") - rig.now_ms;
        rig.pass(wait_ms);
        rig.with(Session::connected);
        rig.lose();
        rig.go_live_to(true, Some(opened));
        assert_eq!(rig.ids() == [write.0], resent);
        assert_eq!(rig.results().is_empty(), resent);
    }
}

/// The same with an answer that says that nobody knows.
#[test]
fn resumed_means_nothing_after_a_hello_of_unknown_outcome() {
    for (error, resent) in [
        (
            ApiError::unknown(ErrorCode::Timeout, "not committed"),
            false,
        ),
        (
            ApiError::not_applied(ErrorCode::Unavailable, "no node"),
            true,
        ),
    ] {
        let mut rig = Rig::new(config());
        rig.go_live(false);
        let write = rig.set("a");
        rig.lose();
        let wait_ms = rig.session.next_wake_ms().expect("a retry") - rig.now_ms;
        rig.pass(wait_ms);
        rig.sent.clear();
        rig.with(Session::connected);
        let hello = rig.requests()[0].id;
        rig.answer(hello, Err(error));
        let wait_ms = rig.session.next_wake_ms().expect("a retry") - rig.now_ms;
        rig.pass(wait_ms);
        rig.welcome(true);
        assert_eq!(rig.ids() == [write.0], resent);
        assert_eq!(rig.results().is_empty(), resent);
    }
}

#[test]
fn an_error_after_a_second_attempt_leaves_a_write_unknown() {
    let mut rig = Rig::new(config());
    rig.go_live(false);
    let write = rig.set("a");
    let read = rig.get("a");
    rig.lose();
    rig.go_live(true);
    let fresh = rig.set("b");
    for id in [write, read, fresh] {
        rig.answer(
            id,
            Err(ApiError::not_applied(ErrorCode::Unavailable, "not now")),
        );
    }
    assert_eq!(
        rig.failures(),
        [
            (write.0, ErrorCode::Unavailable, Outcome::Unknown),
            (read.0, ErrorCode::Unavailable, Outcome::NotApplied),
            (fresh.0, ErrorCode::Unavailable, Outcome::NotApplied),
        ]
    );
}
