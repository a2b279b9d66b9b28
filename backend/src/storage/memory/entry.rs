//! A key with its value and its revision, as it lies in memory.

use crate::storage::Record;
use bytes::{Buf, Bytes};
use kvservice_shared::ids::Seq;

/// A key, its value and the revision that wrote it in one allocation of their exact size: they live long and may
/// be many.
///
/// ```text
/// 0         8           10
/// revision  key length  key, value
/// ```
#[derive(Default)]
pub(super) struct Entry(Box<[u8]>);

const ENTRY_HEADER: usize = 10;

impl Entry {
    pub(super) fn new(key: &str, value: &[u8], revision: Seq) -> Entry {
        let length = u16::try_from(key.len()).expect("keys are within their limit");
        let mut bytes = Vec::with_capacity(ENTRY_HEADER + key.len() + value.len());
        bytes.extend_from_slice(&revision.0.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(key.as_bytes());
        bytes.extend_from_slice(value);
        Entry(bytes.into_boxed_slice())
    }

    /// A byte of the first line of memory that it takes, and one of the last.
    pub(super) fn ends(&self) -> u8 {
        let first = self.0.first().copied().unwrap_or_default();
        first ^ self.0.last().copied().unwrap_or_default()
    }

    /// Another value of the same key. One as long as that before takes its place, without an allocation.
    pub(super) fn overwrite(&mut self, value: &[u8], revision: Seq) {
        let value_at = self.value_at();
        if self.0.len() - value_at == value.len() {
            self.0[..8].copy_from_slice(&revision.0.to_le_bytes());
            self.0[value_at..].copy_from_slice(value);
        } else {
            *self = Entry::new(self.key_text(), value, revision);
        }
    }

    pub(super) fn revision(&self) -> Seq {
        let (revision, _) = self.0.split_first_chunk().expect("an entry has a header");
        Seq(u64::from_le_bytes(*revision))
    }

    /// Where the value begins.
    fn value_at(&self) -> usize {
        ENTRY_HEADER + usize::from(u16::from_le_bytes([self.0[8], self.0[9]]))
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.0[ENTRY_HEADER..self.value_at()]
    }

    pub(super) fn key_text(&self) -> &str {
        std::str::from_utf8(self.key()).expect("a key was made from text")
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.0[self.value_at()..]
    }

    /// Bytes of key and value.
    pub(super) fn size(&self) -> u64 {
        (self.0.len() - ENTRY_HEADER) as u64
    }

    pub(super) fn into_record(self) -> Record {
        let (revision, value_at) = (self.revision(), self.value_at());
        let mut value = Bytes::from(self.0);
        // A slice would allocate.
        value.advance(value_at);
        Record { value, revision }
    }
}

/// What both begin with.
pub(super) fn common_prefix<'a>(a: &'a [u8], b: &[u8]) -> &'a [u8] {
    let length = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    &a[..length]
}

/// The first eight bytes as a number that orders as they do; zeros where there are fewer.
pub(super) fn first_eight(bytes: &[u8]) -> u64 {
    let mut first = [0; 8];
    let length = bytes.len().min(8);
    first[..length].copy_from_slice(&bytes[..length]);
    u64::from_be_bytes(first)
}
