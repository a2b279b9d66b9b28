//! The editor of one key: its value in whatever form it can be shown, what was found when a test
//! failed, and the question before a delete.

use crate::state::Event;
use crate::state::editor::{Editor, Found, SHOWN_BYTES_MAX, Stage};
use crate::state::keys::KeysAction;
use crate::text::{self, Tone};
use kvservice_shared::api::Value;
use std::rc::Rc;
use web_sys::{Event as DomEvent, HtmlInputElement, HtmlTextAreaElement};
use yew::prelude::*;

/// Lines of a hex dump.
const DUMP_LINES: usize = 64;
/// Characters of each value of a conflict.
const CONFLICT_CHARS: usize = 600;

#[derive(Properties, PartialEq)]
pub struct Props {
    pub editor: Rc<Editor>,
    pub live: bool,
    /// Why nothing can be changed, if so.
    pub blocked: Option<AttrValue>,
    pub on_event: Callback<Event>,
}

#[component]
pub fn EditorView(props: &Props) -> Html {
    let editor = &props.editor;
    let on_event = &props.on_event;
    let act =
        |action: KeysAction| on_event.reform(move |_: MouseEvent| Event::Keys(action.clone()));
    let on_submit = on_event.reform(|event: SubmitEvent| {
        event.prevent_default();
        Event::Keys(KeysAction::Save)
    });
    let on_escape = {
        let on_event = on_event.clone();
        let action = match editor.stage {
            Stage::Confirming => KeysAction::CancelDelete,
            _ => KeysAction::CloseEditor,
        };
        let keep = editor.draft.dirty && editor.stage != Stage::Confirming;
        move |event: KeyboardEvent| {
            // What was typed is not lost to a key.
            if event.key() == "Escape" && !keep {
                on_event.emit(Event::Keys(action.clone()));
            }
        }
    };
    html! {
        <form
            class="editor"
            aria-label={if editor.is_new() { "New key" } else { "Value" }}
            onsubmit={on_submit}
            onkeydown={on_escape}
            data-testid="editor"
        >
            <div class="head">
                if editor.is_new() {
                    { key_input(editor, on_event) }
                } else {
                    <h3 data-testid="editor-key">{ &editor.key }</h3>
                }
                <span class="facts" data-testid="editor-facts">{ facts(editor) }</span>
                <button
                    type="button"
                    class="quiet"
                    onclick={act(KeysAction::CloseEditor)}
                    aria-label="Close the editor"
                    data-testid="close-editor"
                >
                    { "×" }
                </button>
            </div>
            { match &editor.stage {
                Stage::Conflict(theirs) => conflict(editor, theirs, props.live, &act),
                _ => html! {
                    <>
                        { value(editor, on_event, &act) }
                        { elsewhere(editor, &act) }
                        { note(editor, &act) }
                        { foot(props, &act) }
                    </>
                },
            } }
        </form>
    }
}

fn key_input(editor: &Editor, on_event: &Callback<Event>) -> Html {
    let oninput = on_event.reform(|event: InputEvent| {
        let input: HtmlInputElement = event.target_unchecked_into();
        Event::Keys(KeysAction::Key(input.value()))
    });
    html! {
        <input
            class="key"
            placeholder="new key"
            aria-label="Key"
            value={editor.key.clone()}
            {oninput}
            autocomplete="off"
            autocapitalize="off"
            spellcheck="false"
            data-focus="new-key"
            data-testid="key-input"
        />
    }
}

/// Size and revision of what is stored.
fn facts(editor: &Editor) -> String {
    match &editor.base {
        None if editor.is_new() => String::new(),
        None => "reading…".to_owned(),
        Some(Found { value: None, .. }) => "no such key".to_owned(),
        Some(Found {
            value: Some(value),
            revision,
        }) => {
            format!(
                "{} · revision {}",
                text::size(value.0.len() as u64),
                text::count(revision.0)
            )
        }
    }
}

