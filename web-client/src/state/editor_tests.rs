use super::*;
use kvservice_shared::api::ErrorCode;

fn found(text: &str, revision: u64) -> Result<Reply, ApiError> {
    Ok(Reply::Get {
        value: Some(Value::from(text)),
        revision: Seq(revision),
    })
}

fn error(code: ErrorCode, outcome: Outcome) -> Result<Reply, ApiError> {
    Err(ApiError {
        code,
        message: "it went wrong".to_owned(),
        outcome,
    })
}

fn opened(text: &str, revision: u64) -> Editor {
    Editor::open(
        1,
        "color".to_owned(),
        Some((Value::from(text), Seq(revision))),
    )
}

/// Acts, and gives what was sent.
fn act(editor: &mut Editor, action: KeysAction) -> Vec<Op> {
    let mut out = Outbox::default();
    editor.act(action, &mut out);
    out.effects
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Submit { op, .. } => Some(op),
            _ => None,
        })
        .collect()
}

fn typed(editor: &mut Editor, text: &str) {
    assert_eq!(act(editor, KeysAction::Value(text.to_owned())), []);
}

fn lost(editor: &mut Editor, mine: &str, theirs: Option<&str>, revision: u64) {
    let reply = Reply::TestSet {
        swapped: false,
        value: theirs.map(Value::from),
        revision: Seq(revision),
    };
    editor.saved(Value::from(mine), Ok(reply), &mut Outbox::default());
}

fn testset(test: Option<&str>, value: &str) -> Vec<Op> {
    let (test, value) = (test.map(Value::from), Value::from(value));
    vec![Op::TestSet {
        key: "color".to_owned(),
        test,
        value,
    }]
}

#[test]
fn saving_tests_against_what_is_shown() {
    let mut editor = opened("red", 7);
    assert!(!editor.draft.dirty);
    typed(&mut editor, "blue");
    assert!(editor.draft.dirty);
    assert_eq!(
        act(&mut editor, KeysAction::Save),
        testset(Some("red"), "blue")
    );
    assert!(editor.is_busy());
    assert_eq!(act(&mut editor, KeysAction::Save), [], "not twice");

    let reply = Reply::TestSet {
        swapped: true,
        value: Some(Value::from("blue")),
        revision: Seq(8),
    };
    editor.saved(Value::from("blue"), Ok(reply), &mut Outbox::default());
    assert_eq!(
        editor.base,
        Some(Found {
            value: Some(Value::from("blue")),
            revision: Seq(8)
        })
    );
    assert!(!editor.draft.dirty);
    assert_eq!(editor.note.as_ref().unwrap().tone, Tone::Good);
}

#[test]
fn saving_without_the_guard_is_a_plain_set() {
    let mut editor = opened("red", 7);
    typed(&mut editor, "blue");
    act(&mut editor, KeysAction::Guard(false));
    let set = Op::Set {
        key: "color".to_owned(),
        value: Value::from("blue"),
    };
    assert_eq!(act(&mut editor, KeysAction::Save), [set]);
}

#[test]
fn a_new_key_is_written_only_where_there_is_none() {
    let mut editor = Editor::create(1, String::new());
    typed(&mut editor, "red");
    assert_eq!(act(&mut editor, KeysAction::Save), [], "it has no name");
    assert_eq!(editor.note.as_ref().unwrap().text, "A key needs a name.");
    act(&mut editor, KeysAction::Key("color".to_owned()));
    assert_eq!(editor.note, None);
    assert_eq!(act(&mut editor, KeysAction::Save), testset(None, "red"));
}

#[test]
fn an_empty_value_can_be_saved() {
    let mut editor = opened("red", 7);
    typed(&mut editor, "");
    assert!(editor.draft.dirty);
    assert_eq!(act(&mut editor, KeysAction::Save), testset(Some("red"), ""));
}

