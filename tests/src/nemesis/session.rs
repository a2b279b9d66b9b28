//! A client with a session: the browser's own protocol, with its retries; several things at a time.

use super::record::Record;
use super::work::{Common, Wish, Wishes};
use kvservice_client::{Client, Config, Error, Op, Reply};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Things that a client does at a time.
pub const LANES: u64 = 3;
/// A session is ended, and another begun, after at most so long.
const LIFE_MAX_MS: u64 = 30_000;
/// After an error: it would only come again at once.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// Works until all are told to stop, and everything is answered.
pub async fn run(common: Common, config: Config, mut wishes: Wishes) {
    while !common.stopped() {
        let client = Client::start(config.clone());
        let life = Duration::from_millis(1 + wishes.random().below(LIFE_MAX_MS));
        let until = common.record.elapsed() + life;
        let mut lanes = JoinSet::new();
        for _ in 0..LANES {
            let seed = wishes.random().below(u64::MAX);
            let lane = wishes.lane(seed);
            lanes.spawn(work(common.clone(), client.clone(), lane, until));
        }
        // A lane that panics has printed why; the run fails by what is missing in its history.
        while let Some(ended) = lanes.join_next().await {
            if let Err(error) = ended {
                common.record.wrong(format!("a client: {error}"));
            }
        }
        client.close().await;
    }
}

async fn work(common: Common, client: Client, mut wishes: Wishes, until: Duration) {
    let record = &common.record;
    while !common.stopped() && record.elapsed() < until {
        common.pause(wishes.random()).await;
        let answered = match wishes.next(record.elapsed()) {
            Wish::One(op) => ask(record, &client, wishes.process(), op).await.is_ok(),
            Wish::ReadThenSwap(key) => swap(record, &client, &mut wishes, key).await,
        };
        if !answered {
            tokio::time::sleep(REFUSED_PAUSE).await;
        }
    }
}

async fn swap(record: &Arc<Record>, client: &Client, wishes: &mut Wishes, key: String) -> bool {
    let get = Op::Get { key: key.clone() };
    let Ok(found) = ask(record, client, wishes.process(), get).await else {
        return false;
    };
    match wishes.after(key, &found) {
        Some(op) => ask(record, client, wishes.process(), op).await.is_ok(),
        None => false,
    }
}

/// Asks, and writes down what came of it.
///
/// # Errors
/// The client's.
pub async fn ask(
    record: &Arc<Record>,
    client: &Client,
    process: u64,
    op: Op,
) -> Result<Reply, Error> {
    let asked = record.ask(process, &op);
    let outcome = client.call(op).await;
    record.told(asked, &outcome);
    outcome
}
