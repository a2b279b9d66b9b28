//! The two small files: who the node is, and what it remembers.

use super::OpenError;
use super::format::{META, Magic, NODE, decode_head, encode_head};
use super::handle::Disk;
use crate::chain::Meta;
use crate::storage::StorageError;
use kvservice_shared::chain::Run;
use kvservice_shared::ids::NodeId;
use serde::{Deserialize, Serialize};

pub(super) const NODE_MAGIC: Magic = *b"kvs node";
const META_MAGIC: Magic = *b"kvs meta";

/// What the meta file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MetaBody {
    pub node: NodeId,
    /// Files of other generations are void.
    pub generation: u64,
    /// The newest segment of its log, or the one before that.
    pub ordinal: u64,
    /// The entry that this generation's log began after.
    pub base: Run,
    /// The generation is worth nothing without a whole checkpoint.
    pub learning: bool,
    pub meta: Meta,
}

pub(super) fn read_node(disk: &Disk) -> Result<NodeId, OpenError> {
    whole(disk, NODE, NODE_MAGIC)
}

pub(super) fn write_node(disk: &Disk, node: NodeId) -> Result<(), StorageError> {
    disk.replace(NODE, &encode_head(NODE_MAGIC, &node))
        .map(drop)
}

pub(super) fn read_meta(disk: &Disk) -> Result<MetaBody, OpenError> {
    whole(disk, META, META_MAGIC)
}

pub(super) fn write_meta(disk: &Disk, body: &MetaBody) -> Result<(), StorageError> {
    disk.replace(META, &encode_head(META_MAGIC, body)).map(drop)
}

/// The body of a file that is a head and nothing else.
fn whole<T: serde::de::DeserializeOwned>(
    disk: &Disk,
    name: &str,
    magic: Magic,
) -> Result<T, OpenError> {
    let bytes = disk.read(name)?;
    let path = disk.path(name);
    let (body, length) = decode_head(magic, &bytes, &path)?;
    if length != bytes.len() {
        return Err(OpenError::corrupt(
            &path,
            length as u64,
            "the file goes on after its end",
        ));
    }
    Ok(body)
}
