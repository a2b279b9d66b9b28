//! Random histories of one session against a model of the server: connections break with frames in
//! either direction lost, the server refuses, forgets, answers late, and time passes. Then
//! everything heals, and the books must balance.

use super::{Rig, config, welcome};
use crate::api::json::decode_requests;
use crate::api::{ApiError, ErrorCode, FrontEndStatus, Mode, Op, Outcome, Reply, Response, Status};
use crate::ids::{RequestId, Seq};
use crate::session::{ConnState, Session, SubmitError};
use crate::testing::cases;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    Write,
    Read,
    Status,
    /// Several in one frame.
    Batch(usize),
    /// The socket opens, if one is being opened.
    Connected,
    /// The connection comes to be live, whatever it takes.
    Live,
    /// The server takes the next frame and treats it so.
    Serve(Treatment),
    /// The next answer arrives.
    Deliver,
    /// The connection breaks; the server still takes so many of the frames on their way.
    Break(usize),
    /// Another connection takes the session over.
    TakeOver,
    /// The server forgets the session (evicted, or another cluster).
    Forget,
    Pass(u64),
    Pong,
    Close,
    Reopen,
}

/// What the server does with a frame.
#[derive(Clone, Copy, Debug)]
enum Treatment {
    /// Carries it out and answers.
    Good,
    /// Answers `unavailable`, without a look at what it has done before.
    Refuse,
    /// Answers `timeout`, and has carried it out.
    TimeoutApplied,
    /// Answers `timeout`, and has not.
    TimeoutLost,
    /// Answers the last request of the frame first.
    Reversed,
    /// Never answers, and has carried it out.
    Silent,
}

fn event() -> impl Strategy<Value = Event> {
    let treatment = prop_oneof![
        8 => Just(Treatment::Good),
        2 => Just(Treatment::Refuse),
        1 => Just(Treatment::TimeoutApplied),
        1 => Just(Treatment::TimeoutLost),
        2 => Just(Treatment::Reversed),
        1 => Just(Treatment::Silent),
    ];
    prop_oneof![
        6 => Just(Event::Write),
        2 => Just(Event::Read),
        1 => Just(Event::Status),
        2 => (0..4usize).prop_map(Event::Batch),
        6 => Just(Event::Connected),
        6 => Just(Event::Live),
        10 => treatment.prop_map(Event::Serve),
        8 => Just(Event::Deliver),
        5 => (0..4usize).prop_map(Event::Break),
        1 => Just(Event::TakeOver),
        2 => Just(Event::Forget),
        4 => (0..400u64).prop_map(Event::Pass),
        1 => (400..4000u64).prop_map(Event::Pass),
        1 => Just(Event::Pong),
        1 => Just(Event::Close),
        2 => Just(Event::Reopen),
    ]
}

/// The server: what it has carried out, and the outcomes that the session remembers.
#[derive(Default)]
struct Server {
    /// Whether it says in its answer which `hello` opened the session.
    says_opened: bool,
    /// How many times the session was opened.
    opened: u32,
    /// `None`: it does not hold the session.
    session: Option<BTreeMap<RequestId, Reply>>,
    /// How often each write was carried out, whatever the session remembers.
    applied: BTreeMap<RequestId, u32>,
    revision: u64,
}

impl Server {
    fn carry_out(&mut self, id: RequestId, op: &Op) -> Reply {
        match op {
            Op::Hello { .. } => {
                let resumed = self.session.is_some();
                self.opened += u32::from(!resumed);
                self.session.get_or_insert_default();
                let opened = self.opened.to_string();
                welcome(resumed, self.says_opened.then_some(opened.as_str()))
            }
            Op::Set { value, .. } => {
                let outcomes = self.session.as_mut().expect("a session sends hello first");
                if let Some(outcome) = outcomes.get(&id) {
                    return outcome.clone();
                }
                *self.applied.entry(id).or_default() += 1;
                self.revision += 1;
                let reply = Reply::Set {
                    value: value.clone(),
                    revision: Seq(self.revision),
                };
                outcomes.insert(id, reply.clone());
                reply
            }
            Op::Get { .. } => Reply::Get {
                value: None,
                revision: Seq(0),
            },
            Op::Status => Reply::Status(Box::new(Status {
                mode: Mode::Single,
                cluster: None,
                epoch: 0,
                members: Vec::new(),
                learners: Vec::new(),
                front_end: FrontEndStatus::default(),
                events: Vec::new(),
                waiting: None,
            })),
            op => panic!("not sent in this test: {op:?}"),
        }
    }
}

struct World {
    rig: Rig,
    server: Server,
    connected: bool,
    to_server: VecDeque<String>,
    to_client: VecDeque<String>,
    submitted: BTreeMap<RequestId, Op>,
    completed: BTreeMap<RequestId, Result<Reply, ApiError>>,
    /// What was ever sent under an id.
    sent: BTreeMap<RequestId, Op>,
    hellos: BTreeSet<RequestId>,
    /// The first attempts so far went out up to here.
    highest_first: RequestId,
}

