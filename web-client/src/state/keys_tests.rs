use super::*;
use crate::state::Purpose;
use kvservice_shared::api::{ErrorCode, Outcome};
use kvservice_shared::ids::Seq;

/// A keys pane with the outbox and the clock that it needs.
#[derive(Default)]
struct Pane {
    keys: Keys,
    out: Outbox,
    now_ms: u64,
}

impl Pane {
    fn act(&mut self, action: KeysAction) {
        self.keys.act(action, self.now_ms, &mut self.out);
    }

    /// Fetches if that is due, as the state does; gives what was asked for.
    fn fetch(&mut self) -> Vec<(Purpose, Op)> {
        if self
            .keys
            .next_wake_ms()
            .is_some_and(|due| due <= self.now_ms)
        {
            self.keys.fetch(self.now_ms, &mut self.out);
        }
        self.sent()
    }

    fn sent(&mut self) -> Vec<(Purpose, Op)> {
        std::mem::take(&mut self.out.effects)
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Submit { ticket, op } => Some((self.out.pending.remove(&ticket)?, op)),
                _ => None,
            })
            .collect()
    }

    fn answer(&mut self, keys: &[&str], more: bool) {
        let entries = keys
            .iter()
            .map(|key| ListEntry {
                key: (*key).to_owned(),
                value: Value::from("v"),
                revision: Seq(1),
            })
            .collect();
        let reply = Ok(Reply::List { entries, more });
        self.keys
            .answered(KeysPurpose::Page, reply, self.now_ms, &mut self.out);
    }

    fn shown(&self) -> Vec<&str> {
        self.keys
            .page
            .iter()
            .flat_map(|p| p.entries.iter().map(|e| e.key.as_str()))
            .collect()
    }
}

fn list(prefix: &str, after: &str) -> (Purpose, Op) {
    let op = Op::List {
        prefix: prefix.into(),
        after: after.into(),
        limit: PAGE_ENTRIES,
    };
    (Purpose::Keys(KeysPurpose::Page), op)
}

/// A pane that shows these keys.
fn showing(keys: &[&str], more: bool) -> Pane {
    let mut pane = Pane {
        now_ms: 1_000,
        ..Pane::default()
    };
    pane.keys.refresh(pane.now_ms);
    assert_eq!(pane.fetch(), [list("", "")]);
    pane.answer(keys, more);
    pane
}

#[test]
fn typing_asks_for_one_page_at_a_time_and_shows_the_last() {
    let mut pane = showing(&["a", "b"], false);
    pane.act(KeysAction::Prefix("u".into()));
    assert_eq!(pane.fetch(), [list("u", "")]);
    pane.act(KeysAction::Prefix("us".into()));
    pane.act(KeysAction::Prefix("use".into()));
    assert_eq!(pane.fetch(), [], "one is on its way");
    pane.answer(&["uncle", "user"], false);
    assert_eq!(
        pane.shown(),
        ["a", "b"],
        "nobody waits for that page any more"
    );
    assert_eq!(pane.fetch(), [list("use", "")]);
    pane.answer(&["user"], false);
    assert_eq!(pane.shown(), ["user"]);
    assert_eq!(pane.fetch(), []);
}

#[test]
fn paging_goes_there_and_back() {
    let mut pane = showing(&["a", "b"], true);
    pane.act(KeysAction::Next);
    assert_eq!(pane.fetch(), [list("", "b")]);
    pane.answer(&["c", "d"], true);
    assert_eq!(pane.keys.page.as_ref().unwrap().number, 2);
    pane.act(KeysAction::Next);
    pane.fetch();
    pane.answer(&["e"], false);
    assert_eq!(pane.keys.page.as_ref().unwrap().number, 3);
    pane.act(KeysAction::Previous);
    assert_eq!(pane.fetch(), [list("", "b")]);
    pane.answer(&["c", "d"], true);
    pane.act(KeysAction::Previous);
    assert_eq!(pane.fetch(), [list("", "")]);
    assert!(!pane.keys.has_previous());
    // A new prefix begins at its first page.
    pane.answer(&["a", "b"], true);
    pane.act(KeysAction::Next);
    pane.act(KeysAction::Prefix("x".into()));
    assert_eq!(pane.fetch(), [list("x", "")]);
}

#[test]
fn a_last_page_that_went_empty_gives_way_to_the_one_before() {
    let mut pane = showing(&["a", "b"], true);
    pane.act(KeysAction::Next);
    pane.fetch();
    pane.answer(&["c"], false);
    pane.keys.refresh(pane.now_ms);
    assert_eq!(pane.fetch(), [list("", "b")]);
    pane.answer(&[], false);
    assert_eq!(pane.fetch(), [list("", "")]);
}