fn value(
    editor: &Editor,
    on_event: &Callback<Event>,
    act: &impl Fn(KeysAction) -> Callback<MouseEvent>,
) -> Html {
    let oninput = on_event.reform(|event: InputEvent| {
        let area: HtmlTextAreaElement = event.target_unchecked_into();
        Event::Keys(KeysAction::Value(area.value()))
    });
    let dump = editor
        .stored()
        .filter(|_| editor.draft.base64 && !editor.draft.dirty);
    let label = if editor.draft.base64 {
        "Value, as base64"
    } else {
        "Value"
    };
    html! {
        <>
            if let Some(value) = dump {
                { hex(value) }
            }
            <textarea
                aria-label={label}
                placeholder={if editor.draft.base64 { "base64" } else { "value" }}
                value={editor.draft.text.clone()}
                {oninput}
                readonly={editor.draft.cut || editor.is_busy()}
                rows="3"
                spellcheck="false"
                autocapitalize="off"
                data-focus="editor"
                data-testid="value-input"
            />
            if editor.draft.cut {
                <p class="note plain" data-testid="value-cut">
                    { format!(
                        "The first {} of {}.",
                        text::size(SHOWN_BYTES_MAX as u64),
                        editor.stored().map_or_else(String::new, |v| text::size(v.0.len() as u64)),
                    ) }
                    <button type="button" onclick={act(KeysAction::Whole)} data-testid="show-whole">
                        { "Show and edit it whole" }
                    </button>
                </p>
            }
        </>
    }
}

fn hex(value: &Value) -> Html {
    let bytes = &value.0;
    let shown = DUMP_LINES * 8;
    html! {
        <figure class="hex">
            <figcaption>
                { if value.as_str().is_some() {
                    "Text with control characters, as hex:"
                } else {
                    "Bytes that are no text, as hex:"
                } }
            </figcaption>
            <pre tabindex="0" data-testid="hex">{ text::hex_dump(bytes, DUMP_LINES) }
                if bytes.len() > shown {
                    { format!("… {} more", text::size((bytes.len() - shown) as u64)) }
                }
            </pre>
        </figure>
    }
}

fn elsewhere(editor: &Editor, act: &impl Fn(KeysAction) -> Callback<MouseEvent>) -> Html {
    let Some(found) = &editor.elsewhere else {
        return html! {};
    };
    let what = match &found.value {
        Some(value) => format!("Changed elsewhere meanwhile, to {}.", quoted(value)),
        None => "Deleted elsewhere meanwhile.".to_owned(),
    };
    html! {
        <p class="note bad" role="status" data-testid="elsewhere">
            { what }
            <button type="button" onclick={act(KeysAction::Reload)}>{ "Take that, drop mine" }</button>
        </p>
    }
}

fn note(editor: &Editor, act: &impl Fn(KeysAction) -> Callback<MouseEvent>) -> Html {
    let Some(note) = &editor.note else {
        return html! {};
    };
    let (class, role) = match note.tone {
        Tone::Good => ("good", "status"),
        Tone::Bad => ("bad", "alert"),
        Tone::Plain => ("plain", "status"),
    };
    html! {
        <p class={classes!("note", class)} {role} data-testid="editor-note">
            { &note.text }
            if note.look {
                <button type="button" onclick={act(KeysAction::Look)} data-testid="look">
                    { "Look whether it was" }
                </button>
            }
        </p>
    }
}

