//! Makes the seeds of the corpora and the data directories. To be run again when a format changes:
//!
//! ```sh
//! cargo run --manifest-path tests/fuzz/Cargo.toml --example seeds
//! ```
//! Seeds are named `seed-…`; what a fuzzer found has a hash for a name, and stays.

mod directories;
mod messages;

use kvservice_server::coordinator::Stored;
use kvservice_server::view_store::ViewStore;
use kvservice_shared::ids::NodeId;
use messages::{cluster, view};
use std::error::Error;
use std::fs;
use std::path::Path;
use uuid::Uuid;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const PROTOCOL: &str = include_str!("../../../../docs/client-protocol.md");

fn main() -> Outcome {
    client_protocol()?;
    text_commands()?;
    messages::chain_messages()?;
    messages::batches()?;
    view_files()?;
    directories::directories()
}

/// Writes the seeds of a target in place of those that it had.
fn write(target: &str, seeds: impl IntoIterator<Item = Vec<u8>>) -> Outcome {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    fs::create_dir_all(&corpus)?;
    for old in fs::read_dir(&corpus)? {
        let old = old?;
        if old.file_name().to_string_lossy().starts_with("seed-") {
            fs::remove_file(old.path())?;
        }
    }
    for (number, seed) in seeds.into_iter().enumerate() {
        fs::write(corpus.join(format!("seed-{number:02}")), seed)?;
    }
    Ok(())
}

/// The examples of the reference, by what their fenced block is marked with.
fn examples(mark: &str) -> Vec<Vec<u8>> {
    let (mut found, mut inside) = (Vec::new(), false);
    for line in PROTOCOL.lines() {
        match line.strip_prefix("```") {
            Some(marks) => inside = marks.starts_with(mark),
            None if inside => found.push(line.as_bytes().to_vec()),
            None => {}
        }
    }
    found
}

fn client_protocol() -> Outcome {
    write("client_frame", examples("json request"))?;
    write("server_frame", examples("json response"))?;
    write("dump_line", examples("json dump"))
}

fn text_commands() -> Outcome {
    let lines = [
        "get(color)",
        "set(color,red)",
        "testset(color,red,blue)",
        "testset(id,,newVal)",
        "delete(color)",
        "list(co)",
        "list()",
        "status",
        "help",
        "exit",
        r#"set("full name","Grace \"Amazing\" Hopper")"#,
        r#" get ( "\u00e4\ud83d\ude00\n\t\\\/" ) "#,
    ];
    write("text_command", lines.map(Vec::from))
}

fn view_files() -> Outcome {
    let dir = std::env::temp_dir().join(format!("kvservice-seeds-{}", std::process::id()));
    let (mut store, _) = ViewStore::open(&dir)?;
    let mut seeds = Vec::new();
    for view in [None, Some(view())] {
        let mut stored = Stored {
            cluster: Some(cluster()),
            term: 1,
            view,
            next_name: 3,
            ..Stored::default()
        };
        let node = NodeId(Uuid::from_u128(1));
        stored.names.insert(node, "n1".to_owned());
        store.save(&stored)?;
        let file = fs::read(dir.join("view.json"))?;
        seeds.extend([0, 1].map(|how: u8| [&[how], &file[..]].concat()));
    }
    drop(store);
    fs::remove_dir_all(dir)?;
    write("view_file", seeds)
}
