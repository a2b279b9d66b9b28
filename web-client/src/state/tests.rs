use super::fixture::{chain, failed};
use super::*;
use kvservice_shared::api::{ErrorCode, Outcome, Status};

/// A state, and the requests that it has sent.
#[derive(Default)]
struct Page {
    state: State,
    sent: Vec<(Ticket, Op)>,
    now_ms: u64,
}

impl Page {
    fn live() -> Page {
        let mut page = Page {
            now_ms: 1_000,
            ..Page::default()
        };
        page.apply(Event::Link(Link::Live));
        page
    }

    fn apply(&mut self, event: Event) {
        for effect in self.state.apply(event, self.now_ms) {
            if let Effect::Submit { ticket, op } = effect {
                self.sent.push((ticket, op));
            }
        }
    }

    /// Lets this much time pass, waking the state as it wishes. Gives how often it did.
    fn pass(&mut self, ms: u64) -> usize {
        let end = self.now_ms + ms;
        let mut wakes = 0;
        while let Some(wake) = self
            .state
            .next_wake_ms(self.now_ms)
            .filter(|&wake| wake <= end)
        {
            self.now_ms = self.now_ms.max(wake);
            self.apply(Event::Wake);
            wakes += 1;
            assert!(wakes < 10_000, "it wakes without end");
        }
        self.now_ms = end;
        wakes
    }

    fn take(&mut self, wanted: fn(&Op) -> bool) -> Vec<Ticket> {
        let (taken, rest) = std::mem::take(&mut self.sent)
            .into_iter()
            .partition(|s| wanted(&s.1));
        self.sent = rest;
        let taken: Vec<(Ticket, Op)> = taken;
        taken.into_iter().map(|(ticket, _)| ticket).collect()
    }

    fn polls(&mut self) -> Vec<Ticket> {
        self.take(|op| *op == Op::Status)
    }

    fn lists(&mut self) -> Vec<Ticket> {
        self.take(|op| matches!(op, Op::List { .. }))
    }

    fn answer(&mut self, ticket: Ticket, status: Status) {
        self.apply(Event::Answered {
            ticket,
            result: Ok(Reply::Status(Box::new(status))),
        });
    }

    /// Answers every page of keys that is asked for: there are none. Gives how many were.
    fn no_keys(&mut self) -> usize {
        let lists = self.lists();
        for &ticket in &lists {
            let result = Ok(Reply::List {
                entries: vec![],
                more: false,
            });
            self.apply(Event::Answered { ticket, result });
        }
        lists.len()
    }

    /// Answers the one poll that is out.
    fn status(&mut self, status: Status) {
        let polls = self.polls();
        assert_eq!(polls.len(), 1);
        self.answer(polls[0], status);
    }
}

#[test]
fn the_status_is_asked_at_once_then_every_half_second_one_at_a_time() {
    let mut page = Page::live();
    page.now_ms += 2;
    page.status(chain(1, &["n1", "n2"], 5));
    assert_eq!(page.state.connection.words(page.now_ms), "live · 2 ms");
    assert_eq!(page.state.picture.slots.len(), 2);
    assert_eq!(page.polls(), []);
    page.pass(POLL_MS);
    let polls = page.polls();
    assert_eq!(polls.len(), 1);
    page.pass(20_000);
    assert_eq!(page.polls(), [], "the last one has no answer yet");
    assert_eq!(page.state.connection.keyword(page.now_ms), "silent");
    page.answer(polls[0], chain(1, &["n1", "n2"], 5));
    assert_eq!(page.state.connection.keyword(page.now_ms), "live");
}

#[test]
fn a_change_of_the_chain_is_watched_closely_for_a_while() {
    let mut page = Page::live();
    page.status(chain(1, &["n1", "n2"], 5));
    page.pass(POLL_MS);
    page.status(chain(2, &["n1"], 5));
    let mut polls = 0;
    for _ in 0..LIVELY_MS / 100 {
        page.pass(100);
        for ticket in page.polls() {
            polls += 1;
            page.answer(ticket, chain(2, &["n1"], 5));
        }
    }
    assert!(polls > 30, "{polls} in {LIVELY_MS} ms");
    page.pass(POLL_MS);
    page.status(chain(2, &["n1"], 5));
    page.pass(POLL_MS - 1);
    assert_eq!(page.polls(), [], "calm again");
}

