//! Messages into frames and back. Each kind of message has its own type, so that an end can only take what
//! it may be sent.

use super::{Batch, CHAIN_VERSION, CodecError};
use crate::chain::{
    Downstream, FromNode, LinkHello, LinkReply, SnapshotPart, ToNode, Upstream, View,
};
use crate::ids::{Epoch, Seq};
use crate::limits;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

const FRAME_HEADER: usize = 6;

const TO_NODE: u8 = 1;
const FROM_NODE: u8 = 2;
const LINK_HELLO: u8 = 3;
const LINK_REPLY: u8 = 4;
const UPSTREAM: u8 = 5;
const LINK: u8 = 6;
const SNAPSHOT: u8 = 7;
const BEAT: u8 = 8;
const APPEND: u8 = 9;

/// What can travel in a frame.
pub trait ChainMessage: Sized {
    /// The frame that carries it.
    fn encode(&self) -> Bytes;

    /// The message in a frame.
    ///
    /// # Errors
    /// Where the frame does not hold one such message and nothing else. (A number may take more bytes than
    /// [`ChainMessage::encode`] gives it; it is the same message.)
    fn decode(frame: Bytes) -> Result<Self, CodecError>;
}

fn seal(kind: u8, mut frame: BytesMut, covered: usize) -> BytesMut {
    frame[0] = CHAIN_VERSION;
    frame[1] = kind;
    let checksum = checksum(&frame[..2], &frame[FRAME_HEADER..covered]);
    frame[2..FRAME_HEADER].copy_from_slice(&checksum.to_le_bytes());
    frame
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(head), body)
}

/// Checks version and length; gives the kind and the claimed checksum.
fn open(frame: &Bytes) -> Result<(u8, u32), CodecError> {
    match frame.first() {
        Some(&version) if version != CHAIN_VERSION => return Err(CodecError::Version(version)),
        _ if frame.len() < FRAME_HEADER => return Err(CodecError::Length("frame header")),
        _ => {}
    }
    Ok((frame[1], (&frame[2..FRAME_HEADER]).get_u32_le()))
}

/// The body of a frame that is covered by its checksum as a whole.
fn open_body(frame: &Bytes, claimed: u32) -> Result<&[u8], CodecError> {
    let body = &frame[FRAME_HEADER..];
    if checksum(&frame[..2], body) == claimed {
        Ok(body)
    } else {
        Err(CodecError::Checksum("frame"))
    }
}

fn encode_body<T: Serialize>(kind: u8, value: &T) -> Bytes {
    // Into a `Vec` that starts small: most messages are, and it grows by doubling.
    let mut frame = Vec::with_capacity(256);
    frame.resize(FRAME_HEADER, 0);
    let frame = postcard::to_extend(value, frame).expect("plain data always encodes into memory");
    let covered = frame.len();
    seal(kind, BytesMut::from(Bytes::from(frame)), covered).freeze()
}

fn decode_body<T: DeserializeOwned>(frame: &Bytes, claimed: u32) -> Result<T, CodecError> {
    let body = open_body(frame, claimed)?;
    let (value, rest) =
        postcard::take_from_bytes(body).map_err(|_| CodecError::Invalid("frame body"))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(CodecError::Length("frame body"))
    }
}

macro_rules! plain_message {
    ($($message:ty => $kind:ident),*) => {$(
        impl ChainMessage for $message {
            fn encode(&self) -> Bytes {
                encode_body($kind, self)
            }

            fn decode(frame: Bytes) -> Result<Self, CodecError> {
                match open(&frame)? {
                    ($kind, claimed) => decode_body(&frame, claimed),
                    (other, _) => Err(CodecError::Kind(other)),
                }
            }
        }
    )*};
}
plain_message!(ToNode => TO_NODE, FromNode => FROM_NODE, LinkHello => LINK_HELLO,
    LinkReply => LINK_REPLY, Upstream => UPSTREAM);

/// `Append` after the frame header, before its batches: term, number, committed, settles, settle, count.
const APPEND_HEADER: usize = 4 + 8 + 8 + 1 + 8 + 4;

impl ChainMessage for Downstream {
    fn encode(&self) -> Bytes {
        match self {
            Downstream::Link { view, learner } => encode_body(LINK, &(view, learner)),
            Downstream::Snapshot { epoch, part } => encode_body(SNAPSHOT, &(epoch, part)),
            Downstream::Beat { epoch, committed } => encode_body(BEAT, &(epoch, committed)),
            Downstream::Append {
                epoch,
                settle,
                committed,
                batches,
            } => {
                let length: usize = batches.iter().map(|b| b.bytes().len()).sum();
                let covered = FRAME_HEADER + APPEND_HEADER;
                let mut frame = BytesMut::with_capacity(covered + length);
                frame.put_bytes(0, FRAME_HEADER);
                frame.put_u32_le(epoch.term);
                frame.put_u64_le(epoch.number);
                frame.put_u64_le(committed.0);
                frame.put_u8(u8::from(settle.is_some()));
                frame.put_u64_le(settle.map_or(0, |seq| seq.0));
                frame.put_u32_le(u32::try_from(batches.len()).expect("frames are bounded"));
                let mut frame = seal(APPEND, frame, covered);
                for batch in batches {
                    frame.put_slice(batch.bytes());
                }
                frame.freeze()
            }
        }
    }

    fn decode(frame: Bytes) -> Result<Self, CodecError> {
        let (kind, claimed) = open(&frame)?;
        match kind {
            LINK => {
                let (view, learner): (View, bool) = decode_body(&frame, claimed)?;
                Ok(Downstream::Link { view, learner })
            }
            SNAPSHOT => {
                let (epoch, part): (Epoch, SnapshotPart) = decode_body(&frame, claimed)?;
                Ok(Downstream::Snapshot { epoch, part })
            }
            BEAT => {
                let (epoch, committed): (Epoch, Seq) = decode_body(&frame, claimed)?;
                Ok(Downstream::Beat { epoch, committed })
            }
            APPEND => decode_append(frame, claimed),
            other => Err(CodecError::Kind(other)),
        }
    }
}

fn decode_append(mut frame: Bytes, claimed: u32) -> Result<Downstream, CodecError> {
    let covered = FRAME_HEADER + APPEND_HEADER;
    if frame.len() < covered {
        return Err(CodecError::Length("append"));
    }
    if checksum(&frame[..2], &frame[FRAME_HEADER..covered]) != claimed {
        return Err(CodecError::Checksum("append"));
    }
    if frame.len() > limits::CHAIN_FRAME_BYTES_MAX {
        return Err(CodecError::Length("append"));
    }
    let mut header = &frame[FRAME_HEADER..covered];
    let epoch = Epoch {
        term: header.get_u32_le(),
        number: header.get_u64_le(),
    };
    let committed = Seq(header.get_u64_le());
    let settles = header.get_u8();
    let settle = Seq(header.get_u64_le());
    let count = header.get_u32_le();
    let settle = match settles {
        0 if settle == Seq::ZERO => None,
        1 => Some(settle),
        _ => return Err(CodecError::Invalid("append settle")),
    };
    frame.advance(covered);
    let mut batches: Vec<Batch> = Vec::new();
    for _ in 0..count {
        let batch = Batch::decode(&mut frame)?;
        if batches
            .last()
            .is_some_and(|last| last.last().next() != batch.first())
        {
            return Err(CodecError::Invalid("append order"));
        }
        batches.push(batch);
    }
    if !frame.is_empty() {
        return Err(CodecError::Length("append"));
    }
    Ok(Downstream::Append {
        epoch,
        settle,
        committed,
        batches,
    })
}