fn foot(props: &Props, act: &impl Fn(KeysAction) -> Callback<MouseEvent>) -> Html {
    let editor = &props.editor;
    if matches!(editor.stage, Stage::Confirming) {
        return html! {
            <div class="ask" role="alertdialog" aria-label="Delete?" data-testid="confirm-delete">
                <p>{ "Delete " }<code>{ &editor.key }</code>{ "? There is no way back." }</p>
                <button type="button" class="danger" onclick={act(KeysAction::ConfirmDelete)}
                    disabled={!props.live} data-testid="delete-yes">
                    { "Delete " }{ &editor.key }
                </button>
                <button type="button" onclick={act(KeysAction::CancelDelete)} data-focus="keep"
                    data-testid="delete-no">
                    { "Keep it" }
                </button>
            </div>
        };
    }
    let on_guard = props.on_event.reform(|event: DomEvent| {
        let input: HtmlInputElement = event.target_unchecked_into();
        Event::Keys(KeysAction::Guard(input.checked()))
    });
    let on_base64 = props.on_event.reform(|event: DomEvent| {
        let input: HtmlInputElement = event.target_unchecked_into();
        Event::Keys(KeysAction::Base64(input.checked()))
    });
    let saving = editor.stage == Stage::Saving;
    let exists = !editor.is_new() && editor.stored().is_some();
    let guard = if exists {
        "only if unchanged since"
    } else {
        "only if there is none"
    };
    html! {
        <>
            if let Some(why) = &props.blocked {
                <p class="note plain" data-testid="blocked">{ why }</p>
            }
            <div class="foot">
                <button
                    class="primary"
                    disabled={!props.live || editor.is_busy() || !editor.draft.dirty}
                    data-testid="save"
                >
                    { if saving { "Saving…" } else { "Save" } }
                </button>
                <label class="check">
                    <input
                        type="checkbox"
                        checked={editor.guard}
                        onchange={on_guard}
                        data-testid="guard"
                    />
                    { guard }
                </label>
                <label class="check">
                    <input
                        type="checkbox"
                        checked={editor.draft.base64}
                        disabled={editor.draft.cut}
                        onchange={on_base64}
                        data-testid="base64"
                    />
                    { "as base64" }
                </label>
                <span class="push"></span>
                if exists {
                    <button
                        type="button"
                        class="danger"
                        onclick={act(KeysAction::Delete)}
                        disabled={!props.live || editor.is_busy()}
                        data-focus="delete"
                        data-testid="delete"
                    >
                        { if editor.stage == Stage::Deleting { "Deleting…" } else { "Delete…" } }
                    </button>
                }
            </div>
        </>
    }
}

/// Theirs beside mine; the reader chooses.
fn conflict(
    editor: &Editor,
    theirs: &Found,
    live: bool,
    act: &impl Fn(KeysAction) -> Callback<MouseEvent>,
) -> Html {
    let mine = match editor.typed() {
        Ok(value) => text::preview(&value, CONFLICT_CHARS),
        Err(why) => why,
    };
    html! {
        <div class="conflict" role="alertdialog" aria-label="Somebody else was faster"
            tabindex="-1" data-focus="conflict" data-testid="conflict">
            <p>
                <strong>{ "Not saved." }</strong>
                { match &theirs.value {
                    Some(_) => " Somebody else has changed this key since. Which value shall it have?",
                    None => " Somebody else has deleted this key since. Shall it exist?",
                } }
            </p>
            <div class="sides">
                <figure>
                    <figcaption>
                        { "Theirs" }
                        if theirs.value.is_some() {
                            { format!(", revision {}", text::count(theirs.revision.0)) }
                        }
                    </figcaption>
                    <pre tabindex="0" data-testid="theirs">
                        { match &theirs.value {
                            Some(value) => text::preview(value, CONFLICT_CHARS),
                            None => "(none)".to_owned(),
                        } }
                    </pre>
                </figure>
                <figure>
                    <figcaption>{ "Mine, not saved" }</figcaption>
                    <pre tabindex="0" data-testid="mine">{ mine }</pre>
                </figure>
            </div>
            <div class="foot">
                <button type="button" onclick={act(KeysAction::KeepTheirs)} data-testid="keep-theirs">
                    { "Keep theirs" }
                </button>
                <button type="button" class="primary" onclick={act(KeysAction::Overwrite)}
                    disabled={!live} data-testid="overwrite">
                    { "Save mine over it" }
                </button>
                <button type="button" onclick={act(KeysAction::EditOn)} data-testid="edit-on">
                    { "Go on editing" }
                </button>
            </div>
        </div>
    }
}

fn quoted(value: &Value) -> String {
    format!("“{}”", text::preview(value, 60))
}
