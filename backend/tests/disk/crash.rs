//! Power cuts and failing calls, at every call of a scripted run.

use crate::rig::{Restored, Rig, open_sim, options};
use kvservice_backend::storage::disk::testing::SimDisk;
use kvservice_backend::storage::disk::{OpenError, SystemFiles, open};
use kvservice_backend::storage::{Journal, StorageError};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Something of everything: logs that roll, cuts, checkpoints, trims, resets to a snapshot and to nothing, openings.
fn script(rig: &mut Rig) -> Result<(), Trouble> {
    rig.meta()?;
    rig.append(2, 3, 20)?;
    rig.settle()?;
    rig.append(3, 1, 700)?;
    rig.cut(1)?;
    rig.append(2, 2, 30)?;
    rig.settle()?;
    rig.close()?;
    rig.reopen()?;
    rig.append(4, 1, 900)?;
    rig.meta()?;
    rig.begin_save(2, 3)?;
    rig.append(2, 2, 200)?;
    rig.end_save()?;
    rig.trim()?;
    rig.append(6, 1, 900)?;
    rig.settle()?;
    rig.begin_save(1, 2)?;
    rig.end_save()?;
    rig.trim()?;
    rig.settle()?;
    rig.append(2, 1, 10)?;
    rig.cut(2)?;
    rig.append(1, 1, 10)?;
    rig.close()?;
    rig.reopen()?;
    rig.reset(50)?;
    rig.append(1, 2, 30)?;
    rig.begin_save(1, 1)?;
    rig.reset(60)?;
    rig.begin_save(2, 2)?;
    rig.append(2, 2, 30)?;
    rig.settle()?;
    rig.meta()?;
    rig.end_save()?;
    rig.append(2, 1, 1000)?;
    rig.settle()?;
    rig.cut(1)?;
    rig.append(5, 1, 800)?;
    rig.begin_save(1, 1)?;
    rig.end_save()?;
    rig.trim()?;
    rig.settle()?;
    rig.close()?;
    rig.reopen()?;
    rig.reset(0)?;
    rig.append(2, 1, 20)?;
    rig.meta()?;
    rig.append(1, 1, 20)?;
    rig.settle()?;
    rig.reset(9)?;
    rig.append(2, 1, 20)?;
    rig.close()?;
    rig.reopen()?;
    rig.append(1, 1, 1)?;
    rig.settle()?;
    rig.close()?;
    Ok(())
}

#[derive(Debug)]
enum Trouble {
    Running(StorageError),
    Opening(OpenError),
}

impl From<StorageError> for Trouble {
    fn from(error: StorageError) -> Trouble {
        Trouble::Running(error)
    }
}

impl From<OpenError> for Trouble {
    fn from(error: OpenError) -> Trouble {
        Trouble::Opening(error)
    }
}

/// Runs the script as far as it gets.
fn run(disk: &SimDisk) -> (Option<Rig>, Result<(), Trouble>) {
    match Rig::open(disk) {
        Ok(mut rig) => {
            let result = script(&mut rig);
            (Some(rig), result)
        }
        Err(error) => (None, Err(error.into())),
    }
}

/// Calls that the script makes; the two threads may do a few more or less in another run.
fn calls() -> u64 {
    let disk = SimDisk::default();
    let (_, result) = run(&disk);
    result.unwrap();
    disk.calls()
}

#[test]
fn power_goes_at_every_call() {
    let seeds = if long() { 40 } else { 3 };
    for at in 1..=calls() {
        for seed in 0..seeds {
            let seed = seed + at * 1000;
            let disk = SimDisk::default();
            disk.cut_power_at(at);
            let (rig, result) = run(&disk);
            if !disk.is_off() {
                result.unwrap();
                continue;
            }
            check_trouble(result, at);
            let Some(mut rig) = rig else {
                disk.restart(seed);
                Rig::open(&disk).unwrap();
                continue;
            };
            let _: Result<(), StorageError> = rig.close();
            disk.restart(seed);
            rig.reopen()
                .unwrap_or_else(|e| panic!("call {at}, seed {seed}: {e}"));
            // What was opened is what there is, whatever happens next.
            rig.crash(seed + 1)
                .unwrap_or_else(|e| panic!("call {at}, seed {seed}: {e}"));
            rig.append(2, 1, 100).unwrap();
            rig.settle().unwrap();
            rig.crash(seed + 2)
                .unwrap_or_else(|e| panic!("call {at}, seed {seed}: {e}"));
        }
    }
}

