//! One situation a test.

use super::{Rig, config, was_set};
use crate::api::{ApiError, ErrorCode, Op, Outcome, Reply, Request, Response, Value};
use crate::ids::{RequestId, Seq};
use crate::limits::{CLIENT_FRAME_BYTES_MAX, IN_FLIGHT_REQUESTS_MAX};
use crate::session::{ConnState, Session, SessionConfig, SubmitError};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn was_got() -> Result<Reply, ApiError> {
    Ok(Reply::Get {
        value: None,
        revision: Seq(0),
    })
}

#[test]
fn hello_goes_first_and_requests_after_its_answer() {
    let mut rig = Rig::new(config());
    assert_eq!(rig.connects, 1);
    assert_eq!(rig.session.state(), &ConnState::Connecting { attempt: 1 });
    let early = rig.set("a");
    rig.with(Session::connected);
    assert_eq!(rig.session.state(), &ConnState::Greeting);
    let hello = rig.requests();
    assert_eq!(hello.len(), 1);
    assert_eq!(
        hello[0].op,
        Op::Hello {
            session: config().uuid
        }
    );
    assert_ne!(hello[0].id, early);

    rig.answer(hello[0].id, Ok(super::welcome(false, None)));
    assert!(matches!(
        rig.session.state(),
        ConnState::Live { resumed: false, .. }
    ));
    assert_eq!(rig.ids(), [early.0]);
    let late = rig.get("a");
    assert_eq!(rig.ids(), [late.0]);
    rig.answer(late, was_got());
    rig.answer(early, was_set());
    assert_eq!(rig.results(), [(late.0, was_got()), (early.0, was_set())]);
    assert_eq!(rig.session.unanswered(), 0);
}

#[test]
fn what_was_queued_goes_out_in_order_in_one_frame() {
    let mut rig = Rig::new(config());
    let ids: Vec<u64> = (0..10).map(|_| rig.set("a").0).collect();
    rig.go_live(false);
    assert_eq!(rig.sent.len(), 1);
    assert!(rig.sent[0].starts_with('['));
    assert_eq!(rig.ids(), ids);
}

#[test]
fn a_batch_is_one_frame() {
    let mut rig = Rig::new(config());
    rig.go_live(false);
    let ops = vec![
        Op::Status,
        Op::Get {
            key: "a".to_owned(),
        },
        Op::Status,
    ];
    let ids = rig
        .with(|session, now_ms| session.submit_batch(ops, now_ms))
        .expect("room");
    assert_eq!(rig.sent.len(), 1);
    assert_eq!(
        rig.requests()
            .iter()
            .map(|request| request.id)
            .collect::<Vec<_>>(),
        ids
    );
    // None at all is no frame.
    assert_eq!(
        rig.with(|session, now_ms| session.submit_batch(Vec::new(), now_ms)),
        Ok(Vec::new())
    );
    assert_eq!(rig.sent, Vec::<String>::new());
}

#[test]
fn time_ends_requests_and_says_what_may_have_happened() {
    let mut rig = Rig::new(config());
    let unsent = rig.set("a");
    rig.pass(3000); // the connection attempt is given up
    assert_eq!(rig.closes, 1);
    assert_eq!(rig.results(), []);
    rig.pass(1999);
    assert_eq!(rig.results(), []);
    rig.pass(1);
    assert_eq!(
        rig.failures(),
        [(unsent.0, ErrorCode::Unavailable, Outcome::NotApplied)]
    );

    let mut rig = Rig::new(SessionConfig {
        silence_timeout_ms: 0,
        ..config()
    });
    rig.go_live(false);
    let write = rig.set("a");
    let read = rig.get("a");
    assert_eq!(rig.session.next_wake_ms(), Some(5000));
    rig.pass(5000);
    assert_eq!(
        rig.failures(),
        [
            (write.0, ErrorCode::Timeout, Outcome::Unknown),
            (read.0, ErrorCode::Timeout, Outcome::NotApplied),
        ]
    );
    // A late answer, and the next connection, know nothing of them.
    rig.answer(write, was_set());
    rig.lose();
    rig.sent.clear();
    rig.go_live(true);
    assert_eq!((rig.results(), rig.ids()), (Vec::new(), Vec::new()));

    let mut rig = Rig::new(SessionConfig {
        request_timeout_ms: 0,
        silence_timeout_ms: 0,
        ..config()
    });
    rig.go_live(false);
    rig.set("a");
    assert_eq!(rig.session.next_wake_ms(), None);
    rig.pass(1 << 40);
    assert_eq!(rig.results(), []);
}

