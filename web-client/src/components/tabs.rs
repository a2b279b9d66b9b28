//! The three panes as tabs, where the screen is too narrow to show them together. The style sheet hides
//! this on a wide one.

use crate::state::{Event, Pane};
use yew::prelude::*;

#[derive(Properties, PartialEq)]
pub struct Props {
    /// The pane that is shown.
    pub pane: Pane,
    pub on_event: Callback<Event>,
}

const PANES: [(Pane, &str, &str); 3] = [
    (Pane::Keys, "Keys", "keys"),
    (Pane::Prompt, "Prompt", "prompt"),
    (Pane::Events, "Events", "events"),
];

#[component]
pub fn Tabs(props: &Props) -> Html {
    html! {
        <nav class="tabs" aria-label="Panes">
            { for PANES.map(|(pane, label, id)| {
                let onclick = props.on_event.reform(move |_: MouseEvent| Event::Show(pane));
                html! {
                    <button
                        {onclick}
                        aria-pressed={if pane == props.pane { "true" } else { "false" }}
                        aria-controls={id}
                        data-testid={format!("tab-{id}")}
                    >
                        { label }
                    </button>
                }
            }) }
        </nav>
    }
}
