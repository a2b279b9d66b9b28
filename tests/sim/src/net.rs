//! Connections between simulated processes: whole frames, in order, each way; they stall, break, and lose what was
//! in flight.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Where a process runs. At most one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The front-end.
    FrontEnd,
    /// A chain node, by its index.
    Node(usize),
}

/// One run of the process at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    pub place: Place,
    /// Counts the runs, from 1.
    pub life: u32,
}

/// What travels.
#[derive(Clone, Debug)]
pub enum Frame {
    /// The WebSocket handshake of a node that dials the front-end, and the answer to it.
    Greeting,
    Greeted,
    /// A frame of the chain protocol, encoded.
    Data(Bytes),
    /// The other end closed.
    Fin,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A node dialled the front-end.
    FrontEnd,
    /// A node dialled another.
    Peer,
}

/// From the dialler, or to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Forth,
    Back,
}

impl Way {
    pub fn reversed(self) -> Way {
        match self {
            Way::Forth => Way::Back,
            Way::Back => Way::Forth,
        }
    }
}

/// One end of a connection.
#[derive(Clone, Debug)]
pub struct End {
    pub process: Process,
    pub open: bool,
    /// Its handshake is done: messages flow.
    pub up: bool,
    /// Frames on their way to it.
    inbox: VecDeque<Frame>,
}

impl End {
    fn new(process: Process) -> End {
        End {
            process,
            open: true,
            up: false,
            inbox: VecDeque::new(),
        }
    }
}

/// A connection.
#[derive(Clone, Debug)]
pub struct Conn {
    pub purpose: Purpose,
    pub dialler: End,
    pub acceptor: End,
}

impl Conn {
    /// The end that frames of this way come from.
    pub fn from(&self, way: Way) -> &End {
        match way {
            Way::Forth => &self.dialler,
            Way::Back => &self.acceptor,
        }
    }

    /// The end that frames of this way go to.
    pub fn to(&self, way: Way) -> &End {
        self.from(way.reversed())
    }

    pub fn to_mut(&mut self, way: Way) -> &mut End {
        match way {
            Way::Forth => &mut self.acceptor,
            Way::Back => &mut self.dialler,
        }
    }
}

/// All connections.
#[derive(Debug, Default)]
pub struct Net {
    conns: BTreeMap<u64, Conn>,
    last: u64,
    stalled: BTreeSet<(Place, Place)>,
    /// Connections that carry nothing any more, this way.
    dead: BTreeSet<(u64, Way)>,
}

impl Net {
    /// A new connection, with the dialler's first frame on it.
    pub fn open(&mut self, purpose: Purpose, from: Process, to: Process, first: Frame) -> u64 {
        self.last += 1;
        let mut conn = Conn {
            purpose,
            dialler: End::new(from),
            acceptor: End::new(to),
        };
        conn.acceptor.inbox.push_back(first);
        self.conns.insert(self.last, conn);
        self.last
    }

    pub fn get(&self, id: u64) -> Option<&Conn> {
        self.conns.get(&id)
    }

    pub fn get_mut(&mut self, id: u64) -> Option<&mut Conn> {
        self.conns.get_mut(&id)
    }

    /// Sends a frame, if both ends are still open.
    pub fn send(&mut self, id: u64, way: Way, frame: Frame) {
        if let Some(conn) = self.conns.get_mut(&id)
            && conn.from(way).open
            && conn.to(way).open
        {
            conn.to_mut(way).inbox.push_back(frame);
        }
    }

    /// Closes the end that sends this way. The first `keep` frames that it sent still arrive, and then the close.
    pub fn close(&mut self, id: u64, way: Way, keep: usize) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let this = conn.to_mut(way.reversed());
        if !this.open {
            return;
        }
        this.open = false;
        this.inbox.clear();
        let other = conn.to_mut(way);
        if other.open {
            other.inbox.truncate(keep);
            other.inbox.push_back(Frame::Fin);
        } else {
            self.conns.remove(&id);
        }
    }

    /// Breaks a connection: what was in flight is lost, both ends see the close.
    pub fn break_off(&mut self, id: u64) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        for end in [&mut conn.dialler, &mut conn.acceptor] {
            end.inbox.clear();
            end.inbox.push_back(Frame::Fin);
        }
    }

    /// Takes the next frame of a way. A close takes the receiving end with it.
    pub fn take(&mut self, id: u64, way: Way) -> Option<Frame> {
        let conn = self.conns.get_mut(&id)?;
        let frame = conn.to_mut(way).inbox.pop_front()?;
        if matches!(frame, Frame::Fin) {
            conn.to_mut(way).open = false;
            conn.to_mut(way).inbox.clear();
            if !conn.from(way).open {
                self.conns.remove(&id);
            }
        }
        Some(frame)
    }

    /// Connections and ways with something to deliver on a link that does not stall.
    pub fn waiting(&self) -> impl Iterator<Item = (u64, Way, Process)> {
        self.conns.iter().flat_map(move |(id, conn)| {
            [Way::Forth, Way::Back].into_iter().filter_map(move |way| {
                let (from, to) = (conn.from(way).process, conn.to(way).process);
                let stalled = self.stalled.contains(&(from.place, to.place));
                let moves = !stalled && !self.dead.contains(&(*id, way));
                let ready = conn.to(way).open && !conn.to(way).inbox.is_empty() && moves;
                ready.then_some((*id, way, to))
            })
        })
    }

    /// Frames on their way from one place to another, over all their connections.
    pub fn between(&self, from: Place, to: Place) -> Vec<(u64, Way)> {
        let mut found = Vec::new();
        for (id, conn) in &self.conns {
            for way in [Way::Forth, Way::Back] {
                if conn.from(way).process.place == from && conn.to(way).process.place == to {
                    found.push((*id, way));
                }
            }
        }
        found
    }

    /// Connections with an end in this process, and the way in which that end sends.
    pub fn of(&self, process: Process) -> Vec<(u64, Way)> {
        let mut found = Vec::new();
        for (id, conn) in &self.conns {
            for way in [Way::Forth, Way::Back] {
                if conn.from(way).process == process && conn.from(way).open {
                    found.push((*id, way));
                }
            }
        }
        found
    }

    /// Frames in flight on a connection, in one way.
    pub fn in_flight(&self, id: u64, way: Way) -> usize {
        self.conns
            .get(&id)
            .map_or(0, |conn| conn.to(way).inbox.len())
    }

    /// From now on nothing gets from one place to the other; what is sent waits.
    pub fn stall(&mut self, from: Place, to: Place) {
        self.stalled.insert((from, to));
    }

    pub fn unstall(&mut self, from: Place, to: Place) {
        self.stalled.remove(&(from, to));
    }

    /// Connections that stand between two places carry nothing from one to the other any more, not even a
    /// close; new ones do.
    pub fn unhook(&mut self, from: Place, to: Place) {
        self.dead.extend(self.between(from, to));
        self.unstall(from, to);
    }

    pub fn is_stalled(&self, from: Place, to: Place) -> bool {
        self.stalled.contains(&(from, to))
    }
}
