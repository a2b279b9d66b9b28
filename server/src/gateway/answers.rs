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
pub(super) fn response(id: RequestId, op: ChainOp, body: AnswerBody) -> Response {
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

fn reply(op: ChainOp, body: AnswerBody) -> Result<Reply, ApiError> {
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
fn written(op: ChainOp) -> Result<Value, ApiError> {
    match op {
        ChainOp::Write {
            write: Write::Set { value, .. } | Write::TestSet { value, .. },
            ..
        } => Ok(value),
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

#[cfg(test)]
mod tests {
    use super::*;
    use kvservice_shared::ids::Seq;

    fn read(bytes: usize) -> Response {
        let value = Some(Value::from(vec![b'v'; bytes]));
        let revision = Seq(1);
        Response {
            id: Some(RequestId(1)),
            result: Ok(Reply::Get { value, revision }),
        }
    }

    fn shed_of(responses: Vec<Response>, own: usize, all: usize) -> Vec<bool> {
        let mut responses = responses;
        shed(&mut responses, own, all);
        let busy = |response: &Response| {
            let error = response.result.as_ref().err();
            error.is_some_and(|e| e.code == ErrorCode::Busy && e.outcome == Outcome::NotApplied)
        };
        responses.iter().map(busy).collect()
    }

    #[test]
    fn a_connection_that_takes_nothing_gets_no_more_reads() {
        assert_eq!(shed_of(vec![read(10)], CONN_QUEUED_BYTES_MAX, 0), [false]);
        assert_eq!(
            shed_of(vec![read(10)], CONN_QUEUED_BYTES_MAX + 1, 0),
            [true]
        );
        // What these bring themselves counts for those after them.
        let many = vec![read(CONN_QUEUED_BYTES_MAX), read(1), read(1)];
        assert_eq!(shed_of(many, 0, 0), [false, true, true]);
    }

    #[test]
    fn whoever_takes_its_answers_is_served_although_others_do_not() {
        let full = ALL_QUEUED_BYTES_MAX + 1;
        assert_eq!(shed_of(vec![read(10)], FEW_QUEUED_BYTES, full), [false]);
        assert_eq!(shed_of(vec![read(10)], FEW_QUEUED_BYTES + 1, full), [true]);
        let over = ALL_QUEUED_BYTES_LIMIT + 1;
        assert_eq!(shed_of(vec![read(10)], 0, over), [true]);
    }

    /// A write was done: its client must hear of it.
    #[test]
    fn answers_to_writes_are_kept() {
        let write = Response {
            id: Some(RequestId(2)),
            result: Ok(Reply::Delete {
                deleted: true,
                revision: Seq(9),
            }),
        };
        let far = 2 * ALL_QUEUED_BYTES_LIMIT;
        assert_eq!(shed_of(vec![write], far, far), [false]);
    }

    /// A head that answers another question than was asked has a bug; the client is not told something else.
    #[test]
    fn an_answer_of_another_kind_is_an_internal_error() {
        let get = ChainOp::Get { key: "a".into() };
        let answered = response(
            RequestId(3),
            get,
            AnswerBody::NoDump {
                reason: String::new(),
            },
        );
        let error = answered.result.expect_err("no answer to a get");
        assert_eq!(
            (error.code, error.outcome),
            (ErrorCode::Internal, Outcome::Unknown)
        );
    }
}