#[test]
fn a_lost_test_shows_theirs_and_each_way_out_leads_on() {
    let lose = || {
        let mut editor = opened("red", 7);
        typed(&mut editor, "mine");
        act(&mut editor, KeysAction::Save);
        lost(&mut editor, "mine", Some("theirs"), 9);
        let theirs = Found {
            value: Some(Value::from("theirs")),
            revision: Seq(9),
        };
        assert_eq!(editor.stage, Stage::Conflict(theirs));
        assert_eq!(editor.draft.text, "mine", "what was typed is kept");
        editor
    };

    let mut editor = lose();
    act(&mut editor, KeysAction::KeepTheirs);
    assert_eq!(
        (editor.draft.text.as_str(), editor.draft.dirty),
        ("theirs", false)
    );

    let mut editor = lose();
    assert_eq!(
        act(&mut editor, KeysAction::Overwrite),
        testset(Some("theirs"), "mine")
    );
    // And should they be faster once more, the reader is asked once more.
    lost(&mut editor, "mine", Some("again"), 12);
    assert!(matches!(editor.stage, Stage::Conflict(_)));

    let mut editor = lose();
    act(&mut editor, KeysAction::EditOn);
    assert_eq!(
        (editor.draft.text.as_str(), &editor.stage),
        ("mine", &Stage::Editing)
    );
    typed(&mut editor, "both");
    assert_eq!(
        act(&mut editor, KeysAction::Save),
        testset(Some("theirs"), "both")
    );
}

#[test]
fn a_key_deleted_meanwhile_is_a_conflict_too() {
    let mut editor = opened("red", 7);
    typed(&mut editor, "mine");
    act(&mut editor, KeysAction::Save);
    lost(&mut editor, "mine", None, 0);
    assert_eq!(
        act(&mut editor, KeysAction::Overwrite),
        testset(None, "mine")
    );
}

#[test]
fn the_same_value_from_two_sides_is_no_conflict() {
    let mut editor = opened("red", 7);
    typed(&mut editor, "blue");
    act(&mut editor, KeysAction::Save);
    lost(&mut editor, "blue", Some("blue"), 9);
    assert_eq!(editor.stage, Stage::Editing);
    assert_eq!(editor.base.as_ref().unwrap().revision, Seq(9));
}

#[test]
fn what_others_write_shows_unless_there_is_a_draft_to_lose() {
    let mut editor = opened("red", 7);
    editor.looked(found("blue", 8));
    assert_eq!(editor.draft.text, "blue");
    typed(&mut editor, "mine");
    editor.looked(found("green", 9));
    assert_eq!(editor.draft.text, "mine");
    assert_eq!(editor.elsewhere.as_ref().unwrap().revision, Seq(9));
    // Saving still tests against what the reader has seen.
    let mut saved = editor.clone();
    assert_eq!(
        act(&mut saved, KeysAction::Save),
        testset(Some("blue"), "mine")
    );
    act(&mut editor, KeysAction::Reload);
    assert_eq!(
        (editor.draft.text.as_str(), editor.draft.dirty),
        ("green", false)
    );
}

#[test]
fn a_delete_is_asked_once() {
    let mut editor = opened("red", 7);
    assert_eq!(
        act(&mut editor, KeysAction::ConfirmDelete),
        [],
        "nobody was asked"
    );
    assert_eq!(act(&mut editor, KeysAction::Delete), []);
    assert_eq!(editor.stage, Stage::Confirming);
    act(&mut editor, KeysAction::CancelDelete);
    assert_eq!(editor.stage, Stage::Editing);
    act(&mut editor, KeysAction::Delete);
    let delete = Op::Delete {
        key: "color".to_owned(),
    };
    assert_eq!(act(&mut editor, KeysAction::ConfirmDelete), [delete]);
    let done = Ok(Reply::Delete {
        deleted: true,
        revision: Seq(8),
    });
    assert_eq!(editor.deleted(done, &mut Outbox::default()), Step::Close);
}

#[test]
fn a_failed_write_keeps_the_draft_and_says_what_is_known() {
    let mut editor = opened("red", 7);
    typed(&mut editor, "blue");
    act(&mut editor, KeysAction::Save);
    let refused = error(ErrorCode::Unavailable, Outcome::NotApplied);
    editor.saved(Value::from("blue"), refused, &mut Outbox::default());
    let note = editor.note.clone().unwrap();
    assert_eq!(
        (note.text.as_str(), note.look),
        ("It went wrong. Nothing was changed.", false)
    );
    assert_eq!(
        (editor.draft.text.as_str(), editor.draft.dirty),
        ("blue", true)
    );
}

