//! The connection as the page tells it: how it stands, how quick it is, how long it has been silent.

use crate::text;

/// After this long without an answer to a question the page calls the server silent, in milliseconds.
pub const SILENT_AFTER_MS: u64 = 1_500;

/// Answers that the latency is the median of.
const ROUND_TRIPS: usize = 5;

/// How the connection stands. The page's own words for the session's states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// A socket is being opened.
    Connecting {
        /// From 1.
        attempt: u32,
    },
    /// The socket is open, the session is being named.
    Greeting {
        /// Why the server does not take it, if it said so.
        refusal: Option<String>,
    },
    /// Requests flow.
    Live,
    /// Not connected for now.
    Waiting {
        /// The number of the attempt to come.
        attempt: u32,
        /// When.
        retry_at_ms: u64,
        /// Why the last connection ended.
        reason: String,
    },
    /// Another window took the session over.
    TakenOver,
    /// Closed on the reader's own wish.
    Closed,
}

/// The connection and what was heard over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// How it stands.
    pub link: Link,
    /// When anything last came, if ever.
    pub heard_ms: Option<u64>,
    /// When the oldest question without an answer was asked.
    pub asked_ms: Option<u64>,
    /// How long the last few `status` took there and back, in milliseconds; latest last.
    round_trips_ms: Vec<u64>,
    /// Whether it was ever live.
    pub was_live: bool,
}

/// How the connection looks: each has its own shape and colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// All is well.
    Live,
    /// Something is awaited.
    Pending,
    /// Nothing goes until it is back, or somebody acts.
    Down,
}

impl Default for Connection {
    fn default() -> Connection {
        Connection {
            link: Link::Connecting { attempt: 1 },
            heard_ms: None,
            asked_ms: None,
            round_trips_ms: Vec::new(),
            was_live: false,
        }
    }
}

