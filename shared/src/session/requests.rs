//! What becomes of requests: taken, sent, answered, given up.

use super::frame::Frame;
use super::{Action, ConnState, Hello, Session, SubmitError};
use crate::api::json::write_request;
use crate::api::{ApiError, ErrorCode, Limits, Op, OpKind, Outcome, Response};
use crate::ids::RequestId;
use crate::limits::{BATCH_REQUESTS_MAX, CLIENT_FRAME_BYTES_MAX, IN_FLIGHT_REQUESTS_MAX};

/// A request that was submitted and is not completed.
pub(super) struct Pending {
    pub(super) kind: OpKind,
    pub(super) json: String,
    /// When to give up.
    pub(super) deadline_ms: Option<u64>,
    /// Sent on this connection.
    pub(super) sent_here: bool,
    /// Sent on an earlier connection.
    pub(super) sent_before: bool,
}

impl Pending {
    /// Whether the server may have seen it.
    fn is_out(&self) -> bool {
        self.sent_here || self.sent_before
    }
}

impl Session {
    pub(super) fn admit(&self, ops: &[Op]) -> Result<(), SubmitError> {
        if matches!(self.state, ConnState::Closed | ConnState::TakenOver) {
            return Err(SubmitError::Closed);
        }
        if ops.iter().any(|op| op.kind() == OpKind::Hello) {
            return Err(SubmitError::Hello);
        }
        if self.pending.len() + ops.len() > IN_FLIGHT_REQUESTS_MAX {
            return Err(SubmitError::Full);
        }
        Ok(())
    }

    pub(super) fn enqueue(&mut self, op: &Op, now_ms: u64) -> RequestId {
        let id = self.take_id();
        let mut json = String::with_capacity(128);
        write_request(id, op, &mut json);
        let timeout_ms = self.config.request_timeout_ms;
        let pending = Pending {
            kind: op.kind(),
            json,
            deadline_ms: (timeout_ms > 0).then(|| now_ms.saturating_add(timeout_ms)),
            sent_here: false,
            sent_before: false,
        };
        self.pending.insert(id, pending);
        id
    }

    pub(super) fn take_id(&mut self) -> RequestId {
        let id = self.next_id;
        assert!(id <= RequestId::MAX, "a session's ids are used up: {id}");
        self.next_id = RequestId(id.0 + 1);
        id
    }

    /// Sends what the connection allows and was not sent on it: everything when it is live; before,
    /// only `status`, which the front-end answers by itself.
    pub(super) fn flush(&mut self, now_ms: u64) {
        let limits = match &self.state {
            ConnState::Live { limits, .. } => *limits,
            ConnState::Greeting => Limits::CURRENT,
            _ => return,
        };
        let live = matches!(self.state, ConnState::Live { .. });
        let bytes_max = to_usize(limits.frame_bytes_max).min(CLIENT_FRAME_BYTES_MAX);
        let batch_max = to_usize(limits.batch_max).clamp(1, BATCH_REQUESTS_MAX);

        let mut frame = Frame::default();
        let mut too_large = Vec::new();
        for (&id, pending) in self.pending.range_mut(self.unsent_from..) {
            if pending.sent_here || (!live && pending.kind != OpKind::Status) {
                continue;
            }
            if pending.json.len() + Frame::BRACKETS > bytes_max {
                too_large.push(id);
                continue;
            }
            if !frame.has_room(pending.json.len(), bytes_max, batch_max) {
                self.actions
                    .push_back(Action::Send(std::mem::take(&mut frame).finish()));
            }
            frame.push(&pending.json);
            pending.sent_here = true;
            self.in_flight += 1;
        }
        if !frame.is_empty() {
            self.actions.push_back(Action::Send(frame.finish()));
        }
        if live {
            self.unsent_from = self.next_id;
        }
        for id in too_large {
            let message = format!("the request is larger than a frame of {bytes_max} bytes");
            self.fail(id, ErrorCode::TooLarge, message);
        }
        self.watch_silence(false, now_ms);
    }

    pub(super) fn answer(&mut self, response: Response, now_ms: u64) {
        let Some(id) = response.id else {
            // A frame of ours was refused whole. Which requests were in it is not said; on a new
            // connection they are sent again.
            let error = response.result.err();
            let message = error.map_or_else(String::new, |error| error.to_string());
            self.give_up_connection(&format!("the server refused a frame: {message}"), now_ms);
            return;
        };
        if let Hello::Sent {
            id: hello,
            refusals,
        } = self.hello
            && hello == id
        {
            self.greeted(response.result, refusals, now_ms);
            return;
        }
        // Not there: answered already, by an earlier response of the same frame.
        let Some(pending) = self.take(id) else { return };
        let mut result = response.result;
        if let Err(error) = &mut result
            && pending.kind.is_write()
            && pending.sent_before
        {
            // The error speaks of this attempt only.
            error.outcome = Outcome::Unknown;
        }
        self.actions.push_back(Action::Completed { id, result });
    }

    pub(super) fn take(&mut self, id: RequestId) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        self.in_flight -= usize::from(pending.sent_here);
        Some(pending)
    }

    /// Ends a request from here.
    pub(super) fn fail(&mut self, id: RequestId, code: ErrorCode, message: impl Into<String>) {
        let Some(pending) = self.take(id) else { return };
        let error = if pending.kind.is_write() && pending.is_out() {
            ApiError::unknown(code, message)
        } else {
            ApiError::not_applied(code, message)
        };
        self.actions.push_back(Action::Completed {
            id,
            result: Err(error),
        });
    }

    pub(super) fn fail_all(&mut self, why: &str) {
        let out: Vec<_> = self
            .pending
            .iter()
            .map(|(&id, pending)| (id, pending.is_out()))
            .collect();
        for (id, is_out) in out {
            let code = if is_out {
                ErrorCode::Timeout
            } else {
                ErrorCode::Unavailable
            };
            self.fail(id, code, format!("{why} before the request was answered"));
        }
    }

    /// Ends the requests whose time is up.
    pub(super) fn give_up_requests(&mut self, now_ms: u64) {
        while let Some((&id, first)) = self.pending.first_key_value()
            && first
                .deadline_ms
                .is_some_and(|deadline_ms| deadline_ms <= now_ms)
        {
            let timeout_ms = self.config.request_timeout_ms;
            if first.is_out() {
                let message = format!("no answer within {timeout_ms} ms");
                self.fail(id, ErrorCode::Timeout, message);
            } else {
                let why = match (&self.state, &self.refusal) {
                    (ConnState::Waiting { reason, .. }, _) => reason.clone(),
                    (_, Some(refusal)) => refusal.message.clone(),
                    _ => "no connection".to_owned(),
                };
                let message = format!("not sent within {timeout_ms} ms: {why}");
                self.fail(id, ErrorCode::Unavailable, message);
            }
        }
        self.watch_silence(false, now_ms);
    }

    /// The server does not have the session in which these were sent.
    pub(super) fn fail_writes_of_lost_session(&mut self) {
        let lost: Vec<RequestId> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.sent_before && pending.kind.is_write())
            .map(|(&id, _)| id)
            .collect();
        for id in lost {
            let message =
                "the connection broke before the answer, and the server no longer has the session";
            self.fail(id, ErrorCode::Timeout, message);
        }
    }
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
