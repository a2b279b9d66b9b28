//! What is done to links and hosts, and how it is undone.

use std::fmt;

/// A host, by its name or by what it is at the moment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    FrontEnd,
    Node(usize),
    /// A member of the current view, from the head on; the last one where there are fewer.
    Place(usize),
    Tail,
    Client(usize),
}

/// One fault. All are undone after their time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// What is sent, either way, is lost. What was lost is never sent again by this network: a connection that lost
    /// anything is dead from then on, and nobody is told.
    Cut(Who, Who),
    /// The same from the first to the second alone.
    OneWay(Who, Who),
    /// What is sent waits, either way, until the fault is over.
    Hold(Who, Who),
    /// Every link between hosts holds.
    HoldAll,
    /// So many of ten thousand messages are lost, with what is on its way.
    Lossy(Who, Who, u32),
    /// Everything takes so many milliseconds.
    Slow(Who, Who, u64),
    /// Cut from all others.
    Isolate(Who),
    /// The process is gone; its sockets are closed. Started again when the fault is over.
    Crash(Who),
    /// The same, and nobody hears of it until the fault is over.
    PowerCut(Who),
    /// Asked to stop, and started again.
    Stop(Who),
    /// Not there from the beginning; started when the fault is over.
    Late(usize),
}

/// A fault, when, and for how long, in milliseconds since the load began.
#[derive(Clone, Debug)]
pub struct Timed {
    pub at: u64,
    pub lasts: u64,
    pub fault: Fault,
}

impl Fault {
    /// For the figures.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Cut(..) => "cut",
            Fault::OneWay(..) => "cut one way",
            Fault::Hold(..) => "hold",
            Fault::HoldAll => "hold everything",
            Fault::Lossy(..) => "lossy",
            Fault::Slow(..) => "slow",
            Fault::Isolate(_) => "isolate",
            Fault::Crash(Who::FrontEnd) => "crash of the front-end",
            Fault::Crash(Who::Client(_)) => "crash of a client",
            Fault::Crash(_) => "crash of a node",
            Fault::PowerCut(Who::FrontEnd) => "power cut of the front-end",
            Fault::PowerCut(_) => "power cut of a node",
            Fault::Stop(Who::FrontEnd) => "stop of the front-end",
            Fault::Stop(_) => "leave of a node",
            Fault::Late(_) => "late node",
        }
    }
}

impl fmt::Display for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} for {} ms", self.fault, self.lasts)
    }
}
