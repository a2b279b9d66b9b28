//! Everything that the page knows, as a pure reducer: [`State::apply`] takes an [`Event`] and the time, and
//! returns the [`Effect`]s to carry out. It knows no socket, clock, element or style; those are
//! `connection`'s, `app`'s and `components`'.
//!
//! Invariants
//! - Every [`Effect::Submit`] has a ticket of its own, and exactly one [`Event::Answered`] comes back for it.
//! - At most one `status` and one page of keys are asked for at a time: a slow server is not piled upon.
//! - An answer that somebody no longer waits for changes nothing.

pub mod editor;
#[cfg(test)]
pub(crate) mod fixture;
pub mod keys;
pub mod link;
pub mod picture;
pub mod prompt;

use keys::{Keys, KeysAction, KeysPurpose};
use kvservice_shared::api::{ApiError, Op, Reply};
use link::{Connection, Link};
use picture::Picture;
use prompt::{Prompt, PromptAction};
use std::collections::BTreeMap;
use std::rc::Rc;

/// From one `status` to the next, in milliseconds: as a rule; while the chain changes; and while nobody
/// sees the page.
pub const POLL_MS: u64 = 500;
/// See [`POLL_MS`].
pub const POLL_LIVELY_MS: u64 = 100;
/// See [`POLL_MS`].
pub const POLL_HIDDEN_MS: u64 = 5_000;
/// For how long a change of the chain is watched closely, in milliseconds.
pub const LIVELY_MS: u64 = 4_000;

/// Pairs a request with its answer inside the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Something happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The connection stands otherwise.
    Link(Link),
    /// A request is done.
    Answered {
        /// Which.
        ticket: Ticket,
        /// How.
        result: Result<Reply, ApiError>,
    },
    /// Time passed: [`State::next_wake_ms`] was reached.
    Wake,
    /// The page came into sight, or went.
    Visible(bool),
    /// The reader wants the connection closed.
    Close,
    /// The reader wants it open again, or now.
    Reconnect,
    /// The reader chose a pane (they are tabs on a narrow screen).
    Show(Pane),
    /// The reader did something with the keys.
    Keys(KeysAction),
    /// The reader did something at the prompt.
    Prompt(PromptAction),
}

/// Something is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send this request.
    Submit {
        /// To come back with the answer.
        ticket: Ticket,
        /// What to ask.
        op: Op,
    },
    /// Close the connection.
    Close,
    /// Open it again.
    Reopen,
    /// Put the keyboard's focus where this selector says, once the page is drawn.
    Focus(&'static str),
}

/// The three panes below the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Pane {
    /// The keys and their editor.
    #[default]
    Keys,
    /// The prompt.
    Prompt,
    /// What happened to the chain.
    Events,
}

/// What a request was sent for.
#[derive(Clone, Debug, PartialEq)]
pub enum Purpose {
    /// The picture, asked at this time.
    Status {
        /// When.
        sent_ms: u64,
    },
    /// The keys pane.
    Keys(KeysPurpose),
    /// A line of the prompt.
    Prompt(u64),
}

/// Where the parts of the state leave what they want done.
#[derive(Debug, Default)]
pub struct Outbox {
    last_ticket: u64,
    pending: BTreeMap<Ticket, Purpose>,
    effects: Vec<Effect>,
}

impl Outbox {
    /// Sends a request.
    pub fn submit(&mut self, purpose: Purpose, op: Op) {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.pending.insert(ticket, purpose);
        self.effects.push(Effect::Submit { ticket, op });
    }

    /// Has something else done.
    pub fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }
}

/// Everything that the page knows. The parts are shared with the components, which compare them to see
/// whether to draw again.
#[derive(Debug, Default)]
pub struct State {
    /// The connection.
    pub connection: Connection,
    /// The chain.
    pub picture: Rc<Picture>,
    /// The keys pane.
    pub keys: Rc<Keys>,
    /// The prompt pane.
    pub prompt: Rc<Prompt>,
    /// The pane that a narrow screen shows.
    pub pane: Pane,
    /// The last thing that a screen reader should say.
    pub announcement: String,
    hidden: bool,
    /// When `status` is next due, and until when the chain is watched closely.
    next_poll_ms: u64,
    lively_until_ms: u64,
    polling: bool,
    outbox: Outbox,
}

impl State {
    /// Takes in an event; what is returned is to be done, in order.
    pub fn apply(&mut self, event: Event, now_ms: u64) -> Vec<Effect> {
        match event {
            Event::Link(link) => self.link(link, now_ms),
            Event::Answered { ticket, result } => self.answered(ticket, result, now_ms),
            Event::Wake => {}
            Event::Visible(visible) => {
                self.hidden = !visible;
                if visible {
                    self.next_poll_ms = now_ms;
                }
            }
            Event::Close => self.outbox.push(Effect::Close),
            Event::Reconnect => self.outbox.push(Effect::Reopen),
            Event::Show(pane) => self.pane = pane,
            Event::Keys(action) => {
                Rc::make_mut(&mut self.keys).act(action, now_ms, &mut self.outbox);
            }
            Event::Prompt(action) => {
                let link = &self.connection.link;
                Rc::make_mut(&mut self.prompt).act(action, link, &mut self.outbox);
            }
        }
        self.catch_up(now_ms);
        std::mem::take(&mut self.outbox.effects)
    }

