//! The prompt pane: what was entered and answered, the line being typed, and the grammar as a hint.

use crate::state::Event;
use crate::state::prompt::{Entry, Output, Prompt, PromptAction, fault, hints};
use std::rc::Rc;
use web_sys::{Element, HtmlInputElement};
use yew::prelude::*;

#[derive(Properties, PartialEq)]
pub struct Props {
    pub prompt: Rc<Prompt>,
    /// Whether this is the chosen tab.
    pub shown: bool,
    /// Why nothing can be sent, if so.
    pub blocked: Option<AttrValue>,
    pub on_event: Callback<Event>,
}

#[component]
pub fn PromptPane(props: &Props) -> Html {
    let prompt = &props.prompt;
    let on_event = &props.on_event;
    let act =
        |action: PromptAction| on_event.reform(move |_: MouseEvent| Event::Prompt(action.clone()));
    let log = use_node_ref();
    {
        let log = log.clone();
        // The newest line stays in sight, also as its answer comes.
        let newest = prompt.entries.back().map(|e| (e.number, e.output.clone()));
        use_effect_with((newest, props.shown), move |_| {
            if let Some(log) = log.cast::<Element>() {
                log.set_scroll_top(log.scroll_height());
            }
        });
    }
    let oninput = on_event.reform(|event: InputEvent| {
        let input: HtmlInputElement = event.target_unchecked_into();
        Event::Prompt(PromptAction::Input(input.value()))
    });
    let onkeydown = {
        let on_event = on_event.clone();
        move |event: KeyboardEvent| {
            let action = match event.key().as_str() {
                "ArrowUp" => PromptAction::Older,
                "ArrowDown" => PromptAction::Newer,
                _ => return,
            };
            event.prevent_default();
            on_event.emit(Event::Prompt(action));
        }
    };
    let onsubmit = on_event.reform(|event: SubmitEvent| {
        event.prevent_default();
        Event::Prompt(PromptAction::Enter)
    });
    let wrong = fault(&prompt.input);
    html! {
        <section
            id="prompt"
            class={classes!("pane", "prompt", props.shown.then_some("shown"))}
            aria-label="Prompt"
        >
            <div class="head">
                <h2>{ "Prompt" }</h2>
                <span class="push"></span>
                if !prompt.entries.is_empty() {
                    <button class="quiet" onclick={act(PromptAction::Clear)} data-testid="clear-prompt">
                        { "Clear" }
                    </button>
                }
            </div>
            <div ref={log} class="log" role="log" aria-label="Answers" tabindex="0"
                data-testid="prompt-output">
                if prompt.entries.is_empty() {
                    <p class="nothing">
                        { "Try " }<code>{ "set(color,red)" }</code>{ ", then " }
                        <code>{ "get(color)" }</code>{ "." }
                    </p>
                }
                { for prompt.entries.iter().map(entry) }
            </div>
            <form {onsubmit}>
                <label class="line">
                    <span aria-hidden="true">{ ">" }</span>
                    <input
                        aria-label="Command"
                        aria-describedby="hint"
                        value={prompt.input.clone()}
                        {oninput}
                        {onkeydown}
                        autocomplete="off"
                        autocapitalize="off"
                        spellcheck="false"
                        enterkeyhint="send"
                        data-focus="prompt"
                        data-testid="prompt-input"
                    />
                </label>
            </form>
            <div id="hint" class="hint" data-testid="prompt-hint">
                { match wrong {
                    Some((at, message)) => html! { <>{ pointer(&prompt.input, at, &message) }</> },
                    None => hint(props),
                } }
            </div>
        </section>
    }
}

fn entry(entry: &Entry) -> Html {
    let (class, output) = match &entry.output {
        Output::Pending => ("pending", html! { { "…" } }),
        Output::Printed(text) => ("printed", html! { { text } }),
        Output::Failed(text) => ("failed", html! { { text } }),
        Output::Unparsed { at, message } => ("failed", pointer(&entry.line, *at, message)),
    };
    html! {
        <div key={entry.number} class={classes!("entry", class, entry.is_table().then_some("wide"))} data-testid="prompt-entry"
            data-outcome={class}>
            <div class="said">{ &entry.line }</div>
            <div class="output" tabindex={entry.is_table().then_some("0")}>{ output }</div>
        </div>
    }
}

/// The line with the character at fault marked, and what is wrong with it.
fn pointer(line: &str, at: usize, message: &str) -> Html {
    let before: String = line.chars().take(at).collect();
    let here: String = line.chars().skip(at).take(1).collect();
    let after: String = line.chars().skip(at + 1).collect();
    // At the end there is no character to mark: a space stands for it.
    let here = if here.is_empty() {
        "\u{a0}".to_owned()
    } else {
        here
    };
    html! {
        <>
            <span class="at">{ before }<mark>{ here }</mark>{ after }</span>
            <span class="why">{ format!("character {}: {message}", at + 1) }</span>
        </>
    }
}

/// The commands that the line may become; why it would not be sent.
fn hint(props: &Props) -> Html {
    let hints = hints(&props.prompt.input);
    html! {
        <>
            if let Some(why) = &props.blocked {
                <span class="why">{ why }</span>
            }
            if let [only] = hints[..] {
                <span><code>{ only.signature }</code>{ " " }{ only.help }</span>
            } else if hints.is_empty() {
                <span class="why">{ "There is no such command: type help." }</span>
            } else {
                { for hints.into_iter().map(|help| {
                    let onclick = props.on_event.reform(move |_: MouseEvent| {
                        Event::Prompt(PromptAction::Start(help))
                    });
                    html! {
                        <button class="chip" {onclick} title={help.help}>{ help.signature }</button>
                    }
                }) }
            }
        </>
    }
}