#[test]
fn silence_counts_only_while_something_is_awaited() {
    let mut rig = Rig::new(config());
    rig.go_live(false);
    rig.pass(60_000);
    assert_eq!((rig.closes, rig.session.next_wake_ms()), (0, None));
    let write = rig.set("a");
    rig.pass(2999);
    rig.with(Session::heard); // a pong
    rig.pass(1);
    assert_eq!(rig.closes, 0);
    // The request's own time is up before the pong's silence is.
    rig.pass(2000);
    assert_eq!(
        rig.failures(),
        [(write.0, ErrorCode::Timeout, Outcome::Unknown)]
    );
    assert_eq!(rig.session.next_wake_ms(), None);

    // What was awaited in vain counts, the pause until the next request does not.
    rig.pass(60_000);
    let write = rig.set("a");
    rig.sent.clear();
    rig.pass(998);
    assert_eq!(rig.closes, 0);
    rig.pass(1);
    assert_eq!(rig.closes, 1);
    let ConnState::Waiting { reason, .. } = rig.session.state() else {
        panic!("{:?}", rig.session.state())
    };
    assert_eq!(reason, "no answer for 3000 ms");
    // Nothing that the given-up socket still brings counts.
    rig.answer(write, was_set());
    rig.lose();
    assert_eq!(rig.results(), []);
    rig.go_live(true);
    assert_eq!(rig.ids(), [write.0]);
}

/// Found by `cargo xtask net --seed 62` and others: requests that are given up one after the other hid a dead connection.
#[test]
fn requests_that_are_given_up_do_not_hide_a_dead_connection() {
    let config = SessionConfig {
        request_timeout_ms: 800,
        ..config()
    };
    let mut rig = Rig::new(config.clone());
    rig.go_live(false);
    for _ in 0..3 {
        rig.set("a");
        rig.pass(800);
        assert!(rig.session.is_suspect());
        rig.pass(10_000);
    }
    assert_eq!((rig.failures().len(), rig.closes), (3, 0));
    let last = rig.set("a");
    rig.pass(599);
    assert_eq!(rig.closes, 0);
    rig.pass(1);
    assert_eq!(rig.closes, 1);
    rig.sent.clear();
    rig.go_live(true);
    assert!(rig.ids().contains(&last.0));
    assert!(!rig.session.is_suspect());

    // A server that is only slow shows signs of life.
    let mut rig = Rig::new(config);
    rig.go_live(false);
    for _ in 0..20 {
        rig.set("a");
        rig.pass(700);
        rig.with(Session::heard);
        rig.pass(100);
    }
    assert_eq!((rig.failures().len(), rig.closes), (20, 0));
}

#[test]
fn silence_of_the_greeting_counts() {
    let mut rig = Rig::new(config());
    rig.pass(2999);
    rig.with(Session::connected);
    rig.pass(2999);
    assert_eq!(rig.closes, 0);
    rig.pass(1);
    assert_eq!(rig.closes, 1);
}