    /// When [`Event::Wake`] is next due, if nothing else happens before.
    #[must_use]
    pub fn next_wake_ms(&self, now_ms: u64) -> Option<u64> {
        let live = self.connection.is_live();
        let poll = (live && !self.polling).then_some(self.next_poll_ms);
        let keys = self.keys.next_wake_ms().filter(|_| live && !self.hidden);
        let words = self
            .connection
            .next_wake_ms(now_ms)
            .filter(|_| !self.hidden);
        let wakes = [poll, keys, words, self.picture.next_wake_ms()];
        wakes.into_iter().flatten().min()
    }

    /// How old the picture is, once that is worth saying: the connection is lost, or silent.
    #[must_use]
    pub fn picture_age_ms(&self, now_ms: u64) -> Option<u64> {
        self.picture.status.as_ref()?;
        let stale = !self.connection.is_live() || self.connection.silent_ms(now_ms).is_some();
        stale.then(|| now_ms.saturating_sub(self.picture.received_ms))
    }

    fn link(&mut self, link: Link, now_ms: u64) {
        if self.connection.link == link {
            return;
        }
        let was_live = self.connection.is_live();
        self.connection.link = link;
        if self.connection.is_live() {
            self.connection.heard_ms = Some(now_ms);
            if self.connection.was_live {
                self.announcement = "Connected again.".to_owned();
            }
            self.connection.was_live = true;
            self.next_poll_ms = now_ms;
            Rc::make_mut(&mut self.keys).refresh(now_ms);
        } else if was_live {
            self.connection.forget_round_trips();
            self.announcement = match self.connection.link {
                Link::Closed => "Connection closed.".to_owned(),
                Link::TakenOver => "Another window took the session over.".to_owned(),
                _ => "Connection lost, reconnecting.".to_owned(),
            };
        }
    }

    fn answered(&mut self, ticket: Ticket, result: Result<Reply, ApiError>, now_ms: u64) {
        let Some(purpose) = self.outbox.pending.remove(&ticket) else {
            return;
        };
        // An error may be this page's own, for want of an answer.
        if self.connection.is_live() && result.is_ok() {
            self.connection.heard_ms = Some(now_ms);
        }
        match purpose {
            Purpose::Status { sent_ms } => {
                self.polling = false;
                if let Ok(Reply::Status(status)) = result {
                    self.connection.answered_in(now_ms.saturating_sub(sent_ms));
                    let change = Rc::make_mut(&mut self.picture).update(*status, now_ms);
                    if change.lively {
                        self.lively_until_ms = now_ms + LIVELY_MS;
                    }
                    if change.written {
                        Rc::make_mut(&mut self.keys).written(now_ms);
                    }
                    if !change.events.is_empty() {
                        let lines: Vec<String> =
                            change.events.iter().map(crate::text::event).collect();
                        self.announcement = lines.join(". ");
                    }
                }
                let interval = if self.hidden {
                    POLL_HIDDEN_MS
                } else if now_ms < self.lively_until_ms {
                    POLL_LIVELY_MS
                } else {
                    POLL_MS
                };
                self.next_poll_ms = now_ms.max(sent_ms + interval);
            }
            Purpose::Keys(purpose) => {
                Rc::make_mut(&mut self.keys).answered(purpose, result, now_ms, &mut self.outbox);
            }
            Purpose::Prompt(line) => {
                Rc::make_mut(&mut self.prompt).answered(line, result, &mut self.outbox);
            }
        }
    }

    /// Does what is due: whatever happened, time passed too.
    fn catch_up(&mut self, now_ms: u64) {
        if self
            .picture
            .next_wake_ms()
            .is_some_and(|wake| wake <= now_ms)
        {
            Rc::make_mut(&mut self.picture).age(now_ms);
        }
        if self.connection.is_live() {
            if !self.polling && now_ms >= self.next_poll_ms {
                self.polling = true;
                self.outbox
                    .submit(Purpose::Status { sent_ms: now_ms }, Op::Status);
            }
            let due = self.keys.next_wake_ms().is_some_and(|wake| wake <= now_ms);
            if due && !self.hidden {
                Rc::make_mut(&mut self.keys).fetch(now_ms, &mut self.outbox);
            }
        }
        self.connection.asked_ms = self
            .outbox
            .pending
            .values()
            .find_map(|purpose| match purpose {
                Purpose::Status { sent_ms } => Some(*sent_ms),
                _ => None,
            });
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
