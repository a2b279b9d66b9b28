//! The one component with state. Whatever happens becomes an event of [`State`]; the effects that come
//! back go to the connection; what is left is drawn.

use crate::browser::{self, Theme, Timer};
use crate::components::chain::Chain;
use crate::components::events::Events;
use crate::components::keys::KeysPane;
use crate::components::notices::{Notices, notices};
use crate::components::prompt::PromptPane;
use crate::components::tabs::Tabs;
use crate::components::top_bar::TopBar;
use crate::connection::{Connection, Signal};
use crate::state::link::Link;
use crate::state::{Effect, Event, Pane, State};
use crate::text;
use yew::prelude::*;

/// The id of the element that the page is drawn into.
const ROOT_ID: &str = "app";

/// Draws the page in place of the skeleton that `index.html` holds.
pub fn mount() {
    let root = browser::document()
        .get_element_by_id(ROOT_ID)
        .expect("index.html has it");
    yew::Renderer::<App>::with_root(root).render();
}

/// The page.
pub struct App {
    state: State,
    connection: Connection,
    timer: Timer,
    theme: Theme,
    host: String,
    utc_offset_min: i32,
    focus: Option<&'static str>,
    on_event: Callback<Event>,
    on_theme: Callback<()>,
}

/// What the page can be told.
#[derive(Debug)]
pub enum Msg {
    /// For the state.
    Event(Event),
    /// From the socket.
    Signal(Signal),
    /// The timer went off.
    Timer,
    /// The other theme, please.
    Theme,
}

impl Component for App {
    type Message = Msg;
    type Properties = ();

    fn create(ctx: &Context<Self>) -> App {
        let now_ms = browser::now_ms();
        let link = ctx.link();
        let on_signal = link.callback(Msg::Signal);
        let on_timer = link.callback(|()| Msg::Timer);
        let on_visible = link.callback(|visible| Msg::Event(Event::Visible(visible)));
        browser::on_visibility(move |visible| on_visible.emit(visible));
        let mut app = App {
            state: State::default(),
            connection: Connection::new(move |signal| on_signal.emit(signal), now_ms),
            timer: Timer::new(move || on_timer.emit(())),
            theme: Theme::current(),
            host: browser::host(),
            utc_offset_min: browser::utc_offset_min(),
            focus: None,
            on_event: link.callback(Msg::Event),
            on_theme: link.callback(|()| Msg::Theme),
        };
        app.apply(Event::Visible(browser::is_visible()), now_ms);
        app.settle(now_ms);
        app
    }

    fn update(&mut self, _: &Context<Self>, msg: Msg) -> bool {
        let now_ms = browser::now_ms();
        match msg {
            Msg::Event(event) => self.apply(event, now_ms),
            Msg::Signal(signal) => self.connection.signal(signal, now_ms),
            Msg::Timer => {
                self.timer.fired();
                self.connection.tick(now_ms);
                self.apply(Event::Wake, now_ms);
            }
            Msg::Theme => {
                self.theme = self.theme.other();
                self.theme.choose();
            }
        }
        self.settle(now_ms);
        true
    }

    fn rendered(&mut self, _: &Context<Self>, _: bool) {
        if let Some(selector) = self.focus.take() {
            browser::focus(selector);
        }
    }

    fn view(&self, _: &Context<Self>) -> Html {
        let now_ms = browser::now_ms();
        let state = &self.state;
        let connection = &state.connection;
        let status = state.picture.status.as_deref();
        let stale = state
            .picture_age_ms(now_ms)
            .map(|ms| AttrValue::from(text::ago(ms)));
        let blocked = connection.blocks_editing().map(AttrValue::from);
        let on_event = &self.on_event;
        let lost = !connection.is_live() && connection.was_live;
        html! {
            <>
                <TopBar
                    cluster={status.and_then(|s| s.cluster.clone()).map(AttrValue::from)}
                    words={connection.words(now_ms)}
                    keyword={connection.keyword(now_ms)}
                    health={connection.health(now_ms)}
                    can_reconnect={matches!(connection.link, Link::Closed | Link::TakenOver)}
                    theme={self.theme}
                    on_theme={self.on_theme.clone()}
                    on_event={on_event.clone()}
                />
                <main>
                    <section class={classes!("chain", lost.then_some("lost"))} aria-label="Chain">
                        <Notices notices={notices(state, now_ms)} />
                        <Chain picture={state.picture.clone()} host={self.host.clone()} {stale} />
                    </section>
                    <Tabs pane={state.pane} on_event={on_event.clone()} />
                    <div class="panes">
                        <KeysPane
                            keys={state.keys.clone()}
                            shown={state.pane == Pane::Keys}
                            live={connection.is_live()}
                            {blocked}
                            on_event={on_event.clone()}
                        />
                        <PromptPane
                            prompt={state.prompt.clone()}
                            shown={state.pane == Pane::Prompt}
                            blocked={connection.delays_prompt().map(AttrValue::from)}
                            on_event={on_event.clone()}
                        />
                    </div>
                    <Events
                        status={state.picture.status.clone()}
                        shown={state.pane == Pane::Events}
                        utc_offset_min={self.utc_offset_min}
                    />
                </main>
                <p class="spoken" role="status" aria-live="polite">{ &state.announcement }</p>
            </>
        }
    }
}

impl App {
    /// Feeds one event to the state and carries out what it wants.
    fn apply(&mut self, event: Event, now_ms: u64) {
        for effect in self.state.apply(event, now_ms) {
            match effect {
                Effect::Submit { ticket, op } => self.connection.submit(ticket, op, now_ms),
                Effect::Close => self.connection.close(now_ms),
                Effect::Reopen => self.connection.reopen(now_ms),
                Effect::Focus(selector) => self.focus = Some(selector),
            }
        }
    }

    /// Lets connection and state talk until both are quiet, then sets the alarm.
    fn settle(&mut self, now_ms: u64) {
        loop {
            let events = self.connection.take_events();
            if events.is_empty() {
                break;
            }
            for event in events {
                self.apply(event, now_ms);
            }
        }
        let wakes = [
            self.connection.next_wake_ms(),
            self.state.next_wake_ms(now_ms),
        ];
        self.timer.set(wakes.into_iter().flatten().min(), now_ms);
    }
}
