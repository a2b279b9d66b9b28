//! What happened to the chain, latest first.

use crate::text::{self, Tone};
use kvservice_shared::api::Status;
use std::rc::Rc;
use yew::prelude::*;

#[derive(Properties, PartialEq)]
pub struct Props {
    /// Its events, oldest first.
    pub status: Option<Rc<Status>>,
    /// Whether this is the chosen tab.
    pub shown: bool,
    pub utc_offset_min: i32,
}

#[component]
pub fn Events(props: &Props) -> Html {
    let events = props
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.events);
    html! {
        <section
            id="events"
            class={classes!("pane", "events", props.shown.then_some("shown"))}
            aria-label="Events"
        >
            <h2>{ "Events" }</h2>
            if events.is_empty() {
                <p class="nothing">{ "Nothing has happened to the chain yet." }</p>
            } else {
                <ol tabindex="0" aria-label="Events, latest first">
                    { for events.iter().rev().map(|event| {
                        let (class, mark) = match text::event_tone(event.kind) {
                            Tone::Good => ("good", "+"),
                            Tone::Bad => ("bad", "×"),
                            Tone::Plain => ("plain", "·"),
                        };
                        let kind = format!("{:?}", event.kind).to_lowercase();
                        html! {
                            <li class={class} data-testid="event" data-kind={kind}>
                                <time>{ text::clock(event.at_ms, props.utc_offset_min) }</time>
                                <span class="mark" aria-hidden="true">{ mark }</span>
                                <span>{ text::event(event) }</span>
                                <span class="epoch">{ format!("view {}", event.epoch) }</span>
                            </li>
                        }
                    }) }
                </ol>
            }
        </section>
    }
}