#[test]
fn a_hidden_page_asks_seldom_and_a_shown_one_at_once() {
    let mut page = Page::live();
    page.apply(Event::Visible(false));
    page.status(chain(1, &["n1"], 5));
    page.pass(POLL_HIDDEN_MS - 1);
    assert_eq!(page.polls(), []);
    page.apply(Event::Visible(true));
    assert_eq!(page.polls().len(), 1);
}

#[test]
fn without_a_connection_nothing_is_asked_and_the_picture_ages() {
    let mut page = Page::live();
    page.status(chain(1, &["n1"], 5));
    page.no_keys();
    assert_eq!(page.state.picture_age_ms(page.now_ms), None);
    page.apply(Event::Link(Link::Waiting {
        attempt: 1,
        retry_at_ms: 9_000,
        reason: "x".into(),
    }));
    assert_eq!(page.state.announcement, "Connection lost, reconnecting.");
    let wakes = page.pass(10_000);
    assert!(
        (9..=11).contains(&wakes),
        "once a second, for the age: {wakes}"
    );
    assert_eq!(page.sent, []);
    assert_eq!(page.state.picture_age_ms(page.now_ms), Some(10_000));
    assert!(
        page.state.picture.status.is_some(),
        "the last known picture stays"
    );
    page.apply(Event::Link(Link::Live));
    assert_eq!(page.state.announcement, "Connected again.");
    assert_eq!((page.polls().len(), page.lists().len()), (1, 1));
}

#[test]
fn a_poll_that_the_connection_lost_is_asked_again() {
    let mut page = Page::live();
    let polls = page.polls();
    page.apply(Event::Link(Link::Closed));
    let error = ApiError {
        code: ErrorCode::Timeout,
        message: "closed".into(),
        outcome: Outcome::Unknown,
    };
    page.apply(Event::Answered {
        ticket: polls[0],
        result: Err(error),
    });
    page.apply(Event::Link(Link::Live));
    assert_eq!(page.polls().len(), 1);
}

#[test]
fn what_others_write_brings_the_list_up_to_date() {
    let mut page = Page::live();
    page.status(chain(1, &["n1"], 5));
    assert_eq!(page.no_keys(), 1);
    // What the first status said of the past may have come after that page.
    page.pass(keys::REFRESH_MS);
    assert_eq!(page.no_keys(), 1);
    for _ in 0..10 {
        page.status(chain(1, &["n1"], 5));
        page.pass(POLL_MS);
        assert_eq!(page.no_keys(), 0, "nothing was written");
    }
    page.status(chain(1, &["n1"], 6));
    page.pass(keys::REFRESH_MS);
    assert_eq!(page.no_keys(), 1);
}

#[test]
fn news_of_the_chain_are_announced() {
    let mut page = Page::live();
    page.status(chain(1, &["n1", "n2", "n3"], 5));
    page.pass(POLL_MS);
    let mut status = chain(2, &["n1", "n3"], 5);
    status.events = vec![failed(7, "n2")];
    page.status(status);
    assert_eq!(page.state.announcement, "n2 failed · n1 → n3 · 38 ms");
    assert_eq!(
        page.state.picture.slots.len(),
        3,
        "it still shows where it stood"
    );
    page.pass(1_000);
    assert_eq!(page.state.picture.slots.len(), 2);
}

#[test]
fn an_unknown_or_doubled_answer_changes_nothing() {
    let mut page = Page::live();
    let polls = page.polls();
    page.answer(polls[0], chain(1, &["n1"], 5));
    page.answer(polls[0], chain(9, &["n9"], 5));
    page.answer(Ticket(777), chain(9, &["n9"], 5));
    assert_eq!(page.state.picture.status.as_ref().unwrap().epoch, 1);
}

#[test]
fn closing_and_reconnecting_are_the_connections_business() {
    let mut state = State::default();
    assert_eq!(state.apply(Event::Close, 0), [Effect::Close]);
    assert_eq!(state.apply(Event::Reconnect, 0), [Effect::Reopen]);
    state.apply(Event::Show(Pane::Prompt), 0);
    assert_eq!(state.pane, Pane::Prompt);
}