#[test]
fn waits_grow_to_a_cap_and_start_over_after_a_good_connection() {
    let mut rig = Rig::new(config());
    let mut longest_ms = 0;
    for failures in 1..40 {
        rig.lose();
        let &ConnState::Waiting {
            attempt,
            retry_at_ms,
            ..
        } = rig.session.state()
        else {
            panic!("{:?}", rig.session.state())
        };
        assert_eq!(attempt, failures + 1);
        let wait_ms = retry_at_ms - rig.now_ms;
        assert!((25..=2000).contains(&wait_ms), "{wait_ms}");
        longest_ms = longest_ms.max(wait_ms);
        rig.pass(wait_ms - 1);
        assert!(matches!(rig.session.state(), ConnState::Waiting { .. }));
        rig.pass(1);
        assert_eq!(
            rig.session.state(),
            &ConnState::Connecting {
                attempt: failures + 1
            }
        );
    }
    assert!(longest_ms > 1500, "{longest_ms}");
    // Up and down at once is another failure; up for a second is not.
    rig.go_live(false);
    rig.lose();
    assert!(matches!(
        rig.session.state(),
        ConnState::Waiting { attempt: 41, .. }
    ));
    rig.go_live(true);
    rig.pass(1000);
    rig.lose();
    let ConnState::Waiting {
        attempt,
        retry_at_ms,
        reason,
    } = rig.session.state()
    else {
        panic!("{:?}", rig.session.state())
    };
    assert_eq!((*attempt, reason.as_str()), (1, "the connection broke"));
    assert!(retry_at_ms - rig.now_ms <= 50);
}

#[test]
fn two_clients_do_not_wait_alike() {
    let waits = |jitter_seed| {
        let mut rig = Rig::new(SessionConfig {
            jitter_seed,
            ..config()
        });
        let mut waits = Vec::new();
        for _ in 0..10 {
            rig.lose();
            let wait_ms = rig.session.next_wake_ms().expect("a retry") - rig.now_ms;
            waits.push(wait_ms);
            rig.pass(wait_ms);
        }
        waits
    };
    assert_eq!(waits(1), waits(1));
    assert_ne!(waits(1), waits(2));
}

#[test]
fn a_taken_over_session_stays_so_until_it_is_reopened() {
    let mut rig = Rig::new(config());
    rig.go_live(false);
    let sent = rig.set("a");
    rig.with(|session, now_ms| session.disconnected(Some(4000), "taken over", now_ms));
    assert_eq!(rig.session.state(), &ConnState::TakenOver);
    assert_eq!(
        rig.failures(),
        [(sent.0, ErrorCode::Timeout, Outcome::Unknown)]
    );
    assert_eq!(rig.session.next_wake_ms(), None);
    assert_eq!(rig.session.submit(Op::Status, 0), Err(SubmitError::Closed));
    rig.pass(100_000);
    assert_eq!(rig.connects, 1);
    rig.with(Session::reopen);
    assert_eq!(rig.connects, 2);
    rig.go_live(true);
    let next = rig.set("a");
    assert!(next > sent);
    assert_eq!(rig.ids(), [next.0]);
}

#[test]
fn closing_completes_everything_and_reopening_goes_on_with_new_ids() {
    let mut rig = Rig::new(config());
    rig.go_live(false);
    let sent = rig.set("a");
    let read = rig.get("a");
    rig.lose();
    let queued = rig.set("b");
    rig.with(|session, _| session.close());
    assert_eq!(rig.session.state(), &ConnState::Closed);
    assert_eq!(rig.closes, 0, "there was no socket");
    assert_eq!(
        rig.failures(),
        [
            (sent.0, ErrorCode::Timeout, Outcome::Unknown),
            (read.0, ErrorCode::Timeout, Outcome::NotApplied),
            (queued.0, ErrorCode::Unavailable, Outcome::NotApplied),
        ]
    );
    rig.with(|session, _| session.close());
    assert_eq!(rig.session.submit(Op::Status, 0), Err(SubmitError::Closed));
    rig.pass(100_000);
    assert_eq!((rig.connects, rig.session.next_wake_ms()), (1, None));

    rig.with(Session::reopen);
    rig.go_live(true);
    assert_eq!(rig.ids(), Vec::<u64>::new());
    assert!(rig.set("c") > queued);
    rig.with(|session, _| session.close());
    assert_eq!(rig.closes, 1);
}

