//! A client without a session, as a short script would be: it sends a few requests, and hears their answers. When its
//! connection breaks, what was unanswered is unknown.

use super::record::{Asked, Record};
use super::work::{Common, Wish, Wishes};
use crate::raw::{Heard, Raw};
use kvservice_client::{Error, Op, Response};
use kvservice_shared::api::json::decode_responses;
use kvservice_shared::api::{Request, WS_PATH};
use kvservice_shared::ids::RequestId;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Requests that are sent before an answer is heard.
const BURST_MAX: u64 = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The server answers within its own time-out, of 5 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(7);
const RECONNECT_PAUSE: Duration = Duration::from_millis(300);

/// Works until all are told to stop.
pub async fn run(common: Common, server: SocketAddr, mut wishes: Wishes) {
    while !common.stopped() {
        let connecting = Raw::try_connect(server, WS_PATH);
        if let Ok(Ok(raw)) = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            connected(&common, raw, &mut wishes).await;
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

async fn connected(common: &Common, mut raw: Raw, wishes: &mut Wishes) {
    let mut last_id = 0;
    while !common.stopped() {
        let mut open = HashMap::new();
        for _ in 0..=wishes.random().below(BURST_MAX) {
            common.pause(wishes.random()).await;
            last_id += 1;
            send(common, &mut raw, wishes, last_id, &mut open).await;
        }
        if hear(&common.record, &mut raw, &mut open).await.is_none() {
            // What was not answered is unknown.
            return;
        }
    }
}

type Open = HashMap<RequestId, (Asked, Op)>;

async fn send(common: &Common, raw: &mut Raw, wishes: &mut Wishes, id: u64, open: &mut Open) {
    let op = match wishes.next(common.record.elapsed()) {
        Wish::One(op) => op,
        Wish::ReadThenSwap(key) => Op::Get { key },
    };
    let id = RequestId(id);
    open.insert(id, (common.record.ask(wishes.process(), &op), op.clone()));
    raw.say(Request { id, op }.to_json()).await;
}

/// Until all is answered; `None` where the connection does not give that.
async fn hear(record: &Record, raw: &mut Raw, open: &mut Open) -> Option<()> {
    while !open.is_empty() {
        let heard = tokio::time::timeout(ANSWER_TIMEOUT, raw.hear()).await;
        let Ok(Heard::Text(text)) = heard else {
            return None;
        };
        let kind_of = |id: RequestId| open.get(&id).map(|(_, op)| op.kind());
        match decode_responses(&text, kind_of) {
            Ok(responses) => {
                for response in responses {
                    answered(record, response, open);
                }
            }
            Err(error) => {
                record.wrong(format!("{error}: {text}"));
                return None;
            }
        }
    }
    Some(())
}

fn answered(record: &Record, response: Response, open: &mut Open) {
    let asked = response.id.and_then(|id| open.remove(&id));
    match asked {
        Some((asked, _)) => record.told(asked, &response.result.map_err(Error::from)),
        None => record.wrong(format!("an answer to nothing: {response:?}")),
    }
}
