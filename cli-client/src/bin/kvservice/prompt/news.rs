//! What the prompt says of the connection: enough to know what is going on, and no more.

use kvservice_client::{Connection, ServerAddress};
use tokio::time::Instant;

/// Turns changes of the connection into lines for people.
pub struct News {
    server: ServerAddress,
    /// Whether there was ever a connection.
    was_live: bool,
    /// Whether the last thing that was said is that there is none.
    is_lost: bool,
    /// The last refusal that was said, not to say it again.
    refusal: Option<String>,
    spoken: bool,
}

impl News {
    pub fn new(server: ServerAddress) -> News {
        News {
            server,
            was_live: false,
            is_lost: false,
            refusal: None,
            spoken: false,
        }
    }

    pub fn has_spoken(&self) -> bool {
        self.spoken
    }

    /// What to say now, if anything.
    pub fn on(&mut self, connection: &Connection, now: Instant) -> Option<String> {
        let line = self.line(connection, now)?;
        self.spoken = true;
        Some(line)
    }

    fn line(&mut self, connection: &Connection, now: Instant) -> Option<String> {
        match connection {
            Connection::Connecting { .. } | Connection::Greeting { refusal: None } => None,
            Connection::Greeting {
                refusal: Some(error),
            } => {
                let refusal = format!(
                    "connected, but {}: {}; asking again",
                    error.code, error.message
                );
                if self.refusal.as_ref() == Some(&refusal) {
                    return None;
                }
                self.refusal = Some(refusal.clone());
                self.is_lost = true;
                Some(refusal)
            }
            Connection::Live {
                resumed, server, ..
            } => {
                let first = !std::mem::replace(&mut self.was_live, true);
                let was_lost = std::mem::replace(&mut self.is_lost, false);
                self.refusal = None;
                match (first, resumed) {
                    (true, _) => Some(format!(
                        "connected to {} ({server}); help lists the commands, exit or ctrl-d ends",
                        self.server
                    )),
                    (false, true) if !was_lost => None,
                    (false, true) => Some("connected again".to_owned()),
                    (false, false) => {
                        Some("connected again; the server had forgotten this session".to_owned())
                    }
                }
            }
            Connection::Waiting {
                attempt,
                retry_at,
                reason,
            } => {
                let first = !std::mem::replace(&mut self.is_lost, true);
                // Every attempt would fill the screen: after the first, ever fewer are shown.
                if !first && (*attempt < 4 || !attempt.is_power_of_two()) {
                    return None;
                }
                let wait = retry_at.saturating_duration_since(now).as_secs_f64();
                let when = if wait < 0.1 {
                    "now".to_owned()
                } else {
                    format!("in {wait:.1} s")
                };
                let what = match (first, self.was_live) {
                    (true, true) => "connection lost".to_owned(),
                    (true, false) => format!("cannot reach {}", self.server),
                    (false, _) => "still no connection".to_owned(),
                };
                let mut line = format!("{what}: {reason}; retrying {when} (attempt {attempt})");
                if !self.was_live && first && reason.contains("connection refused") {
                    line += &format!(
                        "\nstart a server there with: kvservice-server single --listen {}",
                        self.server.host_port()
                    );
                }
                Some(line)
            }
            Connection::TakenOver => {
                Some("another connection took this session over; start kvservice anew".to_owned())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvservice_client::{ApiError, ErrorCode, Limits, Outcome};
    use std::time::Duration;

    fn live(resumed: bool) -> Connection {
        Connection::Live {
            resumed,
            server: "kvservice/0.1.0".into(),
            limits: Limits::CURRENT,
        }
    }

    fn waiting(attempt: u32, now: Instant) -> Connection {
        Connection::Waiting {
            attempt,
            retry_at: now + Duration::from_millis(400),
            reason: "the server went away".into(),
        }
    }

    fn news() -> News {
        News::new("h:7400".parse().unwrap())
    }

    #[test]
    fn a_connection_that_is_lost_and_comes_back() {
        let (mut news, now) = (news(), Instant::now());
        assert_eq!(news.on(&Connection::Connecting { attempt: 1 }, now), None);
        assert!(!news.has_spoken());
        let line = news.on(&live(false), now).unwrap();
        assert!(
            line.starts_with("connected to ws://h:7400/v1/ws (kvservice/0.1.0)"),
            "{line}"
        );
        assert_eq!(
            news.on(&waiting(2, now), now).unwrap(),
            "connection lost: the server went away; retrying in 0.4 s (attempt 2)"
        );
        assert_eq!(news.on(&live(true), now).unwrap(), "connected again");
        let line = news.on(&live(false), now).unwrap();
        assert!(line.contains("had forgotten this session"), "{line}");
    }

    #[test]
    fn a_server_that_stays_away_does_not_fill_the_screen() {
        let (mut news, now) = (news(), Instant::now());
        let said = (2..=100)
            .filter(|&n| news.on(&waiting(n, now), now).is_some())
            .count();
        assert_eq!(said, "2 4 8 16 32 64".split(' ').count());
    }

    #[test]
    fn a_refusal_is_said_once() {
        let (mut news, now) = (news(), Instant::now());
        let refused = Connection::Greeting {
            refusal: Some(ApiError {
                code: ErrorCode::Unavailable,
                message: "no node has joined yet".into(),
                outcome: Outcome::NotApplied,
            }),
        };
        let line = news.on(&refused, now).unwrap();
        assert_eq!(
            line,
            "connected, but unavailable: no node has joined yet; asking again"
        );
        assert_eq!(news.on(&refused, now), None);
    }
}
