//! The replica: a pure state machine.
//!
//! [`Replica::step`] takes an [`Event`]; [`Replica::flush`] gives what is to be done because of all events
//! since the last one, as an [`Output`]. The replica knows no socket, file, clock, thread or random source:
//! time arrives with each event, and the same events give the same outputs.
//!
//! | file | its purpose |
//! | --- | --- |
//! | `replica` | the events, and what is durable, stable and committed |
//! | `views` | who this node is: what it tells the front-end, and what a view makes of it |
//! | `upstream` | the link from the predecessor: handshake, entries, snapshot parts (learning) |
//! | `downstream` | the link to the successor: handshake, forwarding |
//! | `teach` | a tail and its learner: snapshot, catching up, joint, ready |
//! | `order` | the head: ordering, exactly-once, answers, reads |
//! | `pending` | what a head knows beyond the applied state |
//! | `dump` | all keys at one point, page by page, while the state goes on |
//! | `log`, `data`, `sessions` | what is kept |
//! | `save`, `restore` | checkpoints, and what a restarted node makes of one |
//!
//! The rules and their reasons are in `docs/protocol.md`; a `†` there is an assertion or a test here.

mod data;
mod downstream;
mod dump;
mod effects;
mod log;
mod order;
mod pending;
mod replica;
mod restore;
mod save;
mod sessions;
mod teach;
mod upstream;
mod views;

pub use effects::{Event, Halt, JournalOp, LinkId, Message, Meta, Output};
pub use log::{Common, CutError, Log};
pub use replica::{Config, Replica};
pub use restore::{Loading, RestoreError, Restored};
pub use upstream::part_bytes;