#[test]
fn reopening_cuts_a_wait_short_and_disturbs_nothing_else() {
    let mut rig = Rig::new(config());
    rig.with(Session::reopen);
    assert_eq!(rig.connects, 1);
    rig.lose();
    rig.with(Session::reopen);
    assert_eq!(rig.connects, 2);
    assert_eq!(rig.session.state(), &ConnState::Connecting { attempt: 2 });
    rig.go_live(false);
    rig.with(Session::reopen);
    assert!(matches!(rig.session.state(), ConnState::Live { .. }));
}

#[test]
fn no_more_than_a_connection_may_have_is_taken() {
    let mut rig = Rig::new(config());
    let some = vec![Op::Status; IN_FLIGHT_REQUESTS_MAX - 1];
    rig.with(|session, now_ms| session.submit_batch(some, now_ms))
        .expect("room");
    // A batch is taken whole or not at all.
    let two = vec![Op::Status; 2];
    assert_eq!(rig.session.submit_batch(two, 0), Err(SubmitError::Full));
    assert_eq!(rig.session.unanswered(), IN_FLIGHT_REQUESTS_MAX - 1);
    let last = rig.get("a");
    assert_eq!(rig.session.submit(Op::Status, 0), Err(SubmitError::Full));
    rig.go_live(false);
    assert_eq!(rig.ids().last(), Some(&last.0));
    rig.answer(last, was_got());
    rig.get("b");
    let hello = Op::Hello {
        session: config().uuid,
    };
    assert_eq!(rig.session.submit(hello, 0), Err(SubmitError::Hello));
}

#[test]
fn frames_stay_within_their_limit() {
    let mut rig = Rig::new(SessionConfig {
        request_timeout_ms: 0,
        ..config()
    });
    let big = |bytes: usize| Op::Set {
        key: "k".to_owned(),
        value: "v".repeat(bytes).into(),
    };
    let ids: Vec<u64> = (0..20).map(|_| rig.submit(big(1 << 20)).0).collect();
    rig.go_live(false);
    assert_eq!(rig.sent.len(), 3);
    assert!(
        rig.sent
            .iter()
            .all(|frame| frame.len() <= CLIENT_FRAME_BYTES_MAX)
    );
    assert_eq!(rig.ids(), ids);

    // One that no frame could hold ends here: it would only break the connection, again and again.
    let too_large = rig.submit(big(CLIENT_FRAME_BYTES_MAX));
    assert_eq!(
        rig.failures(),
        [(too_large.0, ErrorCode::TooLarge, Outcome::NotApplied)]
    );
    assert_eq!(rig.sent, Vec::<String>::new());

    // Exactly as large as a frame may be.
    let fits = {
        let overhead = Request {
            id: RequestId(30),
            op: big(0),
        }
        .to_json()
        .len();
        rig.submit(big(CLIENT_FRAME_BYTES_MAX - overhead - 2))
    };
    assert_eq!(fits.0.to_string().len(), 2);
    assert_eq!(rig.sent.len(), 1);
}

#[test]
fn a_server_that_cannot_order_hello_is_asked_again_and_answers_status_meanwhile() {
    let mut rig = Rig::new(config());
    let write = rig.set("a");
    let early = rig.submit(Op::Status);
    rig.with(Session::connected);
    let first = rig.requests();
    assert!(matches!(first[0].op, Op::Hello { .. }));
    assert_eq!(first[1].id, early);
    let refusal = ApiError::not_applied(ErrorCode::Unavailable, "no node has joined yet");
    rig.answer(first[0].id, Err(refusal.clone()));
    assert_eq!(rig.session.state(), &ConnState::Greeting);
    assert_eq!(rig.session.refusal(), Some(&refusal));
    let status = rig.submit(Op::Status);
    let other = rig.get("a");
    assert_eq!(rig.ids(), [status.0]);

    let wait_ms = rig.session.next_wake_ms().expect("hello again") - rig.now_ms;
    assert!(wait_ms <= 50, "{wait_ms}");
    rig.pass(wait_ms);
    let again = rig.requests();
    assert!(matches!(
        again[..],
        [Request {
            op: Op::Hello { .. },
            ..
        }]
    ));
    assert_ne!(again[0].id, first[0].id);
    rig.answer(again[0].id, Ok(super::welcome(false, None)));
    assert_eq!(rig.session.refusal(), None);
    assert_eq!(rig.ids(), [write.0, other.0]);
    assert_eq!(rig.connects, 1);
}

