//! What a hostile frame makes a decoder allocate, counted by the allocator.
#![cfg(not(target_arch = "wasm32"))]

use kvservice_shared::chain::{Downstream, FromNode, LinkHello, LinkReply, ToNode, Upstream};
use kvservice_shared::codec::{CHAIN_VERSION, ChainMessage};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// serde reserves no more than this for a list whose length it was only told, at each depth of nesting; no
/// message nests lists deeper than this allows.
const RESERVED_MAX: usize = 4 * 1024 * 1024;

/// One test, alone in its process: nothing else allocates beside it.
#[test]
fn a_claimed_length_costs_nothing_until_its_bytes_are_there() {
    // Varints of the largest lengths, wherever they may be read.
    let large = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let mut largest = 0;
    for prefix in 0..64_usize {
        for fill in [0_u8, 1, 2, 5, 16] {
            let body = [&vec![fill; prefix][..], &large, &[fill; 16]].concat();
            for kind in 0..=10 {
                let frame = sealed(kind, &body);
                ALLOCATOR.reset_peak_usage();
                let before = ALLOCATOR.current_usage();
                let _ = ToNode::decode(frame.clone().into());
                let _ = FromNode::decode(frame.clone().into());
                let _ = LinkHello::decode(frame.clone().into());
                let _ = LinkReply::decode(frame.clone().into());
                let _ = Downstream::decode(frame.clone().into());
                let _ = Upstream::decode(frame.into());
                largest = largest.max(ALLOCATOR.peak_usage() - before);
            }
        }
    }
    assert!(
        largest <= RESERVED_MAX,
        "{largest} bytes for a frame of some tens"
    );
    assert!(largest > 0, "the allocator counts");
}

fn sealed(kind: u8, body: &[u8]) -> Vec<u8> {
    const APPEND: u8 = 9;
    const APPEND_HEADER: usize = 33;
    let covered = match kind {
        APPEND => body.len().min(APPEND_HEADER),
        _ => body.len(),
    };
    let head = [CHAIN_VERSION, kind];
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&head), &body[..covered]);
    [&head[..], &checksum.to_le_bytes(), body].concat()
}
