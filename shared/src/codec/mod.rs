//! The binary frames between front-end and nodes.
//!
//! ```text
//! frame   offset  0        1      2            6
//!                 version  kind   crc32c (LE)  body
//! ```
//! The checksum covers version, kind and the body, but for the batches inside an `Append`, which carry
//! their own: the bytes of a batch are made once, by the head, then checked, stored and forwarded as
//! they are. A body is [postcard](https://postcard.jamesmunns.com/wire-format), but for `Append`, which
//! is the hot one; the file `batch.rs` draws its layout.
//!
//! Every length is checked against what is there before anything is allocated for it. Whatever does not
//! decode is a [`CodecError`], and the link that sent it is closed.

mod batch;
mod frame;

pub use batch::{Batch, BatchBuilder, Decision, Effect, Entries, Entry};
pub use frame::ChainMessage;

/// The version of this protocol; a peer that speaks another is refused.
pub const CHAIN_VERSION: u8 = 1;

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end early, or go on after the end.
    #[error("truncated or overlong: {0}")]
    Length(&'static str),
    /// The checksum does not match.
    #[error("checksum mismatch in {0}")]
    Checksum(&'static str),
    /// Another version of the protocol.
    #[error(
        "the peer speaks chain protocol {0}, this is {CHAIN_VERSION}: run the same version everywhere"
    )]
    Version(u8),
    /// A frame of an unknown kind, or of one that this end does not take.
    #[error("unexpected frame kind {0}")]
    Kind(u8),
    /// A field out of its range.
    #[error("invalid {0}")]
    Invalid(&'static str),
}

#[cfg(test)]
mod tests;