impl World {
    fn new(says_opened: bool) -> World {
        World {
            rig: Rig::new(config()),
            server: Server {
                says_opened,
                ..Server::default()
            },
            connected: false,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            submitted: BTreeMap::new(),
            completed: BTreeMap::new(),
            sent: BTreeMap::new(),
            hellos: BTreeSet::new(),
            highest_first: RequestId(0),
        }
    }

    /// Carries the session's actions over, and looks at each on the way.
    fn settle(&mut self) {
        let frames = std::mem::take(&mut self.rig.sent);
        let has_socket = matches!(
            self.rig.session.state(),
            ConnState::Connecting { .. } | ConnState::Greeting | ConnState::Live { .. }
        );
        for frame in frames {
            let mut last = RequestId(0);
            for request in decode_requests(&frame).requests {
                let request = request.expect("a session sends good requests");
                assert!(request.id > last, "in the order of their ids: {frame}");
                last = request.id;
                if matches!(request.op, Op::Hello { .. }) {
                    assert!(self.hellos.insert(request.id), "a hello's id is used once");
                    assert!(!self.submitted.contains_key(&request.id));
                    continue;
                }
                assert_eq!(
                    self.submitted.get(&request.id),
                    Some(&request.op),
                    "as submitted"
                );
                assert!(
                    !self.completed.contains_key(&request.id),
                    "nothing completed is sent"
                );
                let first = self.sent.insert(request.id, request.op.clone()).is_none();
                if first && request.op != Op::Status {
                    assert!(
                        request.id > self.highest_first,
                        "first attempts in order: {frame}"
                    );
                    self.highest_first = request.id;
                }
            }
            if self.connected {
                self.to_server.push_back(frame);
            }
        }
        if self.connected && !(has_socket && self.rig.closes == 0) {
            self.cut();
        }
        self.rig.closes = 0;
        for (id, result) in std::mem::take(&mut self.rig.completed) {
            assert!(self.submitted.contains_key(&id), "{id} was never submitted");
            assert!(
                self.completed.insert(id, result).is_none(),
                "{id} completed twice"
            );
        }
        if let Some(wake_ms) = self.rig.session.next_wake_ms() {
            assert!(
                wake_ms > self.rig.now_ms,
                "a wake that is due was ticked away"
            );
        }
    }

    /// Nothing on its way arrives any more.
    fn cut(&mut self) {
        self.connected = false;
        self.to_server.clear();
        self.to_client.clear();
    }

    fn submit(&mut self, ops: Vec<Op>) {
        let known = ops.clone();
        match self
            .rig
            .with(|session, now_ms| session.submit_batch(ops, now_ms))
        {
            Ok(ids) => {
                for (id, op) in ids.into_iter().zip(known) {
                    assert!(!self.hellos.contains(&id), "{id} was a hello's");
                    assert!(
                        self.submitted.insert(id, op).is_none(),
                        "{id} is used twice"
                    );
                }
            }
            Err(error) => assert_eq!(error, SubmitError::Closed),
        }
    }

    fn serve(&mut self, treatment: Treatment) {
        let Some(frame) = self.to_server.pop_front() else {
            return;
        };
        let decoded = decode_requests(&frame);
        let mut answers = Vec::new();
        for request in decoded.requests {
            let request = request.expect("a session sends good requests");
            let carried_out = !matches!(treatment, Treatment::Refuse | Treatment::TimeoutLost);
            let reply = carried_out.then(|| self.server.carry_out(request.id, &request.op));
            let result = match (treatment, reply) {
                (Treatment::Good | Treatment::Reversed, Some(reply)) => Ok(reply),
                (Treatment::Refuse, _) => {
                    Err(ApiError::not_applied(ErrorCode::Unavailable, "not now"))
                }
                (Treatment::Silent, _) => continue,
                _ => Err(ApiError::unknown(ErrorCode::Timeout, "too late")),
            };
            answers.push(
                Response {
                    id: Some(request.id),
                    result,
                }
                .to_json(),
            );
        }
        if matches!(treatment, Treatment::Reversed) {
            answers.reverse();
        }
        if decoded.batch && !answers.is_empty() {
            self.to_client.push_back(format!("[{}]", answers.join(",")));
        } else {
            self.to_client.extend(answers);
        }
    }

