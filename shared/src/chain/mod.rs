//! What front-end and nodes say to each other: views, pointer tables and messages. `docs/protocol.md` says
//! which message may be sent when; here is only what they hold. [`crate::codec`] puts them into frames.

mod messages;
mod requests;
mod snapshot;
mod view;

pub use messages::{
    Boundaries, Downstream, FromNode, LinkHello, LinkReply, Register, Report, Resume, ToNode,
    Unfinished, Upstream,
};
pub use messages::{LearnerReport, Refusal, Run};
pub use requests::{Answer, AnswerBody, ChainOp, ChainRequest, OpenToken, Write};
pub use snapshot::{OutcomeRecord, SessionRecord, SnapshotPart, StoredOutcome};
pub use view::{Incarnation, Member, PointerTable, Settings, View};
