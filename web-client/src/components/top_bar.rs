//! The top bar: name, cluster, how the connection truly is, theme.

use crate::browser::Theme;
use crate::state::Event;
use crate::state::link::Health;
use yew::prelude::*;

#[derive(Properties, PartialEq)]
pub struct Props {
    /// The cluster's id, once it is known.
    pub cluster: Option<AttrValue>,
    /// The connection, in words.
    pub words: AttrValue,
    /// The connection, in one word that stays while its state does.
    pub keyword: &'static str,
    pub health: Health,
    pub can_reconnect: bool,
    pub theme: Theme,
    pub on_theme: Callback<()>,
    pub on_event: Callback<Event>,
}

/// How much of a cluster's id tells it from the others of a shop.
const SHORT_ID: usize = 8;

#[component]
pub fn TopBar(props: &Props) -> Html {
    let (class, shape) = match props.health {
        // A dot, a ring, a cross: told apart without colour.
        Health::Live => ("live", "M5 1 A4 4 0 1 1 4.99 1 Z"),
        Health::Pending => (
            "pending",
            "M5 1 A4 4 0 1 1 4.99 1 Z M5 3.4 A1.6 1.6 0 1 0 5.01 3.4 Z",
        ),
        Health::Down => (
            "down",
            "M2 .6 L5 3.6 L8 .6 L9.4 2 L6.4 5 L9.4 8 L8 9.4 L5 6.4 L2 9.4 L.6 8 L3.6 5 L.6 2 Z",
        ),
    };
    let on_theme = props.on_theme.reform(|_: MouseEvent| ());
    let on_reconnect = props.on_event.reform(|_: MouseEvent| Event::Reconnect);
    let other = match props.theme {
        Theme::Light => "Dark",
        Theme::Dark => "Light",
    };
    html! {
        <header class="top">
            <h1>{ "kvservice" }</h1>
            if let Some(cluster) = &props.cluster {
                <span class="cluster" title={format!("cluster {cluster}")} data-testid="cluster">
                    { cluster.chars().take(SHORT_ID).collect::<String>() }
                </span>
            }
            <span class="push"></span>
            if props.can_reconnect {
                <button class="primary" onclick={on_reconnect} data-testid="reconnect">
                    { "Connect again" }
                </button>
            }
            <span
                class={classes!("connection", class)}
                data-testid="connection"
                data-state={props.keyword}
            >
                <svg width="10" height="10" viewBox="0 0 10 10" aria-hidden="true">
                    <path d={shape} fill-rule="evenodd" />
                </svg>
                { &props.words }
            </span>
            <button
                class="quiet theme"
                onclick={on_theme}
                aria-label={format!("{other} theme")}
                data-testid="theme"
            >
                <svg width="16" height="16" viewBox="0 0 16 16" aria-hidden="true">
                    <circle cx="8" cy="8" r="6.2" fill="none" stroke="currentColor" stroke-width="1.6" />
                    <path d="M8 1.8 A6.2 6.2 0 0 1 8 14.2 Z" fill="currentColor" />
                </svg>
                <span class="word">{ other }</span>
            </button>
        </header>
    }
}
