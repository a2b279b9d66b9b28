//! The notices above the picture.

use crate::notices::{Notice, Urgency};
use yew::prelude::*;

pub use crate::notices::notices;

#[derive(Properties, PartialEq)]
pub struct Props {
    pub notices: Vec<Notice>,
}

#[component]
pub fn Notices(props: &Props) -> Html {
    html! {
        <div class="notices">
            { for props.notices.iter().map(notice) }
        </div>
    }
}

fn notice(notice: &Notice) -> Html {
    let (class, role) = match notice.urgency {
        Urgency::Act => ("act", Some("alert")),
        Urgency::Warn => ("warn", None),
        Urgency::Know => ("know", None),
    };
    html! {
        <div
            key={notice.name}
            class={classes!("notice", class)}
            {role}
            data-testid="notice"
            data-name={notice.name}
        >
            <svg width="16" height="16" viewBox="0 0 16 16" aria-hidden="true">
                { match notice.urgency {
                    Urgency::Act => html! { <path d="M5 1 H11 L15 5 V11 L11 15 H5 L1 11 V5 Z" /> },
                    Urgency::Warn => html! { <path d="M8 1 L15.5 15 H.5 Z" /> },
                    Urgency::Know => html! { <circle cx="8" cy="8" r="7" /> },
                } }
                <path
                    class="mark"
                    d={match notice.urgency {
                        Urgency::Know => "M8 4.2 V5.8 M8 7.4 V12",
                        _ => "M8 4.5 V9 M8 11 V12.6",
                    }}
                />
            </svg>
            <p>
                <strong>{ &notice.title }</strong>
                { " " }
                { prose(&notice.text) }
            </p>
            if let Some(command) = &notice.command {
                <code>{ command }</code>
            }
        </div>
    }
}

/// A sentence with `code` in backquotes, as the front-end writes it.
fn prose(text: &str) -> Html {
    let parts = text.split('`').enumerate();
    parts
        .map(|(i, part)| {
            if i % 2 == 1 {
                html! { <code class="inline">{ part }</code> }
            } else {
                html! { { part } }
            }
        })
        .collect()
}
