//! From the head's words to the client's.

use crate::edge::response_bytes;
use kvservice_shared::api::{ApiError, ErrorCode, Outcome, Reply, Response, Value};
use kvservice_shared::chain::{AnswerBody, ChainOp, Write};
use kvservice_shared::ids::RequestId;

/// Bytes of answers that may wait for one connection.
const CONN_QUEUED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of answers that wait for a connection now and then although its client takes them.
const FEW_QUEUED_BYTES: usize = 64 * 1024;
/// Bytes of answers that may wait in all connections together, before those for whom more than a few wait get
/// no more.
const ALL_QUEUED_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of answers that may wait in all connections together, before nobody gets more.
const ALL_QUEUED_BYTES_LIMIT: usize = 512 * 1024 * 1024;

/// The response to a request, given the head's answer.
pub(super) fn response(id: RequestId, op: &ChainOp, body: AnswerBody) -> Response {
    Response {
        id: Some(id),
        result: reply(op, body),
    }
}

/// Lets go of what reads brought for clients that do not take their answers: they are told `busy`. Whoever takes
/// them is served although others do not.
///
/// `own` and `all` are the bytes of answers that wait for this connection, and for all together, before these.
pub fn shed(responses: &mut [Response], mut own: usize, mut all: usize) {
    for response in responses {
        let full = own > CONN_QUEUED_BYTES_MAX
            || all > ALL_QUEUED_BYTES_MAX && own > FEW_QUEUED_BYTES
            || all > ALL_QUEUED_BYTES_LIMIT;
        if full && matches!(response.result, Ok(Reply::Get { .. } | Reply::List { .. })) {
            response.result = Err(error(
                ErrorCode::Busy,
                "this connection does not take its answers fast enough: the server holds as many as it may",
                Outcome::NotApplied,
            ));
        }
        let bytes = response_bytes(response);
        own += bytes;
        all += bytes;
    }
}

fn reply(op: &ChainOp, body: AnswerBody) -> Result<Reply, ApiError> {
    Ok(match (body, op) {
        (AnswerBody::Value { value, revision }, _) => Reply::Get { value, revision },
        (AnswerBody::Set { revision }, op) => Reply::Set {
            value: written(op)?,
            revision,
        },
        (AnswerBody::Swapped { revision }, op) => Reply::TestSet {
            swapped: true,
            value: Some(written(op)?),
            revision,
        },
        (AnswerBody::NotSwapped { found, revision }, _) => Reply::TestSet {
            swapped: false,
            value: found,
            revision,
        },
        (AnswerBody::Deleted { revision }, _) => Reply::Delete {
            deleted: revision.is_some(),
            revision: revision.unwrap_or_default(),
        },
        (AnswerBody::List { entries, more }, _) => Reply::List { entries, more },
        (AnswerBody::Forgotten, _) => {
            return Err(error(
                ErrorCode::TooOld,
                "this id is at or below the highest whose outcome was forgotten: whether it was applied is \
                 not known any more",
                Outcome::Unknown,
            ));
        }
        (AnswerBody::NoSession, _) => {
            return Err(error(
                ErrorCode::TooOld,
                "the session is not known any more: this attempt was not applied, of earlier ones nothing \
                 is known",
                Outcome::Unknown,
            ));
        }
        (AnswerBody::IdReused, _) => {
            return Err(error(
                ErrorCode::BadRequest,
                "this id was used before in this session, for another request",
                Outcome::NotApplied,
            ));
        }
        (AnswerBody::TooFewReplicas { members, wanted }, _) => {
            return Err(error(
                ErrorCode::Unavailable,
                too_few(members, wanted),
                Outcome::NotApplied,
            ));
        }
        (
            AnswerBody::Opened { .. } | AnswerBody::DumpPage { .. } | AnswerBody::NoDump { .. },
            _,
        ) => return Err(bug()),
    })
}

/// What a write wrote: the head does not send it back.
fn written(op: &ChainOp) -> Result<Value, ApiError> {
    match op {
        ChainOp::Write {
            write: Write::Set { value, .. } | Write::TestSet { value, .. },
            ..
        } => Ok(value.clone()),
        _ => Err(bug()),
    }
}

pub(super) fn too_few(members: u32, wanted: u32) -> String {
    format!("{members} of at least {wanted} replicas (--min-replicas): writes wait for more nodes")
}

fn bug() -> ApiError {
    error(
        ErrorCode::Internal,
        "the head's answer does not fit the request",
        Outcome::Unknown,
    )
}

fn error(code: ErrorCode, message: impl Into<String>, outcome: Outcome) -> ApiError {
    ApiError {
        code,
        message: message.into(),
        outcome,
    }
}