#[test]
fn after_an_unknown_outcome_one_can_look() {
    let unknown = || {
        let mut editor = opened("red", 7);
        typed(&mut editor, "blue");
        act(&mut editor, KeysAction::Save);
        let error = error(ErrorCode::Timeout, Outcome::Unknown);
        editor.saved(Value::from("blue"), error, &mut Outbox::default());
        assert!(editor.note.as_ref().unwrap().look);
        let get = Op::Get {
            key: "color".to_owned(),
        };
        assert_eq!(act(&mut editor, KeysAction::Look), [get]);
        editor
    };
    let mut editor = unknown();
    editor.looked(found("blue", 8));
    assert_eq!(
        editor.note.as_ref().unwrap().text,
        "It is stored, revision 8."
    );
    assert!(!editor.draft.dirty);

    let mut editor = unknown();
    editor.looked(found("red", 7));
    assert_eq!(editor.note.as_ref().unwrap().tone, Tone::Bad);
    assert_eq!(editor.draft.text, "blue", "to be saved again");

    let mut editor = unknown();
    editor.looked(found("green", 9));
    assert!(editor.elsewhere.is_some());
    assert_eq!(editor.draft.text, "blue");
}

#[test]
fn a_long_value_is_shown_in_part_until_asked_for() {
    let long = "é".repeat(SHOWN_BYTES_MAX);
    let mut editor = opened(&long, 7);
    assert!(editor.draft.cut);
    assert_eq!(editor.draft.text.len(), SHOWN_BYTES_MAX);
    typed(&mut editor, "lost");
    assert_ne!(editor.draft.text, "lost", "a part cannot be edited");
    assert_eq!(
        act(&mut editor, KeysAction::Save),
        [],
        "nor saved in place of the whole"
    );
    act(&mut editor, KeysAction::Whole);
    assert_eq!(
        (editor.draft.text.as_str(), editor.draft.cut),
        (long.as_str(), false)
    );
}

#[test]
fn bytes_that_are_no_text_are_edited_as_base64() {
    let bytes = Value::from(vec![0xff, 0x00, 0x41]);
    let mut editor = Editor::open(1, "blob".to_owned(), Some((bytes.clone(), Seq(3))));
    assert!(editor.draft.base64);
    assert_eq!(editor.draft.text, "/wBB");
    act(&mut editor, KeysAction::Base64(false));
    assert!(editor.draft.base64, "there is no other way to type them");
    typed(&mut editor, "/wB");
    assert_eq!(act(&mut editor, KeysAction::Save), []);
    assert!(
        editor
            .note
            .as_ref()
            .unwrap()
            .text
            .starts_with("This is not base64")
    );
    typed(&mut editor, "/w\nBC");
    let (test, value) = (Some(bytes), Value::from(vec![0xff, 0x00, 0x42]));
    let op = Op::TestSet {
        key: "blob".to_owned(),
        test,
        value,
    };
    assert_eq!(act(&mut editor, KeysAction::Save), [op]);
}

#[test]
fn text_that_a_text_box_would_change_is_edited_as_base64() {
    assert!(
        opened("a\r\nb", 1).draft.base64,
        "a text box would drop the carriage return"
    );
    assert!(opened("a\0b", 1).draft.base64);
    assert!(!opened("a\n\tb", 1).draft.base64);
}

#[test]
fn notations_turn_into_each_other() {
    let mut editor = opened("red", 7);
    act(&mut editor, KeysAction::Base64(true));
    assert_eq!(editor.draft.text, "cmVk");
    act(&mut editor, KeysAction::Base64(false));
    assert_eq!(editor.draft.text, "red");
}

#[test]
fn limits_are_said_before_anything_is_sent() {
    let mut editor = opened("red", 7);
    typed(&mut editor, &"x".repeat(limits::VALUE_BYTES_MAX + 1));
    assert_eq!(act(&mut editor, KeysAction::Save), []);
    assert!(editor.note.as_ref().unwrap().text.contains("at most"));
    let mut editor = Editor::create(1, "k".repeat(limits::KEY_BYTES_MAX + 1));
    typed(&mut editor, "x");
    assert_eq!(act(&mut editor, KeysAction::Save), []);
    assert!(editor.note.as_ref().unwrap().text.contains("1,025"));
}