    fn happen(&mut self, event: Event) {
        let write = Op::Set {
            key: "k".to_owned(),
            value: "v".into(),
        };
        let read = Op::Get {
            key: "k".to_owned(),
        };
        match event {
            Event::Write => self.submit(vec![write]),
            Event::Read => self.submit(vec![read]),
            Event::Status => self.submit(vec![Op::Status]),
            Event::Batch(reads) => {
                let mut ops = vec![write.clone(), write];
                ops.extend(vec![read; reads]);
                self.submit(ops);
            }
            Event::Connected => {
                if matches!(self.rig.session.state(), ConnState::Connecting { .. }) {
                    self.connected = true;
                    self.rig.with(Session::connected);
                }
            }
            Event::Live => {
                self.become_live();
                return;
            }
            Event::Serve(treatment) => self.serve(treatment),
            Event::Deliver => {
                if let Some(frame) = self.to_client.pop_front() {
                    self.rig
                        .with(|session, now_ms| session.received(&frame, now_ms));
                }
            }
            Event::Break(taken) => {
                for _ in 0..taken {
                    self.serve(Treatment::Good);
                }
                self.cut();
                self.rig.lose();
            }
            Event::TakeOver => {
                if self.connected {
                    self.cut();
                    self.rig
                        .with(|session, now_ms| session.disconnected(Some(4000), "", now_ms));
                }
            }
            Event::Forget => {
                // It is forgotten while nobody uses it: a server closes the connection of a session
                // that it forgets.
                self.cut();
                self.rig.lose();
                self.server.session = None;
            }
            Event::Pass(ms) => self.rig.pass(ms),
            Event::Pong => self.rig.with(Session::heard),
            Event::Close => self.rig.with(|session, _| session.close()),
            Event::Reopen => self.rig.with(Session::reopen),
        }
        self.settle();
    }

    fn become_live(&mut self) {
        for _ in 0..1000 {
            if matches!(self.rig.session.state(), ConnState::Live { .. }) {
                return;
            }
            self.happen(Event::Reopen);
            self.happen(Event::Connected);
            if self.to_server.is_empty() && self.to_client.is_empty() {
                self.happen(Event::Pass(50)); // until it says hello again, or gives up the silence
            }
            self.happen(Event::Serve(Treatment::Good));
            self.happen(Event::Deliver);
        }
        panic!("does not become live: {:?}", self.rig.session.state());
    }

    /// Everything works from here on, until nothing is unanswered.
    fn heal(&mut self) {
        self.happen(Event::Reopen);
        for _ in 0..10_000 {
            if self.rig.session.unanswered() == 0 {
                return;
            }
            self.happen(Event::Connected);
            if self.to_server.is_empty() && self.to_client.is_empty() {
                self.happen(Event::Pass(50));
            }
            self.happen(Event::Serve(Treatment::Good));
            self.happen(Event::Deliver);
        }
        panic!("does not come to rest: {:?}", self.rig.session.state());
    }

    fn balance(&self) {
        assert_eq!(
            self.submitted.keys().collect::<Vec<_>>(),
            self.completed.keys().collect::<Vec<_>>(),
            "each completes exactly once"
        );
        for (id, result) in &self.completed {
            let is_write = matches!(self.submitted[id], Op::Set { .. });
            let applied = self.server.applied.get(id).copied().unwrap_or(0);
            assert!(applied <= 1, "{id} was applied {applied} times");
            match result {
                Ok(_) => assert_eq!(applied == 1, is_write, "{id}: {result:?}"),
                Err(error) if error.outcome == Outcome::NotApplied => {
                    assert_eq!(applied, 0, "{id}: {error:?}");
                }
                Err(error) => assert!(
                    is_write || error.code == ErrorCode::Timeout,
                    "{id}: {error:?}"
                ),
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn every_request_ends_once_and_no_write_is_applied_twice(
        says_opened: bool,
        events in vec(event(), 0..120),
    ) {
        let mut world = World::new(says_opened);
        for event in events {
            world.happen(event);
        }
        world.heal();
        world.balance();
    }

    /// A server that never forgets and never refuses: nothing is left unknown, whatever the network
    /// does.
    #[test]
    fn a_network_that_breaks_is_not_noticed(breaks in vec((0..12usize, 0..4usize), 0..12)) {
        let mut world = World::new(true);
        for (steps, taken) in breaks {
            for _ in 0..4 {
                world.happen(Event::Write);
            }
            world.happen(Event::Reopen);
            world.happen(Event::Connected);
            for _ in 0..steps {
                world.happen(Event::Serve(Treatment::Reversed));
                world.happen(Event::Deliver);
            }
            world.happen(Event::Break(taken));
        }
        world.heal();
        world.balance();
        prop_assert!(world.completed.values().all(Result::is_ok), "{:?}", world.completed);
    }

    #[test]
    fn nothing_that_a_server_sends_is_a_panic(
        frames in vec(prop_oneof![
            any::<String>(),
            "\\[?\\{\"id\":[0-9]{1,2},\"(value|error|revision|resumed)\":(null|[0-9]|\"x\")\\}\\]?",
        ], 0..20)
    ) {
        let mut rig = Rig::new(config());
        for (index, frame) in frames.iter().enumerate() {
            let _ = rig.session.submit(Op::Status, rig.now_ms);
            if index % 3 == 1 {
                rig.with(Session::connected);
            }
            rig.with(|session, now_ms| session.received(frame, now_ms));
            rig.pass(100);
        }
        rig.with(|session, _| session.close());
        prop_assert_eq!(rig.session.unanswered(), 0);
    }
}
