//! What a request takes, and how the chain takes it.

use kvservice_shared::api::Op;
use kvservice_shared::chain::{ChainOp, ChainRequest, Write};
use kvservice_shared::ids::{RequestId, SessionSeq};
use kvservice_shared::limits;

/// What a request holds while it is unanswered, in bytes, about.
pub(super) fn op_bytes(op: &Op) -> usize {
    const OVERHEAD: usize = 256;
    OVERHEAD
        + match op {
            Op::Get { key } | Op::Delete { key } => key.len(),
            Op::Set { key, value } => key.len() + value.0.len(),
            Op::TestSet { key, test, value } => {
                key.len() + value.0.len() + test.as_ref().map_or(0, |test| test.0.len())
            }
            Op::List { prefix, after, .. } => prefix.len() + after.len(),
            Op::Status | Op::Hello { .. } => 0,
        }
}

/// The request as the chain takes it.
pub(super) fn chain_op(op: Op, session: Option<SessionSeq>, request: RequestId) -> ChainOp {
    let write = match op {
        Op::Get { key } => return ChainOp::Get { key },
        Op::List {
            prefix,
            after,
            limit,
        } => {
            let limit = limit.clamp(1, limits::LIST_ENTRIES_MAX);
            return ChainOp::List {
                prefix,
                after,
                limit,
            };
        }
        Op::Set { key, value } => Write::Set { key, value },
        Op::TestSet { key, test, value } => Write::TestSet { key, test, value },
        Op::Delete { key } => Write::Delete { key },
        Op::Status | Op::Hello { .. } => unreachable!("answered before"),
    };
    let Some(session) = session else {
        unreachable!("writes are given a session")
    };
    ChainOp::Write {
        session,
        request,
        write,
    }
}

/// What a request takes in a frame, in bytes, about.
#[must_use]
pub fn request_bytes(request: &ChainRequest) -> usize {
    const OVERHEAD: usize = 48;
    OVERHEAD
        + match &request.op {
            ChainOp::Open { .. }
            | ChainOp::DumpStart
            | ChainOp::DumpNext { .. }
            | ChainOp::DumpEnd { .. } => 0,
            ChainOp::Get { key } => key.len(),
            ChainOp::List { prefix, after, .. } => prefix.len() + after.len(),
            ChainOp::Write { write, .. } => match write {
                Write::Set { key, value } => key.len() + value.0.len(),
                Write::TestSet { key, test, value } => {
                    key.len() + value.0.len() + test.as_ref().map_or(0, |test| test.0.len())
                }
                Write::Delete { key } => key.len(),
            },
        }
}
