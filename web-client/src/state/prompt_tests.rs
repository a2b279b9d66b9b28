use super::*;
use kvservice_shared::api::{ErrorCode, Outcome, Value};
use kvservice_shared::ids::Seq;

fn enter(prompt: &mut Prompt, line: &str, link: &Link) -> Vec<Effect> {
    let mut out = Outbox::default();
    prompt.act(PromptAction::Input(line.to_owned()), link, &mut out);
    prompt.act(PromptAction::Enter, link, &mut out);
    out.effects
}

fn last(prompt: &Prompt) -> (&str, &Output) {
    let entry = prompt.entries.back().unwrap();
    (&entry.line, &entry.output)
}

fn press(prompt: &mut Prompt, actions: &[PromptAction]) -> String {
    for action in actions {
        prompt.act(action.clone(), &Link::Live, &mut Outbox::default());
    }
    prompt.input.clone()
}

#[test]
fn a_line_is_sent_and_its_answer_printed_in_the_words_of_the_grammar() {
    let mut prompt = Prompt::default();
    let effects = enter(&mut prompt, " get( color )", &Link::Live);
    assert!(
        matches!(&effects[..], [Effect::Submit { op: Op::Get { key }, .. }] if key == "color"),
        "{effects:?}"
    );
    assert_eq!(last(&prompt), (" get( color )", &Output::Pending));
    assert_eq!(prompt.input, "");
    let reply = Reply::Get {
        value: Some(Value::from("red")),
        revision: Seq(1),
    };
    prompt.answered(1, Ok(reply), &mut Outbox::default());
    assert_eq!(
        last(&prompt).1,
        &Output::Printed("get(color) -> red".to_owned())
    );
}

#[test]
fn answers_find_their_lines_in_any_order() {
    let mut prompt = Prompt::default();
    enter(&mut prompt, "get(a)", &Link::Live);
    enter(&mut prompt, "get(b)", &Link::Live);
    let error = ApiError {
        code: ErrorCode::Unavailable,
        message: "no node".to_owned(),
        outcome: Outcome::NotApplied,
    };
    prompt.answered(2, Err(error), &mut Outbox::default());
    assert_eq!(prompt.entries[0].output, Output::Pending);
    assert!(matches!(&prompt.entries[1].output, Output::Failed(text) if text.contains("no node")));
    prompt.answered(
        9,
        Ok(Reply::Get {
            value: None,
            revision: Seq(0),
        }),
        &mut Outbox::default(),
    );
}

#[test]
fn a_line_that_does_not_parse_points_at_the_fault_and_sends_nothing() {
    let mut prompt = Prompt::default();
    assert_eq!(enter(&mut prompt, "set(a b,c)", &Link::Live), []);
    assert!(
        matches!(last(&prompt).1, Output::Unparsed { at: 6, .. }),
        "{:?}",
        last(&prompt)
    );
}

#[test]
fn help_needs_no_server_and_exit_closes() {
    let mut prompt = Prompt::default();
    assert_eq!(enter(&mut prompt, "help", &Link::Live), []);
    assert!(matches!(last(&prompt).1, Output::Printed(text) if text.contains("testset(")));
    assert_eq!(enter(&mut prompt, "exit", &Link::Live), [Effect::Close]);
    assert_eq!(
        enter(&mut prompt, "get(a)", &Link::Closed),
        [],
        "there is nobody to ask"
    );
    assert!(matches!(last(&prompt).1, Output::Failed(_)));
    let before = prompt.entries.len();
    assert_eq!(enter(&mut prompt, "  ", &Link::Live), []);
    assert_eq!(prompt.entries.len(), before);
}

#[test]
fn the_history_leafs_back_and_forth_and_keeps_the_line_being_typed() {
    let mut prompt = Prompt::default();
    for line in ["get(a)", "get(b)", "get(b)", "oops("] {
        enter(&mut prompt, line, &Link::Live);
    }
    press(&mut prompt, &[PromptAction::Input("get(new".into())]);
    assert_eq!(
        press(&mut prompt, &[PromptAction::Older]),
        "oops(",
        "to be mended"
    );
    assert_eq!(press(&mut prompt, &[PromptAction::Older]), "get(b)");
    assert_eq!(
        press(&mut prompt, &[PromptAction::Older]),
        "get(a)",
        "no line twice in a row"
    );
    assert_eq!(press(&mut prompt, &[PromptAction::Older]), "get(a)");
    assert_eq!(
        press(&mut prompt, &[PromptAction::Newer, PromptAction::Newer]),
        "oops("
    );
    assert_eq!(press(&mut prompt, &[PromptAction::Newer]), "get(new");
    assert_eq!(press(&mut prompt, &[PromptAction::Newer]), "get(new");
}

