//! What must hold at the end, and the figures.

use super::cluster::Cluster;
use super::direct;
use super::record::{Record, is_counter};
use super::schedule::Schedule;
use super::session::ask;
use super::work::count_of;
use crate::rounds::panic_in;
use kvservice_client::{Client, Op, Reply};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// The last reads' process in the history.
const LAST_READER: u64 = 1_000_000;
const PAGE: u32 = 1000;

/// Everybody holds the same, every key is read, the counters are right, and all stop when told.
///
/// # Errors
/// What is wrong.
pub async fn last_look(
    cluster: &mut Cluster,
    schedule: &mut Schedule,
    record: &Arc<Record>,
) -> Result<(), String> {
    let client = direct(cluster);
    let keys = read_all(&client, record).await?;
    check_counters(&client, record, &keys).await?;
    client.close().await;
    schedule.settle(cluster).await?;
    schedule.say(&format!("{} keys, the same on all nodes", keys.len()));
    stop(cluster).await
}

async fn read_all(client: &Client, record: &Arc<Record>) -> Result<Vec<String>, String> {
    let mut keys: Vec<String> = Vec::new();
    loop {
        let list = Op::List {
            prefix: String::new(),
            after: keys.last().cloned().unwrap_or_default(),
            limit: PAGE,
        };
        let page = ask(record, client, LAST_READER, list).await;
        let Reply::List { entries, more } =
            page.map_err(|error| format!("the last list: {error}"))?
        else {
            return Err("the last list is none".to_owned());
        };
        keys.extend(entries.into_iter().map(|entry| entry.key));
        if !more {
            return Ok(keys);
        }
    }
}

/// A counter counts every acknowledged increment once, and perhaps those of which nobody knows.
async fn check_counters(
    client: &Client,
    record: &Arc<Record>,
    keys: &[String],
) -> Result<(), String> {
    let counted = record.counters();
    if let Some(key) = keys
        .iter()
        .find(|key| is_counter(key) && !counted.contains_key(*key))
    {
        return Err(format!("nobody counted with {key}"));
    }
    for (key, counter) in counted {
        let get = Op::Get { key: key.clone() };
        let found = ask(record, client, LAST_READER, get).await;
        let Ok(Reply::Get { value, .. }) = found else {
            return Err(format!("{key} cannot be read: {found:?}"));
        };
        let count = count_of(value.as_ref());
        let most = counter.acknowledged + counter.unknown;
        if !(counter.acknowledged..=most).contains(&count) {
            return Err(format!("{key} is {count}: {counter:?}"));
        }
    }
    Ok(())
}

/// Nodes first: stopping everything does not shrink the chain.
async fn stop(cluster: &mut Cluster) -> Result<(), String> {
    let mut places = cluster.places();
    places.reverse();
    for &place in &places {
        cluster.terminate(place);
    }
    for place in places {
        cluster.ends(place).await?;
    }
    Ok(())
}

/// What is wrong with the history, and in the logs.
#[must_use]
pub fn verdict(record: &Record, dir: &Path) -> Vec<String> {
    let mut wrong = record.wrongs();
    wrong.extend(panic_in(dir));
    match record.finish() {
        Ok(history) => {
            let began = Instant::now();
            match kvservice_history::check(&history) {
                Ok(checked) => println!(
                    "linearizable: {} calls, {} of them with unknown outcome, on {} keys (checked in {:.1} s)",
                    checked.calls,
                    checked.unknown,
                    checked.keys,
                    began.elapsed().as_secs_f64()
                ),
                Err(refused) => wrong.push(refused.to_string()),
            }
        }
        Err(error) => wrong.push(format!("the history cannot be written: {error}")),
    }
    wrong
}

/// What clients and faults came to.
pub fn print_figures(record: &Record, schedule: &Schedule) {
    let figures = record.figures();
    println!(
        "{} calls, {} acknowledged writes, {} unknown, {} refused",
        figures.calls, figures.writes, figures.unknown, figures.refused
    );
    for (kind, count) in &figures.errors {
        println!("  {count:6}  errors: {kind}");
    }
    for (key, counter) in record.counters() {
        println!(
            "  {key} was counted up {} times, and {} times perhaps",
            counter.acknowledged, counter.unknown
        );
    }
    println!(
        "longest time without an acknowledged write: {:.1} s, from {:.3} s on; slowest return of all nodes once the \
         faults were over: {:.1} s",
        figures.longest_gap.as_secs_f64(),
        figures.gap_began.as_secs_f64(),
        schedule.slowest_heal.as_secs_f64()
    );
    println!("faults:");
    for (kind, count) in &schedule.counts {
        println!("  {count:6}  {kind}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It can fail: a read that shows what was overwritten before it was asked.
    #[test]
    fn a_stale_read_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record::new(&dir.path().join("history.jsonl"), Instant::now());
        let record = Arc::new(record.unwrap());
        let key = || "a".to_owned();
        let tell = |op: Op, reply: Reply| {
            // So that one call is before the next, by a clock that counts microseconds.
            std::thread::sleep(std::time::Duration::from_micros(10));
            record.told(record.ask(0, &op), &Ok(reply));
        };
        for (value, revision) in [("1", 1), ("2", 2)] {
            let (key, value, revision) = (key(), value.into(), kvservice_client::Seq(revision));
            let op = Op::Set { key, value };
            let value = "".into();
            tell(op, Reply::Set { value, revision });
        }
        let value = Some("1".into());
        let revision = kvservice_client::Seq(1);
        tell(Op::Get { key: key() }, Reply::Get { value, revision });
        let wrong = verdict(&record, dir.path());
        assert!(
            wrong.len() == 1 && wrong[0].contains("not linearizable"),
            "{wrong:?}"
        );
    }
}