impl Connection {
    /// Whether requests flow.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.link == Link::Live
    }

    /// A question was answered after so long.
    pub fn answered_in(&mut self, ms: u64) {
        if self.round_trips_ms.len() == ROUND_TRIPS {
            self.round_trips_ms.remove(0);
        }
        self.round_trips_ms.push(ms);
    }

    /// The connection is another one: what the last one took says nothing of it.
    pub fn forget_round_trips(&mut self) {
        self.round_trips_ms.clear();
    }

    /// How quick the connection is, in milliseconds: the median of the last few, so that one slow
    /// answer does not make the number jump.
    #[must_use]
    pub fn round_trip_ms(&self) -> Option<u64> {
        let mut sorted = self.round_trips_ms.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }

    /// For how long the server has left a question unanswered, once that is worth saying.
    #[must_use]
    pub fn silent_ms(&self, now_ms: u64) -> Option<u64> {
        let asked = self.asked_ms.filter(|_| self.is_live())?;
        let since = self.heard_ms.map_or(asked, |heard| heard.max(asked));
        let silent = now_ms.saturating_sub(since);
        (silent >= SILENT_AFTER_MS).then_some(silent)
    }

    /// When the words change by themselves.
    #[must_use]
    pub fn next_wake_ms(&self, now_ms: u64) -> Option<u64> {
        match &self.link {
            Link::Live => {
                let asked = self.asked_ms?;
                let since = self.heard_ms.map_or(asked, |heard| heard.max(asked));
                let silent = now_ms.saturating_sub(since);
                if silent < SILENT_AFTER_MS {
                    Some(since + SILENT_AFTER_MS)
                } else {
                    Some(since + (silent / 1000 + 1) * 1000)
                }
            }
            // The age of the last known picture, in seconds.
            _ => Some(now_ms + 1000),
        }
    }

    /// The state, in few words: `live · 2 ms`, `reconnecting, attempt 3`, `silent for 4 s`.
    #[must_use]
    pub fn words(&self, now_ms: u64) -> String {
        if let Some(silent) = self.silent_ms(now_ms) {
            return format!("silent for {}", text::age(silent));
        }
        match &self.link {
            Link::Connecting { attempt } | Link::Waiting { attempt, .. } => {
                if self.was_live {
                    format!("reconnecting, attempt {attempt}")
                } else if *attempt > 1 {
                    format!("connecting, attempt {attempt}")
                } else {
                    "connecting".to_owned()
                }
            }
            Link::Greeting { refusal: None } => "opening the session".to_owned(),
            Link::Greeting { refusal: Some(_) } => "connected, not served".to_owned(),
            Link::Live => match self.round_trip_ms() {
                None => "live".to_owned(),
                Some(0) => "live · < 1 ms".to_owned(),
                Some(ms) => format!("live · {}", text::took(ms)),
            },
            Link::TakenOver => "taken over by another window".to_owned(),
            Link::Closed => "closed".to_owned(),
        }
    }

    /// The state in one word that does not change with every answer: what tests and style sheets use.
    #[must_use]
    pub fn keyword(&self, now_ms: u64) -> &'static str {
        if self.silent_ms(now_ms).is_some() {
            return "silent";
        }
        match &self.link {
            Link::Connecting { .. } => "connecting",
            Link::Greeting { .. } => "greeting",
            Link::Live => "live",
            Link::Waiting { .. } => "waiting",
            Link::TakenOver => "taken-over",
            Link::Closed => "closed",
        }
    }

    /// How it looks.
    #[must_use]
    pub fn health(&self, now_ms: u64) -> Health {
        if self.silent_ms(now_ms).is_some() {
            return Health::Pending;
        }
        match &self.link {
            Link::Live => Health::Live,
            Link::Connecting { .. } if !self.was_live => Health::Pending,
            Link::Greeting { .. } => Health::Pending,
            _ => Health::Down,
        }
    }

    /// What becomes of a line at the prompt, if it is not sent at once.
    #[must_use]
    pub fn delays_prompt(&self) -> Option<String> {
        match &self.link {
            Link::Connecting { .. } | Link::Waiting { .. } => {
                Some("Not connected: what you enter waits a while for the connection.".to_owned())
            }
            _ => self.blocks_editing(),
        }
    }

    /// Why nothing can be changed at the moment, if so.
    #[must_use]
    pub fn blocks_editing(&self) -> Option<String> {
        match &self.link {
            Link::Live => None,
            Link::Connecting { .. } | Link::Waiting { .. } if self.was_live => {
                Some("The connection is lost: nothing can be changed until it is back.".to_owned())
            }
            Link::Connecting { .. } | Link::Waiting { .. } => Some("Not connected yet.".to_owned()),
            Link::Greeting { refusal: None } => Some("The session is being opened.".to_owned()),
            Link::Greeting { refusal: Some(why) } => Some(text::sentence(why)),
            Link::TakenOver => {
                Some("Another window took this session over: connect again to go on.".to_owned())
            }
            Link::Closed => Some("The connection is closed: connect again to go on.".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Connection {
        Connection {
            link: Link::Live,
            was_live: true,
            ..Connection::default()
        }
    }

    #[test]
    fn silence_counts_only_while_an_answer_is_due() {
        let mut c = live();
        c.heard_ms = Some(1_000);
        assert_eq!(c.silent_ms(60_000), None, "nothing was asked");
        c.asked_ms = Some(60_000);
        assert_eq!(c.silent_ms(60_000 + SILENT_AFTER_MS - 1), None);
        assert_eq!(c.words(64_200), "silent for 4 s");
        assert_eq!(c.keyword(64_200), "silent");
        assert_eq!(c.health(64_200), Health::Pending);
        // Something else was heard meanwhile: the socket lives.
        c.heard_ms = Some(64_000);
        assert_eq!(c.silent_ms(64_200), None);
        // A lost connection is not silent, it is lost.
        c.link = Link::Waiting {
            attempt: 2,
            retry_at_ms: 70_000,
            reason: String::new(),
        };
        assert_eq!(c.silent_ms(90_000), None);
    }

    #[test]
    fn words_wake_when_they_change() {
        let mut c = live();
        assert_eq!(
            c.next_wake_ms(5),
            None,
            "live, and nothing asked: the words hold"
        );
        c.asked_ms = Some(1_000);
        assert_eq!(c.next_wake_ms(1_100), Some(1_000 + SILENT_AFTER_MS));
        let wake = c.next_wake_ms(4_200).expect("it counts seconds");
        assert_eq!(wake, 5_000);
        assert_ne!(c.words(4_200), c.words(wake));
    }

    #[test]
    fn the_words_are_those_of_the_design() {
        let mut c = live();
        for ms in [2, 40, 1, 3, 2] {
            c.answered_in(ms);
        }
        assert_eq!(c.words(0), "live · 2 ms");
        assert_eq!(c.blocks_editing(), None);
        c.link = Link::Waiting {
            attempt: 3,
            retry_at_ms: 9,
            reason: "gone".into(),
        };
        assert_eq!(c.words(0), "reconnecting, attempt 3");
        assert!(c.blocks_editing().is_some());
        assert!(c.delays_prompt().unwrap().contains("waits"));
        let first = Connection::default();
        assert_eq!(first.words(0), "connecting");
        assert_eq!(first.health(0), Health::Pending);
    }
}