#[test]
fn a_queued_request_that_ends_says_why_it_was_not_sent() {
    let mut rig = Rig::new(SessionConfig {
        silence_timeout_ms: 0,
        ..config()
    });
    rig.set("a");
    rig.with(Session::connected);
    let hello = rig.requests()[0].id;
    rig.answer(
        hello,
        Err(ApiError::not_applied(
            ErrorCode::Unavailable,
            "no node has joined yet",
        )),
    );
    rig.pass(5000);
    let error = rig.results().remove(0).1.expect_err("given up");
    assert_eq!(
        error.message,
        "not sent within 5000 ms: no node has joined yet"
    );
}

#[test]
fn a_server_that_makes_no_sense_is_left() {
    let frames = [
        "not json".to_owned(),
        "{}".to_owned(),
        // A frame of ours was refused whole.
        Response {
            id: None,
            result: Err(ApiError::not_applied(ErrorCode::TooLarge, "a batch")),
        }
        .to_json(),
    ];
    for frame in frames {
        let mut rig = Rig::new(config());
        rig.go_live(false);
        let write = rig.set("a");
        rig.with(|session, now_ms| session.received(&frame, now_ms));
        assert_eq!(rig.closes, 1, "{frame}");
        assert!(
            matches!(rig.session.state(), ConnState::Waiting { .. }),
            "{frame}"
        );
        rig.go_live(true);
        assert_eq!(rig.ids(), [write.0], "{frame}");
    }
    // A hello that is no good.
    let mut rig = Rig::new(config());
    rig.with(Session::connected);
    let hello = rig.requests()[0].id;
    rig.answer(
        hello,
        Err(ApiError::not_applied(
            ErrorCode::BadRequest,
            "hello comes first",
        )),
    );
    assert_eq!(rig.closes, 1);
    let ConnState::Waiting { reason, .. } = rig.session.state() else {
        panic!("{:?}", rig.session.state())
    };
    assert_eq!(reason, "bad_request: hello comes first");
}

#[test]
fn an_unreadable_answer_ends_its_request() {
    let mut rig = Rig::new(config());
    rig.go_live(false);
    let write = rig.set("a");
    let text = format!(
        r#"{{"id":{},"value":{{"base64":"!"}},"revision":1}}"#,
        write.0
    );
    rig.with(|session, now_ms| session.received(&text, now_ms));
    assert_eq!(
        rig.failures(),
        [(write.0, ErrorCode::Internal, Outcome::Unknown)]
    );
    // Another answer to it, and one to nothing, change nothing.
    rig.answer(write, was_set());
    rig.answer(RequestId(999), was_set());
    assert_eq!(rig.results(), []);
}

#[test]
fn values_come_back_as_they_are() {
    let mut rig = Rig::new(config());
    rig.go_live(false);
    let value = Value::from(vec![0, 0xff, b'"']);
    let write = rig.submit(Op::Set {
        key: "k".to_owned(),
        value: value.clone(),
    });
    assert_eq!(
        rig.requests()[0].op,
        Op::Set {
            key: "k".to_owned(),
            value: value.clone()
        }
    );
    let result = Ok(Reply::Set {
        value,
        revision: Seq(3),
    });
    rig.answer(write, result.clone());
    assert_eq!(rig.results(), [(write.0, result)]);
}
