//! The random source of the process. Ids of nodes and sessions, the order in which `select!` looks, masks of frames and
//! the seeds of hash maps come from the C library's `getrandom`. This one takes its place, and counts on from a seed.

use kvservice_sim::rng::Rng;
use std::cell::RefCell;

thread_local! {
    static SOURCE: RefCell<Rng> = RefCell::new(Rng::new(0));
}

/// From now on what this thread draws is decided by this seed.
pub fn seed(seed: u64) {
    SOURCE.with(|source| *source.borrow_mut() = Rng::new(seed));
}

fn fill(bytes: &mut [u8]) {
    // A thread that ends draws nothing any more that matters.
    let _ = SOURCE.try_with(|source| {
        let mut source = source.borrow_mut();
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&source.number().to_le_bytes()[..chunk.len()]);
        }
    });
}

/// As the C library's, which it stands before.
///
/// # Safety
/// `buffer` is valid for `length` bytes, or null.
#[unsafe(no_mangle)]
#[inline(never)]
#[allow(
    unsafe_code,
    reason = "the standard library and the crate getrandom take this symbol, and no other way leads to both"
)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    if buffer.is_null() {
        return -1;
    }
    // SAFETY: what the caller of the system's function promises too.
    fill(unsafe { std::slice::from_raw_parts_mut(buffer, length) });
    isize::try_from(length).unwrap_or(-1)
}
