//! The session machine: one situation a test, and random histories against a model server.

mod histories;
mod resumption;
mod situations;

use super::{Action, ConnState, Session, SessionConfig};
use crate::api::json::decode_requests;
use crate::api::{ApiError, ErrorCode, Limits, Op, Outcome, Reply, Request, Response};
use crate::ids::{RequestId, Seq, SessionUuid};

/// A driver that does what the session says and remembers it.
struct Rig {
    session: Session,
    now_ms: u64,
    /// Frames since they were last looked at.
    sent: Vec<String>,
    completed: Vec<(RequestId, Result<Reply, ApiError>)>,
    connects: usize,
    closes: usize,
}

impl Rig {
    fn new(config: SessionConfig) -> Rig {
        let mut rig = Rig {
            session: Session::new(config, 0),
            now_ms: 0,
            sent: Vec::new(),
            completed: Vec::new(),
            connects: 0,
            closes: 0,
        };
        rig.drain();
        rig
    }

    fn drain(&mut self) {
        while let Some(action) = self.session.poll() {
            match action {
                Action::Connect => self.connects += 1,
                Action::Send(frame) => self.sent.push(frame),
                Action::Completed { id, result } => self.completed.push((id, result)),
                Action::CloseSocket => self.closes += 1,
                Action::StateChanged => {}
            }
        }
    }

    /// Does something to the session, and then what the session says.
    fn with<T>(&mut self, act: impl FnOnce(&mut Session, u64) -> T) -> T {
        let done = act(&mut self.session, self.now_ms);
        self.drain();
        done
    }

    fn submit(&mut self, op: Op) -> RequestId {
        self.with(|session, now_ms| session.submit(op, now_ms))
            .expect("room for a request")
    }

    fn set(&mut self, key: &str) -> RequestId {
        self.submit(Op::Set {
            key: key.to_owned(),
            value: "v".into(),
        })
    }

    fn get(&mut self, key: &str) -> RequestId {
        self.submit(Op::Get {
            key: key.to_owned(),
        })
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.with(Session::tick);
    }

    /// The requests in what was sent since the last call.
    fn requests(&mut self) -> Vec<Request> {
        let frames = std::mem::take(&mut self.sent);
        let requests = frames
            .iter()
            .flat_map(|frame| decode_requests(frame).requests);
        requests
            .map(|request| request.expect("a session sends good requests"))
            .collect()
    }

    /// The ids of [`Rig::requests`].
    fn ids(&mut self) -> Vec<u64> {
        self.requests().iter().map(|request| request.id.0).collect()
    }

    fn receive(&mut self, response: Response) {
        let text = response.to_json();
        self.with(|session, now_ms| session.received(&text, now_ms));
    }

    fn answer(&mut self, id: RequestId, result: Result<Reply, ApiError>) {
        self.receive(Response {
            id: Some(id),
            result,
        });
    }

    /// Takes the `hello` that was just sent and answers it.
    fn welcome(&mut self, resumed: bool) {
        self.welcome_to(resumed, None);
    }

    fn welcome_to(&mut self, resumed: bool, opened: Option<&str>) {
        let hello = self.requests();
        assert!(
            matches!(hello[0].op, Op::Hello { .. }),
            "hello comes first: {hello:?}"
        );
        self.answer(hello[0].id, Ok(welcome(resumed, opened)));
    }

    /// Connects and is welcomed.
    fn go_live(&mut self, resumed: bool) {
        self.go_live_to(resumed, None);
    }

    /// The same, and the answer names the `hello` that opened the session.
    fn go_live_to(&mut self, resumed: bool, opened: Option<&str>) {
        if let ConnState::Waiting { retry_at_ms, .. } = self.session.state() {
            let wait_ms = retry_at_ms - self.now_ms;
            self.pass(wait_ms);
        }
        self.sent.clear();
        self.with(Session::connected);
        self.welcome_to(resumed, opened);
        assert!(matches!(self.session.state(), ConnState::Live { .. }));
    }

    fn lose(&mut self) {
        self.with(|session, now_ms| session.disconnected(None, "", now_ms));
    }

    /// The results since the last call.
    fn results(&mut self) -> Vec<(u64, Result<Reply, ApiError>)> {
        let completed = std::mem::take(&mut self.completed);
        completed
            .into_iter()
            .map(|(id, result)| (id.0, result))
            .collect()
    }

    /// The same, all of them failures.
    fn failures(&mut self) -> Vec<(u64, ErrorCode, Outcome)> {
        let error = |(id, result): (u64, Result<Reply, ApiError>)| {
            let error = result.expect_err("a failure");
            (id, error.code, error.outcome)
        };
        self.results().into_iter().map(error).collect()
    }
}

fn config() -> SessionConfig {
    SessionConfig {
        uuid: SessionUuid(uuid::Uuid::from_u128(7)),
        request_timeout_ms: 5000,
        silence_timeout_ms: 3000,
        jitter_seed: 1,
    }
}

fn welcome(resumed: bool, opened: Option<&str>) -> Reply {
    Reply::Hello {
        session: config().uuid,
        resumed,
        opened: opened.map(Into::into),
        protocol: 1,
        server: "test/1".to_owned(),
        limits: Limits::CURRENT,
    }
}

fn was_set() -> Result<Reply, ApiError> {
    Ok(Reply::Set {
        value: "v".into(),
        revision: Seq(1),
    })
}