#[test]
fn what_is_written_shows_soon_but_not_more_than_once_a_second() {
    let mut pane = showing(&["a"], false);
    pane.keys.written(pane.now_ms);
    assert_eq!(pane.keys.next_wake_ms(), Some(1_000 + REFRESH_MS));
    pane.now_ms = 1_000 + REFRESH_MS;
    assert_eq!(pane.fetch(), [list("", "")]);
    // A slow answer makes for a longer pause: ten times as long as it took.
    pane.now_ms += 400;
    pane.answer(&["a"], false);
    pane.keys.written(pane.now_ms);
    assert_eq!(pane.keys.next_wake_ms(), Some(pane.now_ms + 4_000));
}

#[test]
fn an_unchanged_page_is_not_drawn_again() {
    let mut pane = showing(&["a"], false);
    let before = pane.keys.page.as_ref().unwrap().entries.clone();
    pane.keys.refresh(pane.now_ms);
    pane.fetch();
    pane.answer(&["a"], false);
    assert!(Rc::ptr_eq(
        &before,
        &pane.keys.page.as_ref().unwrap().entries
    ));
}

#[test]
fn a_failed_reading_is_said_and_tried_again() {
    let mut pane = showing(&["a"], false);
    pane.keys.refresh(pane.now_ms);
    pane.fetch();
    let error = ApiError {
        code: ErrorCode::Unavailable,
        message: "no node".into(),
        outcome: Outcome::NotApplied,
    };
    pane.keys.answered(
        KeysPurpose::Page,
        Err(error.clone()),
        pane.now_ms,
        &mut pane.out,
    );
    assert_eq!(pane.keys.error, Some(error));
    assert_eq!(pane.shown(), ["a"], "what was known stays");
    pane.now_ms = pane.keys.next_wake_ms().unwrap();
    assert_eq!(pane.fetch(), [list("", "")]);
    pane.answer(&["a"], false);
    assert_eq!(pane.keys.error, None);
}

#[test]
fn emptiness_has_two_reasons() {
    let mut pane = showing(&[], false);
    assert_eq!(pane.keys.emptiness(), Emptiness::NoKeys);
    pane.act(KeysAction::Prefix("x".into()));
    assert_eq!(pane.keys.emptiness(), Emptiness::Not, "it is not known yet");
    pane.fetch();
    pane.answer(&[], false);
    assert_eq!(pane.keys.emptiness(), Emptiness::NoHits);
}

#[test]
fn opening_a_key_shows_what_the_list_knows_and_looks_at_once() {
    let mut pane = showing(&["a"], false);
    pane.act(KeysAction::Open("a".into()));
    let editor = pane.keys.editor.as_ref().unwrap();
    assert_eq!((editor.draft.text.as_str(), editor.number), ("v", 1));
    let look = (
        Purpose::Keys(KeysPurpose::Look(1)),
        Op::Get { key: "a".into() },
    );
    assert_eq!(pane.sent(), std::slice::from_ref(&look));
    // With every page that is read, the open key is looked at too.
    pane.keys.refresh(pane.now_ms);
    assert_eq!(pane.fetch(), [list("", ""), look]);
}

#[test]
fn an_answer_for_an_editor_that_was_closed_changes_nothing() {
    let mut pane = showing(&["a", "b"], false);
    pane.act(KeysAction::Open("a".into()));
    pane.act(KeysAction::Open("b".into()));
    let late = Ok(Reply::Get {
        value: Some(Value::from("of a")),
        revision: Seq(9),
    });
    pane.keys
        .answered(KeysPurpose::Look(1), late, pane.now_ms, &mut pane.out);
    assert_eq!(pane.keys.draft().unwrap().text, "v");
    let late = Ok(Reply::Delete {
        deleted: true,
        revision: Seq(9),
    });
    pane.keys
        .answered(KeysPurpose::Delete(1), late, pane.now_ms, &mut pane.out);
    assert!(pane.keys.editor.is_some());
}

#[test]
fn a_delete_closes_the_editor_and_reads_the_page() {
    let mut pane = showing(&["a"], false);
    pane.act(KeysAction::Open("a".into()));
    pane.act(KeysAction::Delete);
    pane.act(KeysAction::ConfirmDelete);
    pane.sent();
    let done = Ok(Reply::Delete {
        deleted: true,
        revision: Seq(9),
    });
    pane.keys
        .answered(KeysPurpose::Delete(1), done, pane.now_ms, &mut pane.out);
    assert_eq!(pane.keys.editor, None);
    assert_eq!(pane.fetch(), [list("", "")]);
}

#[test]
fn a_new_key_begins_with_the_prefix() {
    let mut pane = showing(&["user:1"], false);
    pane.act(KeysAction::Prefix("user:".into()));
    pane.act(KeysAction::New);
    assert_eq!(pane.keys.editor.as_ref().unwrap().key, "user:");
    assert_eq!(pane.sent(), [], "there is nothing to look at");
}