/// The power or a call failed: nobody may take that for damaged data.
fn check_trouble(result: Result<(), Trouble>, at: u64) {
    match result {
        Err(Trouble::Running(StorageError::Io { .. }))
        | Err(Trouble::Opening(OpenError::Storage(StorageError::Io { .. })))
        | Ok(()) => {}
        Err(other) => panic!("call {at}: {other:?}"),
    }
}

#[test]
fn every_call_fails_once() {
    for at in 1..=calls() {
        let disk = SimDisk::default();
        disk.fail_at(at);
        let (rig, result) = run(&disk);
        if !disk.has_failed() {
            result.unwrap();
            continue;
        }
        assert!(result.is_err(), "call {at} failed, and nobody was told");
        let trouble = format!("{result:?}");
        check_trouble(result, at);
        let Some(mut rig) = rig else {
            Rig::open(&disk).unwrap();
            continue;
        };
        let _: Result<(), StorageError> = rig.close();
        let after = disk.calls_after_failure();
        assert_eq!(after, 0, "call {at}: {trouble}");
        // The same boot of the machine: what a failed sync left only in memory is read, and must be made durable.
        rig.reopen().unwrap_or_else(|e| panic!("call {at}: {e}"));
        rig.crash(at).unwrap_or_else(|e| panic!("call {at}: {e}"));
    }
}

#[test]
fn a_failure_is_told_again_and_again() {
    let disk = SimDisk::default();
    let mut opened = open_sim(&disk, &mut Restored::default()).unwrap();
    disk.fail_at(disk.calls() + 1);
    let first = opened.journal.store_meta(&Default::default());
    let text = first.unwrap_err().to_string();
    assert!(text.contains("create /data/meta.part"), "{text}");
    assert_eq!(opened.journal.progress().unwrap_err().to_string(), text);
    assert_eq!(
        opened.journal.write(Vec::new()).unwrap_err().to_string(),
        text
    );
    assert_eq!(opened.journal.close().unwrap_err().to_string(), text);
}

#[test]
fn a_sync_that_does_not_return_is_told() {
    let disk = SimDisk::default();
    let mut options = options();
    options.disk_timeout = Duration::from_millis(100);
    let files = Arc::new(disk.clone());
    let mut opened = open("/data".as_ref(), options, files, &mut Restored::default()).unwrap();
    disk.hang_syncs(true);
    let batch = crate::rig::batch(
        kvservice_shared::ids::Epoch::NONE,
        kvservice_shared::ids::Seq(1),
        1,
        1,
    );
    let ops = vec![kvservice_backend::chain::JournalOp::Append(batch)];
    opened.journal.write(ops).unwrap();
    let started = Instant::now();
    let error = loop {
        match opened.journal.progress() {
            Ok(progress) => assert_eq!(progress.durable.0, 0),
            Err(error) => break error,
        }
        assert!(started.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    };
    assert!(matches!(error, StorageError::Stuck { .. }), "{error}");
    assert!(matches!(
        opened.journal.store_meta(&Default::default()),
        Err(StorageError::Stuck { .. })
    ));
    assert!(matches!(
        opened.journal.close(),
        Err(StorageError::Stuck { .. })
    ));
    disk.hang_syncs(false);
}

#[test]
fn a_directory_is_one_process_s() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a/b");
    let open = || {
        open(
            &data,
            options(),
            Arc::new(SystemFiles),
            &mut Restored::default(),
        )
    };
    let first = open().unwrap();
    let refused = open().err().unwrap().to_string();
    let holder = format!("is in use by process {}", std::process::id());
    assert!(refused.contains(&holder), "{refused}");
    let node = first.node;
    first.journal.close().unwrap();
    assert_eq!(open().unwrap().node, node);
}

/// The whole, and not the everyday run.
pub fn long() -> bool {
    std::env::var_os("KVSERVICE_LONG").is_some()
}
