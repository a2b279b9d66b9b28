//! The keys pane: a prefix, a page of keys, and the editor of the one that is open.

use super::editor::EditorView;
use crate::state::Event;
use crate::state::keys::{Emptiness, Keys, KeysAction, Page};
use crate::text;
use kvservice_shared::api::ListEntry;
use std::rc::Rc;
use web_sys::HtmlInputElement;
use yew::prelude::*;

/// Characters of a value in the list.
const PREVIEW_CHARS: usize = 80;

#[derive(Properties, PartialEq)]
pub struct Props {
    pub keys: Rc<Keys>,
    /// Whether this is the chosen tab.
    pub shown: bool,
    pub live: bool,
    /// Why nothing can be changed, if so.
    pub blocked: Option<AttrValue>,
    pub on_event: Callback<Event>,
}

#[component]
pub fn KeysPane(props: &Props) -> Html {
    let keys = &props.keys;
    let act = |action: KeysAction| {
        props
            .on_event
            .reform(move |_: MouseEvent| Event::Keys(action.clone()))
    };
    let on_prefix = props.on_event.reform(|event: InputEvent| {
        let input: HtmlInputElement = event.target_unchecked_into();
        Event::Keys(KeysAction::Prefix(input.value()))
    });
    let open = keys
        .editor
        .as_ref()
        .map(|editor| AttrValue::from(editor.key.clone()));
    html! {
        <section
            id="keys"
            class={classes!(
                "pane", "keys",
                props.shown.then_some("shown"),
                keys.editor.is_some().then_some("split"),
            )}
            aria-label="Keys"
        >
            <div class="head">
                <h2>{ "Keys" }</h2>
                <input
                    type="search"
                    placeholder="starts with…"
                    aria-label="Keys that start with"
                    value={keys.prefix.clone()}
                    oninput={on_prefix}
                    autocomplete="off"
                    autocapitalize="off"
                    spellcheck="false"
                    data-focus="prefix"
                    data-testid="prefix"
                />
                <button onclick={act(KeysAction::New)} data-testid="new-key">{ "New key" }</button>
            </div>
            if let Some(error) = &keys.error {
                <p class="note bad" role="alert">{ text::error(error, false) }</p>
            }
            <div class="list">
                { match (&keys.page, keys.emptiness()) {
                    (None, _) | (_, Emptiness::NoKeys | Emptiness::NoHits) if keys.error.is_some() => {
                        html! {}
                    }
                    (None, _) => html! { <p class="nothing">{ "Reading the keys…" }</p> },
                    (_, Emptiness::NoKeys) => html! {
                        <p class="nothing" data-testid="empty">
                            { "Nothing is stored yet. Add a key here, or type " }
                            <code>{ "set(color,red)" }</code>
                            { " at the prompt." }
                        </p>
                    },
                    (_, Emptiness::NoHits) => html! {
                        <p class="nothing" data-testid="empty">
                            { "No key starts with " }
                            <code>{ keys.prefix.clone() }</code>
                            { "." }
                        </p>
                    },
                    (Some(page), Emptiness::Not) => html! {
                        <Rows
                            entries={page.entries.clone()}
                            {open}
                            on_event={props.on_event.clone()}
                        />
                    },
                } }
            </div>
            { pages(keys, keys.page.as_ref(), &act) }
            if let Some(editor) = &keys.editor {
                <EditorView
                    editor={Rc::new(editor.clone())}
                    live={props.live}
                    blocked={props.blocked.clone()}
                    on_event={props.on_event.clone()}
                />
            }
        </section>
    }
}

/// The way to the pages before and after, where there are any.
fn pages(
    keys: &Keys,
    page: Option<&Page>,
    act: &impl Fn(KeysAction) -> Callback<MouseEvent>,
) -> Html {
    let Some(page) = page.filter(|page| page.more || keys.has_previous()) else {
        return html! {};
    };
    html! {
        <div class="pages">
            <button onclick={act(KeysAction::Previous)} disabled={!keys.has_previous()}
                data-testid="previous-page">
                { "Previous" }
            </button>
            <span>{ format!("page {}", page.number) }</span>
            <button onclick={act(KeysAction::Next)} disabled={!page.more} data-testid="next-page">
                { "Next" }
            </button>
        </div>
    }
}

#[derive(Properties, PartialEq)]
struct RowsProps {
    entries: Rc<Vec<ListEntry>>,
    /// The key in the editor.
    open: Option<AttrValue>,
    on_event: Callback<Event>,
}

#[component]
fn Rows(props: &RowsProps) -> Html {
    html! {
        <table>
            <thead>
                <tr>
                    <th scope="col">{ "Key" }</th>
                    <th scope="col">{ "Value" }</th>
                    <th scope="col" class="figure">{ "Revision" }</th>
                </tr>
            </thead>
            <tbody>
                { for props.entries.iter().map(|entry| {
                    let key = entry.key.clone();
                    let onclick = props.on_event.reform(move |_: MouseEvent| {
                        Event::Keys(KeysAction::Open(key.clone()))
                    });
                    let is_open = props.open.as_deref() == Some(&entry.key);
                    let preview = text::preview(&entry.value, PREVIEW_CHARS);
                    let binary = entry.value.as_str().is_none();
                    html! {
                        <tr
                            key={entry.key.clone()}
                            class={is_open.then_some("open")}
                            onclick={onclick}
                            data-testid="key-row"
                            data-key={entry.key.clone()}
                        >
                            <th scope="row">
                                // The click rises to the row; the button is for keyboard and ear.
                                <button class="plain" aria-current={is_open.then_some("true")}>
                                    { &entry.key }
                                </button>
                            </th>
                            <td class={binary.then_some("binary")}>{ preview }</td>
                            <td class="figure">{ text::count(entry.revision.0) }</td>
                        </tr>
                    }
                }) }
            </tbody>
        </table>
    }
}
