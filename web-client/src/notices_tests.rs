use super::*;
use crate::state::fixture::chain;
use crate::state::{Effect, Event, Ticket};
use kvservice_shared::api::{Op, Reply, StorageKind};

fn showing(status: Status) -> State {
    let mut state = State::default();
    let effects = state.apply(Event::Link(Link::Live), 1_000);
    let poll: Vec<Ticket> = effects
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Submit {
                ticket,
                op: Op::Status,
            } => Some(ticket),
            _ => None,
        })
        .collect();
    let result = Ok(Reply::Status(Box::new(status)));
    state.apply(
        Event::Answered {
            ticket: poll[0],
            result,
        },
        1_000,
    );
    state
}

fn names(state: &State) -> Vec<&'static str> {
    notices(state, 1_000)
        .iter()
        .map(|notice| notice.name)
        .collect()
}

#[test]
fn a_healthy_chain_on_disk_needs_no_notice() {
    assert_eq!(names(&showing(chain(1, &["n1", "n2"], 5))), [] as [&str; 0]);
}

#[test]
fn the_first_paint_accuses_nobody() {
    assert_eq!(names(&State::default()), [] as [&str; 0]);
}

#[test]
fn an_unfounded_cluster_says_how_to_begin() {
    let mut status = chain(0, &[], 0);
    status.cluster = None;
    status.waiting = Some("no node has joined yet".to_owned());
    let notices = notices(&showing(status), 1_000);
    assert_eq!(notices.len(), 1);
    assert_eq!(notices[0].title, "Waiting for the first node.");
    assert!(
        notices[0]
            .command
            .as_ref()
            .unwrap()
            .starts_with("kvservice-backend")
    );
}

#[test]
fn a_cluster_that_waits_says_for_whom_and_the_way_out() {
    let mut status = chain(4, &["n2"], 0);
    status.waiting = Some("awaits n2 (127.0.0.1:7412)".to_owned());
    status.members[0].storage = StorageKind::Memory;
    let notices = notices(&showing(status), 1_000);
    assert_eq!(
        (notices[0].name, notices[0].urgency),
        ("waiting", Urgency::Act)
    );
    assert!(notices[0].text.contains("n2 (127.0.0.1:7412)"));
    assert!(notices[0].command.as_ref().unwrap().contains("recover"));
}

#[test]
fn a_lone_node_and_memory_are_said_plainly_and_once() {
    let mut status = chain(1, &["n1"], 5);
    assert_eq!(names(&showing(status.clone())), ["lone"]);
    status.members[0].storage = StorageKind::Memory;
    let state = showing(status.clone());
    assert_eq!(names(&state), ["lone"]);
    assert!(notices(&state, 1_000)[0].text.contains("in memory"));
    // A single server is alone on purpose.
    status.mode = Mode::Single;
    assert_eq!(names(&showing(status)), ["memory"]);
}

#[test]
fn the_urgent_stands_first() {
    let mut status = chain(1, &["n1", "n2"], 5);
    status.members[0].storage = StorageKind::Memory;
    status.members[1].hash = "other".to_owned();
    let mut state = showing(status);
    state.connection.link = Link::Waiting {
        attempt: 2,
        retry_at_ms: 4_500,
        reason: "the connection broke".into(),
    };
    assert_eq!(names(&state), ["divergence", "connection", "memory"]);
    let lost = &notices(&state, 1_000)[1];
    assert_eq!(lost.title, "Connection lost.");
    assert_eq!(
        lost.text,
        "The connection broke. The next attempt is in 3 s."
    );
}
