//! What happens to a request between two system calls, each as a function of its own that is not inlined: so a
//! profiler that counts instructions names it.

use bytes::Bytes;
use kvservice_backend::chain::{Event, LinkId, Message, Output, Replica};
use kvservice_backend::storage::MemoryState;
use kvservice_server::gateway::{Gateway, Input};
use kvservice_shared::api::json::{decode_requests, responses_to_json};
use kvservice_shared::api::{Request, Response};
use kvservice_shared::chain::{Answer, ChainRequest, Incarnation};
use kvservice_shared::codec::ChainMessage;
use kvservice_shared::ids::{ConnId, Epoch, Seq};

/// Front-end: a client's frame becomes requests.
#[inline(never)]
pub fn stage_parse(frame: &str) -> Vec<Request> {
    let decoded = decode_requests(frame);
    let requests = decoded.requests.into_iter();
    requests
        .map(|request| request.expect("the frame is well-formed"))
        .collect()
}

/// Front-end: requests of several connections become one message to the head.
#[inline(never)]
pub fn stage_admit(
    gateway: &mut Gateway,
    requests: Vec<(ConnId, Vec<Request>)>,
) -> Vec<ChainRequest> {
    for (conn, requests) in requests {
        gateway.step(0, Input::Requests(conn, requests));
    }
    gateway.flush().requests
}

/// A message becomes a frame between processes.
#[inline(never)]
pub fn stage_encode<M: ChainMessage>(message: &M) -> Bytes {
    message.encode()
}

/// A frame between processes becomes a message.
#[inline(never)]
pub fn stage_decode<M: ChainMessage>(frame: Bytes) -> M {
    M::decode(frame).expect("it was encoded a moment ago")
}

/// Head: requests are put in order, or answered.
#[inline(never)]
pub fn stage_order(
    head: &mut Replica<MemoryState>,
    message: kvservice_shared::chain::ToNode,
) -> Output {
    head.step(0, Event::FrontEnd(message));
    head.flush()
}

/// Middle and tail: a batch is taken in, the committed one before it is applied.
#[inline(never)]
pub fn stage_follow(
    node: &mut Replica<MemoryState>,
    from: Incarnation,
    message: kvservice_shared::chain::Downstream,
) -> Output {
    node.step(
        0,
        Event::FromPredecessor {
            link: LinkId(1),
            from,
            message,
        },
    );
    node.flush()
}

/// A node: its disk says how far it is.
#[inline(never)]
pub fn stage_durable(node: &mut Replica<MemoryState>, durable: Seq) -> Output {
    node.step(0, Event::Durable(durable));
    node.flush()
}

/// Head and middle: what is stable behind; the head applies and answers.
#[inline(never)]
pub fn stage_commit(
    node: &mut Replica<MemoryState>,
    from: Incarnation,
    message: kvservice_shared::chain::Upstream,
) -> Output {
    node.step(0, Event::FromSuccessor(from, message));
    node.flush()
}

/// Front-end: answers find their clients.
#[inline(never)]
pub fn stage_answer(
    gateway: &mut Gateway,
    epoch: Epoch,
    answers: Vec<Answer>,
) -> Vec<(ConnId, Response)> {
    gateway.step(0, Input::Answers(epoch, answers));
    gateway.flush().responses
}

/// Front-end: responses become a client's frame.
#[inline(never)]
pub fn stage_print(responses: &[Response]) -> String {
    responses_to_json(responses)
}

/// Messages, without what else an output may hold.
pub fn messages(output: Output) -> Vec<Message> {
    if let Some(halt) = output.halt {
        panic!("a node stops: {halt:?}");
    }
    output.messages
}