#[test]
fn a_list_follows_its_pages_up_to_a_bound() {
    let mut prompt = Prompt::default();
    let effects = enter(&mut prompt, "list(k)", &Link::Live);
    assert!(matches!(
        &effects[..],
        [Effect::Submit {
            op: Op::List {
                limit: LIST_PAGE,
                ..
            },
            ..
        }]
    ));
    let page = |from: u32| {
        let entry = |i: u32| ListEntry {
            key: format!("k{i:04}"),
            value: Value::from("v"),
            revision: Seq(1),
        };
        Ok(Reply::List {
            entries: (from..from + LIST_PAGE).map(entry).collect(),
            more: true,
        })
    };
    let mut out = Outbox::default();
    prompt.answered(1, page(0), &mut out);
    let [
        Effect::Submit {
            op: Op::List { prefix, after, .. },
            ..
        },
    ] = &out.effects[..]
    else {
        panic!("the next page is asked for: {:?}", out.effects);
    };
    assert_eq!((prefix.as_str(), after.as_str()), ("k", "k0499"));
    assert_eq!(last(&prompt).1, &Output::Pending);

    let mut out = Outbox::default();
    prompt.answered(1, page(500), &mut out);
    assert_eq!(out.effects, [], "that is enough");
    let Output::Printed(text) = last(&prompt).1 else {
        panic!("{:?}", last(&prompt))
    };
    assert!(text.starts_with("k0000 -> v\n"));
    assert!(
        text.ends_with("choose a longer prefix"),
        "{}",
        &text[text.len() - 60..]
    );
}

#[test]
fn a_long_answer_is_cut_between_characters() {
    let mut prompt = Prompt::default();
    enter(&mut prompt, "get(a)", &Link::Live);
    let value = Some(Value::from("é".repeat(OUTPUT_BYTES_MAX)));
    prompt.answered(
        1,
        Ok(Reply::Get {
            value,
            revision: Seq(1),
        }),
        &mut Outbox::default(),
    );
    let Output::Printed(text) = last(&prompt).1 else {
        panic!("{:?}", last(&prompt))
    };
    assert!(text.len() < OUTPUT_BYTES_MAX + 100);
    assert!(
        text.contains("… cut here: 32.8 kB in all"),
        "{}",
        &text[text.len() - 60..]
    );
}

#[test]
fn the_pane_and_the_history_are_bounded() {
    let mut prompt = Prompt::default();
    for i in 0..ENTRIES_MAX + HISTORY_MAX {
        enter(&mut prompt, &format!("get(k{i})"), &Link::Live);
    }
    assert_eq!(prompt.entries.len(), ENTRIES_MAX);
    assert_eq!(prompt.history.len(), HISTORY_MAX);
    press(&mut prompt, &[PromptAction::Clear]);
    assert_eq!(
        prompt.entries.len(),
        ENTRIES_MAX,
        "their answers are still to come"
    );
}

#[test]
fn hints_follow_the_typing() {
    let names = |input: &str| hints(input).iter().map(|h| h.name).collect::<Vec<_>>();
    assert_eq!(names("").len(), command::COMMANDS.len());
    assert_eq!(names("s"), ["set", "status"]);
    assert_eq!(names(" set("), ["set"]);
    assert_eq!(names("testset(a,"), ["testset"]);
    assert_eq!(names("x"), [] as [&str; 0]);
    let mut prompt = Prompt::default();
    let testset = hints("tests")[0];
    assert_eq!(
        press(&mut prompt, &[PromptAction::Start(testset)]),
        "testset("
    );
}

#[test]
fn a_fault_is_shown_only_once_more_typing_cannot_mend_it() {
    for unfinished in [
        "",
        "g",
        "get",
        "get(",
        "get(a",
        "set(a",
        "set(a,",
        "set(a,\"b",
    ] {
        assert_eq!(fault(unfinished), None, "{unfinished:?}");
    }
    assert_eq!(fault("get(a)"), None);
    assert_eq!(fault("set(a b").map(|(at, _)| at), Some(6));
    assert!(fault("get(a) x").is_some());
}
