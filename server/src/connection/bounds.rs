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
pub(super) struct Silence {
    pub(super) heard: Instant,
    bytes_read: u64,
    pinged: Option<Instant>,
}

pub(super) enum Verdict {
    Wait(Instant),
    Ping(Instant),
    Gone,
}

impl Silence {
    pub(super) fn new(now: Instant, bytes_read: u64) -> Silence {
        Silence {
            heard: now,
            bytes_read,
            pinged: None,
        }
    }

    pub(super) fn heard_so_far(&mut self, bytes_read: u64) {
        if bytes_read != self.bytes_read {
            self.bytes_read = bytes_read;
            self.heard = Instant::now();
            self.pinged = None;
        }
    }

    pub(super) fn judge(&mut self, now: Instant, config: &EdgeConfig) -> Verdict {
        let gone_at = self.heard + config.silence_timeout;
        let ping_at = self.pinged.unwrap_or(self.heard) + config.ping_after;
        if now >= gone_at {
            Verdict::Gone
        } else if now >= ping_at {
            self.pinged = Some(now);
            Verdict::Ping(gone_at.min(now + config.ping_after))
        } else {
            Verdict::Wait(gone_at.min(ping_at))
        }
    }
}
