//! Bits flip, files go.

use crate::rig::{Restored, Rig, open_sim};
use kvservice_backend::chain::Meta;
use kvservice_backend::storage::Journal;
use kvservice_backend::storage::disk::OpenError;
use kvservice_backend::storage::disk::testing::{SimDisk, reseal};
use kvservice_shared::chain::Run;
use kvservice_shared::codec::Batch;
use kvservice_shared::ids::{NodeId, Seq};

/// What a directory gives back.
#[derive(Debug, PartialEq)]
struct Whole {
    node: NodeId,
    meta: Meta,
    checkpoint: Option<(Run, Seq)>,
    base: Run,
    log: Vec<Batch>,
    restored: Restored,
}

fn look(disk: &SimDisk) -> Result<(Whole, Vec<String>), OpenError> {
    let mut restored = Restored::default();
    let opened = open_sim(disk, &mut restored)?;
    opened.journal.close().unwrap();
    let whole = Whole {
        node: opened.node,
        meta: opened.meta,
        checkpoint: opened.checkpoint,
        base: opened.log_base,
        log: opened.log,
        restored,
    };
    Ok((whole, opened.notes))
}

/// A node with several segments and a checkpoint, stopped cleanly or by a power cut.
fn node(clean: bool) -> SimDisk {
    let disk = SimDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    rig.meta().unwrap();
    rig.append(3, 2, 40).unwrap();
    rig.begin_save(2, 3).unwrap();
    rig.append(2, 1, 300).unwrap();
    rig.end_save().unwrap();
    rig.settle().unwrap();
    rig.append(2, 1, 900).unwrap();
    rig.cut(1).unwrap();
    rig.append(1, 1, 1000).unwrap();
    rig.append(1, 2, 60).unwrap();
    rig.settle().unwrap();
    rig.append(1, 1, 20).unwrap();
    rig.settle().unwrap();
    if clean {
        rig.close().unwrap();
    } else {
        disk.cut_power();
        rig.close().unwrap_err();
        disk.restart(1);
    }
    disk
}

/// Flips every bit of every file, one at a time. Gives the number of flips that were taken for a torn tail.
fn flip_all(disk: &SimDisk) -> usize {
    let (whole, _) = look(&disk.copy()).unwrap();
    let mut torn = 0;
    for name in disk.names() {
        let good = disk.content(&name);
        // Zeros that wait for the log are many and all alike.
        let used = good.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 200;
        for at in 0..good.len().min(used) {
            let bit = 1 << (at % 8);
            let broken = disk.copy();
            let mut bytes = good.clone();
            bytes[at] ^= bit;
            broken.set_content(&name, &bytes);
            match look(&broken) {
                Ok((found, _)) if found == whole => {}
                Ok((found, notes)) => {
                    // Only what no seal vouches for: the last write before a crash.
                    assert!(name.starts_with("log-"), "{name} at {at}");
                    assert!(!notes.is_empty(), "{name} at {at} went unnoticed");
                    assert_eq!(
                        found.log[..],
                        whole.log[..found.log.len()],
                        "{name} at {at}"
                    );
                    assert_eq!(found.log.len() + 1, whole.log.len(), "{name} at {at}");
                    torn += 1;
                }
                Err(OpenError::Corrupt { file, .. }) => {
                    assert_eq!(file, format!("/data/{name}"), "at {at}");
                }
                Err(other) => panic!("{name} at {at}: {other}"),
            }
        }
    }
    torn
}

#[test]
fn a_flipped_bit_is_found_after_a_clean_stop() {
    let disk = node(true);
    assert!(disk.names().len() >= 6, "{:?}", disk.names());
    assert_eq!(flip_all(&disk), 0);
}

#[test]
fn a_flipped_bit_is_found_after_a_crash_unless_it_looks_torn() {
    assert!(flip_all(&node(false)) > 0);
}

#[test]
fn a_file_that_is_gone_is_missed() {
    let disk = node(true);
    let (whole, _) = look(&disk.copy()).unwrap();
    assert_eq!(whole.base, Run::default());
    for name in disk.names() {
        let broken = disk.copy();
        broken.lose(&name);
        match look(&broken) {
            Err(OpenError::Missing { file, .. }) => assert_eq!(file, format!("/data/{name}")),
            // What it spares is there: nothing was trimmed.
            Ok((found, _)) if name.starts_with("checkpoint-") || name.ends_with("-0000000001") => {
                assert!(whole.log.ends_with(&found.log), "{name}");
            }
            other => panic!("{name}: {:?}", other.map(drop)),
        }
    }
}

