//! What an embedded engine would do with a node's load: `cargo run --release -- ENGINE DIR [MILLIONS]`, where ENGINE is
//! `memory`, `fjall` or `redb`. One process an engine, so that memory and CPU are its own.
//!
//! - *behind the log*: the chain's log makes entries durable, the engine takes them off the path of the acknowledgement,
//!   in batches, and is made durable once in a while. This is what `State` asks for.
//! - *as the log*: every batch is durable in the engine when it returns.

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use kvservice_backend::storage::{MemoryState, State};
use kvservice_shared::ids::Seq;
use redb::{Durability, ReadableDatabase, ReadableTable, TableDefinition};
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failed = Box<dyn std::error::Error>;

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("keys");
/// Behind the log, an engine is made durable after so many entries.
const PERSIST_EVERY: u64 = 1_000_000;

trait Engine {
    fn apply(&mut self, batch: &[(String, Vec<u8>)], durable: bool) -> Result<(), Failed>;
    fn get(&self, key: &str) -> Result<bool, Failed>;
    /// Visits so many keys.
    fn scan(&self, limit: usize) -> Result<usize, Failed>;
}

struct Memory(MemoryState, u64);

impl Engine for Memory {
    fn apply(&mut self, batch: &[(String, Vec<u8>)], _: bool) -> Result<(), Failed> {
        for (key, value) in batch {
            self.1 += 1;
            self.0.put(key, value, Seq(self.1));
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Result<bool, Failed> {
        Ok(self.0.get(key).is_some())
    }

    fn scan(&self, limit: usize) -> Result<usize, Failed> {
        let mut seen = 0;
        self.0.scan(Bound::Unbounded, &mut |_, _, _| {
            seen += 1;
            if seen < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        Ok(seen)
    }
}

struct Fjall(Database, Keyspace);

impl Engine for Fjall {
    fn apply(&mut self, batch: &[(String, Vec<u8>)], durable: bool) -> Result<(), Failed> {
        let mut write = self.0.batch();
        for (key, value) in batch {
            write.insert(&self.1, key.as_bytes(), value.as_slice());
        }
        write.commit()?;
        if durable {
            self.0.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Result<bool, Failed> {
        Ok(self.1.get(key)?.is_some())
    }

    fn scan(&self, limit: usize) -> Result<usize, Failed> {
        let mut seen = 0;
        for guard in self.1.iter().take(limit) {
            seen += usize::from(!guard.into_inner()?.1.is_empty());
        }
        Ok(seen)
    }
}

struct Redb(redb::Database);

impl Engine for Redb {
    fn apply(&mut self, batch: &[(String, Vec<u8>)], durable: bool) -> Result<(), Failed> {
        let mut write = self.0.begin_write()?;
        write.set_durability(if durable { Durability::Immediate } else { Durability::None })?;
        {
            let mut table = write.open_table(TABLE)?;
            for (key, value) in batch {
                table.insert(key.as_bytes(), value.as_slice())?;
            }
        }
        write.commit()?;
        Ok(())
    }

    fn get(&self, key: &str) -> Result<bool, Failed> {
        Ok(self.0.begin_read()?.open_table(TABLE)?.get(key.as_bytes())?.is_some())
    }

    fn scan(&self, limit: usize) -> Result<usize, Failed> {
        let mut seen = 0;
        for one in self.0.begin_read()?.open_table(TABLE)?.iter()?.take(limit) {
            seen += usize::from(!one?.1.value().is_empty());
        }
        Ok(seen)
    }
}

fn open(engine: &str, dir: &Path) -> Result<Box<dyn Engine>, Failed> {
    std::fs::create_dir_all(dir)?;
    Ok(match engine {
        "memory" => Box::new(Memory(MemoryState::default(), 0)),
        "fjall" => {
            let db = Database::builder(dir).cache_size(256 << 20).open()?;
            let keys = db.keyspace("keys", KeyspaceCreateOptions::default)?;
            Box::new(Fjall(db, keys))
        }
        "redb" => Box::new(Redb(
            redb::Builder::new().set_cache_size(256 << 20).create(dir.join("keys.redb"))?,
        )),
        other => return Err(format!("no engine {other:?}").into()),
    })
}

/// What this process used: CPU in seconds, bytes that went to the disk, memory now and at most in MB.
struct Used {
    cpu: f64,
    disk: u64,
    rss: u64,
    peak: u64,
}

fn used() -> Used {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let field = |text: &str, name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name));
        let word = line.and_then(|line| line.split_whitespace().nth(1));
        word.and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    let stat = read("/proc/self/stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    let status = read("/proc/self/status");
    Used {
        cpu: (ticks(11) + ticks(12)) / 100.0,
        disk: field(&read("/proc/self/io"), "write_bytes:"),
        rss: field(&status, "VmRSS:") / 1024,
        peak: field(&status, "VmHWM:") / 1024,
    }
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn key(&mut self) -> String {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        format!("key:{:012}", self.0 % 100_000_000)
    }
}

fn apply(
    engine: &mut dyn Engine,
    what: &str,
    random: &mut Random,
    entries: u64,
    size: usize,
    value_bytes: usize,
    durable: bool,
) -> Result<(), Failed> {
    let before = used();
    let began = Instant::now();
    let mut since = 0;
    for at in 0..entries / size as u64 {
        let batch: Vec<_> = (0..size)
            .map(|_| (random.key(), vec![(at % 251) as u8; value_bytes]))
            .collect();
        since += size as u64;
        let persist = durable || since >= PERSIST_EVERY;
        engine.apply(&batch, persist)?;
        if persist {
            since = 0;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let after = used();
    let logical = entries * (16 + value_bytes as u64);
    println!(
        "{what}, batches of {size}: {:.0} entries/s, {:.1} µs of CPU an entry, {:.2} bytes written a byte, {} MB resident",
        entries as f64 / seconds,
        (after.cpu - before.cpu) * 1e6 / entries as f64,
        (after.disk - before.disk) as f64 / logical as f64,
        after.rss,
    );
    Ok(())
}

fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().collect();
    let [_, engine, dir, rest @ ..] = args.as_slice() else {
        return Err("usage: engines memory|fjall|redb DIR [MILLIONS]".into());
    };
    let millions: u64 = rest.first().map_or(Ok(10), |text| text.parse())?;
    let dir = Path::new(dir).join(engine);
    let mut random = Random(88_172_645_463_325_252);

    let mut small = open(engine, &dir.join("small"))?;
    if engine != "memory" {
        for (size, entries) in [(1, 3_000), (16, 48_000), (256, 200_000)] {
            apply(&mut *small, "as the log", &mut random, entries, size, 64, true)?;
        }
    }
    for (size, entries) in [(1, 200_000), (16, 500_000)] {
        apply(&mut *small, "behind the log", &mut random, entries, size, 64, false)?;
    }
    apply(&mut *small, "behind the log", &mut random, millions * 1_000_000, 256, 64, false)?;

    let reads = 500_000;
    let began = Instant::now();
    let mut found = 0;
    for _ in 0..reads {
        found += usize::from(small.get(&random.key())?);
    }
    println!("gets: {:.0}/s ({found} found)", f64::from(reads) / began.elapsed().as_secs_f64());
    let began = Instant::now();
    let seen = small.scan(1_000_000)?;
    println!("scan: {:.0} keys/s", seen as f64 / began.elapsed().as_secs_f64());
    let peak = used().peak;
    drop(small);
    if engine != "memory" {
        let began = Instant::now();
        let again = open(engine, &dir.join("small"))?;
        again.get("key:000000000001")?;
        println!("open again, to the first get: {:.2} s", began.elapsed().as_secs_f64());
    }
    println!("at most {peak} MB resident");

    let mut large = open(engine, &dir.join("large"))?;
    apply(&mut *large, "1 MiB values behind the log", &mut random, 1_000, 1, 1 << 20, false)?;
    Ok(())
}
