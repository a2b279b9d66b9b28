//! What one connection may hold, and how long it may say nothing: plain accounts, kept by
//! [`super::Connection`].

use super::Closing;
use crate::config::EdgeConfig;
use crate::edge::Edge;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Below this, a connection's hold on incoming bytes is not worth counting.
const INBOUND_BYTES_COUNTED: usize = 64 * 1024;

/// About how many bytes of requests are unanswered. Answers come in any order; they are taken for answers to
/// the oldest frames, which is right for writes and soon right for all.
#[derive(Default)]
pub(super) struct UnansweredBytes {
    pub(super) bytes: usize,
    /// Of each frame, oldest first: answers that it still waits for, and its bytes.
    frames: VecDeque<(usize, usize)>,
}

impl UnansweredBytes {
    pub(super) fn asked(&mut self, requests: usize, bytes: usize) {
        if requests > 0 {
            self.bytes += bytes;
            self.frames.push_back((requests, bytes));
        }
    }

    pub(super) fn answered(&mut self) {
        if let Some((requests, bytes)) = self.frames.front_mut() {
            *requests -= 1;
            if *requests == 0 {
                self.bytes -= *bytes;
                self.frames.pop_front();
            }
        }
    }
}

/// What this connection holds of frames on their way in, counted with all others. tungstenite never gives
/// back the buffer of the largest frame, so neither does this.
pub(super) struct Inbound<'a> {
    edge: &'a Edge,
    frame_ended_at: u64,
    held: usize,
}

impl<'a> Inbound<'a> {
    pub(super) fn new(edge: &'a Edge, bytes_read: u64) -> Inbound<'a> {
        Inbound {
            edge,
            frame_ended_at: bytes_read,
            held: 0,
        }
    }

    pub(super) fn count(&mut self, bytes_read: u64, frame_ended: bool) -> Result<(), Closing> {
        let partial = usize::try_from(bytes_read - self.frame_ended_at).unwrap_or(usize::MAX);
        if frame_ended {
            self.frame_ended_at = bytes_read;
        }
        if partial <= self.held.max(INBOUND_BYTES_COUNTED) {
            return Ok(());
        }
        let more = partial - self.held;
        self.held = partial;
        let all = self.edge.inbound_bytes.fetch_add(more, Ordering::Relaxed) + more;
        if all <= self.edge.config.inbound_bytes_max {
            return Ok(());
        }
        let reason = "the server holds too many large frames: try again later";
        Err(Closing {
            readable: false,
            ..Closing::new(CloseCode::Again, reason)
        })
    }
}

impl Drop for Inbound<'_> {
    fn drop(&mut self) {
        self.edge
            .inbound_bytes
            .fetch_sub(self.held, Ordering::Relaxed);
    }
}

/// When the client was last heard. Any byte counts: a large frame may take its time.
///
/// What passes while this process itself does not run (stopped by a signal, starved of a processor) is not
/// the client's silence: on waking the timer is found to be late, and the client is given its time anew.
pub(super) struct Silence {
    pub(super) heard: Instant,
    bytes_read: u64,
    pinged: Option<Instant>,
    /// When [`Silence::judge`] wants to be asked again.
    due: Instant,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Ask again then.
    Wait(Instant),
    /// Send a ping, and ask again then.
    Ping(Instant),
    Gone,
}

impl Silence {
    pub(super) fn new(now: Instant, bytes_read: u64, config: &EdgeConfig) -> Silence {
        Silence {
            heard: now,
            bytes_read,
            pinged: None,
            due: now + config.ping_after,
        }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    pub(super) fn heard_so_far(&mut self, bytes_read: u64) {
        if bytes_read != self.bytes_read {
            self.bytes_read = bytes_read;
            self.heard = Instant::now();
            self.pinged = None;
        }
    }

    pub(super) fn judge(&mut self, now: Instant, config: &EdgeConfig) -> Verdict {
        if now.saturating_duration_since(self.due) > config.ping_after {
            self.heard = now;
            self.pinged = None;
        }
        let gone_at = self.heard + config.silence_timeout;
        let ping_at = self.pinged.unwrap_or(self.heard) + config.ping_after;
        if now >= gone_at {
            Verdict::Gone
        } else if now >= ping_at {
            self.pinged = Some(now);
            self.due = gone_at.min(now + config.ping_after);
            Verdict::Ping(self.due)
        } else {
            self.due = gone_at.min(ping_at);
            Verdict::Wait(self.due)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn silence_is_pinged_each_interval_and_ends_the_connection() {
        let config = EdgeConfig::default();
        let start = Instant::now();
        let mut silence = Silence::new(start, 0, &config);
        assert_eq!(
            silence.judge(start + SECOND, &config),
            Verdict::Wait(start + 15 * SECOND)
        );
        assert_eq!(
            silence.judge(start + 15 * SECOND, &config),
            Verdict::Ping(start + 30 * SECOND)
        );
        assert_eq!(
            silence.judge(start + 30 * SECOND, &config),
            Verdict::Ping(start + 45 * SECOND)
        );
        assert_eq!(silence.judge(start + 45 * SECOND, &config), Verdict::Gone);
    }

    #[test]
    fn a_byte_ends_the_silence() {
        let config = EdgeConfig::default();
        let start = Instant::now();
        let mut silence = Silence::new(start, 0, &config);
        assert_eq!(
            silence.judge(start + 15 * SECOND, &config),
            Verdict::Ping(start + 30 * SECOND)
        );
        silence.heard_so_far(0);
        assert_eq!(silence.heard, start, "no byte");
        silence.heard_so_far(1);
        silence.heard = start + 20 * SECOND;
        assert_eq!(
            silence.judge(start + 30 * SECOND, &config),
            Verdict::Wait(start + 35 * SECOND)
        );
        assert_eq!(
            silence.judge(start + 35 * SECOND, &config),
            Verdict::Ping(start + 50 * SECOND)
        );
        assert_eq!(
            silence.judge(start + 50 * SECOND, &config),
            Verdict::Ping(start + 65 * SECOND)
        );
        assert_eq!(silence.judge(start + 65 * SECOND, &config), Verdict::Gone);
    }

    /// A front-end that is stopped for minutes and continued must not close all its idle clients: none of them
    /// was asked for a sign of life.
    #[test]
    fn our_own_sleep_is_not_their_silence() {
        let config = EdgeConfig::default();
        let start = Instant::now();
        let mut silence = Silence::new(start, 0, &config);
        let woken = start + 600 * SECOND;
        assert_eq!(
            silence.judge(woken, &config),
            Verdict::Wait(woken + 15 * SECOND)
        );
        assert_eq!(
            silence.judge(woken + 15 * SECOND, &config),
            Verdict::Ping(woken + 30 * SECOND)
        );
    }

    #[test]
    fn answers_are_taken_for_the_oldest_requests() {
        let mut unanswered = UnansweredBytes::default();
        unanswered.asked(2, 100);
        unanswered.asked(0, 7);
        unanswered.asked(1, 30);
        assert_eq!(unanswered.bytes, 130);
        unanswered.answered();
        assert_eq!(unanswered.bytes, 130);
        unanswered.answered();
        assert_eq!(unanswered.bytes, 30);
        unanswered.answered();
        assert_eq!(unanswered.bytes, 0);
    }
}
