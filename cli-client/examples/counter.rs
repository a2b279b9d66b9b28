//! Counts in one key, exactly, however often the connection breaks: `cargo run --example counter`.
//!
//! Start a server first (`kvservice-server single --listen 127.0.0.1:7400`), and stop and start it
//! while this runs.

use kvservice_client::{Client, Config, Connection, Op, Swap, Value};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:7400".to_owned());

    // Connect. `start` keeps trying in the background; `connect` would wait for the first
    // connection.
    let client = Client::start(Config::new(address.parse()?));

    // Reconnect: the client does so by itself, and says how it stands.
    let mut state = client.watch();
    tokio::spawn(async move {
        while state.changed().await.is_ok() {
            match &*state.borrow_and_update() {
                Connection::Live { server, .. } => println!("connected to {server}"),
                Connection::Waiting {
                    reason, attempt, ..
                } => {
                    println!("no connection: {reason}; attempt {attempt} follows");
                }
                _ => {}
            }
        }
    });

    // Pipeline: one frame, many requests, the answers in their order.
    let keys = ["red", "green", "blue"];
    let ops = keys.map(|key| Op::Set {
        key: format!("color:{key}"),
        value: "1".into(),
    });
    for answer in client.pipeline(ops.into()).await? {
        answer?;
    }

    // Call. Should the connection break under one of these writes, it is sent again under the same
    // id: no step of the count is lost, and none is counted twice.
    for _ in 0..100 {
        let mut held = client.get("count").await?.map(|found| found.value);
        loop {
            let text = held.as_ref().and_then(Value::as_str).unwrap_or("0");
            let next = (text.parse::<u64>()? + 1).to_string();
            match client.test_set("count", held, next).await? {
                Swap::Swapped(_) => break,
                // Somebody else counts too.
                Swap::Held(found) => held = found.map(|found| found.value),
            }
        }
    }
    if let Some(found) = client.get("count").await? {
        println!("count is {:?} at revision {}", found.value, found.revision);
    }

    client.close().await;
    Ok(())
}