#[test]
fn a_learner_that_was_done_is_not_taken_for_one_that_was_not() {
    let disk = SimDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    rig.reset(50).unwrap();
    rig.begin_save(1, 2).unwrap();
    for _ in 0..4 {
        rig.append(1, 1, 1000).unwrap();
        rig.settle().unwrap();
    }
    let learning = disk.copy();
    rig.end_save().unwrap();
    rig.settle().unwrap();
    rig.append(1, 1, 10).unwrap();
    rig.settle().unwrap();
    disk.cut_power();
    rig.close().unwrap_err();
    disk.restart(1);
    let (empty, notes) = look(&learning).unwrap();
    assert!(empty.log.is_empty() && empty.checkpoint.is_none() && !notes.is_empty());
    // The groups of its last segment go, and none is left that says they were durable.
    let names = disk.names();
    let last = names.iter().rfind(|name| name.starts_with("log-")).unwrap();
    let mut bytes = disk.content(last);
    bytes.truncate(20 + bytes[12] as usize);
    disk.set_content(last, &bytes);
    match look(&disk) {
        Err(OpenError::Missing { problem, .. }) => {
            assert!(
                problem.contains("the checkpoint needs it up to 54"),
                "{problem}"
            );
        }
        other => panic!("{:?}", other.map(|(whole, _)| whole.log)),
    }
}

#[test]
fn another_node_s_files_and_other_versions_are_refused() {
    let disk = node(true);
    let other = node(true);
    for name in disk.names() {
        let mixed = disk.copy();
        mixed.set_content(&name, &other.content(&name));
        let error = look(&mixed).err().unwrap().to_string();
        assert!(error.contains("belongs to node"), "{name}: {error}");
    }
    for name in disk.names() {
        let newer = disk.copy();
        let mut bytes = disk.content(&name);
        bytes[8] = 9;
        let length = 16 + bytes[12] as usize;
        let checksum = crc32c::crc32c(&bytes[..length]);
        bytes[length..length + 4].copy_from_slice(&checksum.to_le_bytes());
        newer.set_content(&name, &bytes);
        match look(&newer) {
            Err(OpenError::Version { version: 9, file }) => {
                assert!(file.ends_with(&name));
            }
            other => panic!("{name}: {:?}", other.map(drop)),
        }
    }
}

/// Opens with these bytes in place of a file's, all checksums mended; it must be refused.
fn refusal_of(disk: &SimDisk, name: &str, mut bytes: Vec<u8>) -> String {
    let broken = disk.copy();
    reseal(name, &mut bytes);
    broken.set_content(name, &bytes);
    look(&broken).expect_err(name).to_string()
}

#[test]
fn keys_out_of_order_are_refused_whatever_the_checksums_say() {
    let disk = node(true);
    let names = disk.names();
    let name = names.iter().find(|name| name.starts_with("checkpoint-"));
    let name = name.unwrap();
    let good = disk.content(name);
    let place = |key: &[u8]| good.windows(9).position(|window| window == key).unwrap();
    // The first block has three keys, the second three more.
    for (of, like) in [(b"0000-0002", b"0000-0001"), (b"0001-0000", b"0000-0001")] {
        let mut bytes = good.clone();
        bytes[place(of)..][..9].copy_from_slice(like);
        let refusal = refusal_of(&disk, name, bytes);
        assert!(refusal.contains("a key does not come after"), "{refusal}");
    }
}

/// Puts the largest number that there is in place of a number of one byte in a head.
fn with_the_largest(head: &[u8], at: usize) -> Vec<u8> {
    const LARGEST: [u8; 10] = [255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
    const BODY: usize = 16;
    let mut bytes = head.to_vec();
    bytes.splice(BODY + at..=BODY + at, LARGEST);
    bytes[12] += 9;
    bytes
}

#[test]
fn the_largest_numbers_are_refused_like_others() {
    const GENERATION: usize = 17;
    const LAST_ENTRY_BEFORE: usize = 21;
    let disk = node(true);
    let meta = with_the_largest(&disk.content("meta"), GENERATION);
    let refusal = refusal_of(&disk, "meta", meta);
    assert!(refusal.contains("the log goes on there"), "{refusal}");
    let first = "log-1-0000000001";
    let segment = with_the_largest(&disk.content(first), LAST_ENTRY_BEFORE);
    let refusal = refusal_of(&disk, first, segment);
    assert!(refusal.contains("a batch does not follow"), "{refusal}");
}
