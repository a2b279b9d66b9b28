//! The front-end's stored view.
//!
//! The first byte says whether the rest is the file as it is, or one whose checksum is mended.
#![no_main]

use kvservice_fuzz::{choice, within_memory};
use kvservice_server::coordinator::Stored;
use kvservice_server::view_store::{ViewStore, ViewStoreError};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use tempfile::TempDir;

fuzz_target!(|data: &[u8]| {
    let (how, rest) = choice(data);
    let mended = (how % 2 == 1).then(|| mended(rest)).flatten();
    let text = mended.as_deref().unwrap_or(rest);
    let dir = directory();
    let file = dir.join("view.json");
    fs::write(&file, text).expect("there is room");
    match within_memory(text.len(), 64, || ViewStore::open(dir)) {
        Ok((mut store, stored)) => {
            store.save(&stored).expect("there is room");
            drop(store);
            let (_, again) = ViewStore::open(dir).expect("it was saved just now");
            assert_eq!(again, stored);
        }
        Err(error) => {
            let named = matches!(&error, ViewStoreError::Damaged { path, .. } if *path == file);
            assert!(named, "{error}");
            assert!(mended.is_none(), "{error}");
            assert_eq!(
                fs::read(&file).expect("it is there"),
                text,
                "it was changed"
            );
        }
    }
});

/// The file with the checksum that it needs, if it has the fields that it must have.
fn mended(text: &[u8]) -> Option<Vec<u8>> {
    let mut file: Value = serde_json::from_slice(text).ok()?;
    let stored: Stored = serde_json::from_value(file.get("stored")?.clone()).ok()?;
    let checksum = crc32c::crc32c(&serde_json::to_vec(&stored).ok()?);
    let fields = file.as_object_mut()?;
    fields.insert("crc32c".to_owned(), checksum.into());
    fields.insert("format".to_owned(), 1.into());
    serde_json::to_vec(&file).ok()
}

/// In memory where there is such a place: each input is written and synced.
fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<TempDir> = OnceLock::new();
    let made = || tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    DIRECTORY
        .get_or_init(|| made().expect("a temporary directory"))
        .path()
}
