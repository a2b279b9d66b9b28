//! What the fuzz targets share.

pub mod chain;
pub mod directory;

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// What decoding may take at most beside what the input pays for: serde reserves up to a mebibyte for a list whose
/// length it was only told, at each depth of nesting.
const RESERVED_MAX: usize = 4 * 1024 * 1024;

/// Runs `decode`, which must not take more memory than so many bytes for each byte of its input.
///
/// # Panics
/// Where it does.
pub fn within_memory<T>(input: usize, each: usize, decode: impl FnOnce() -> T) -> T {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let decoded = decode();
    let taken = ALLOCATOR.peak_usage().saturating_sub(before);
    let allowed = RESERVED_MAX + each * input;
    assert!(
        taken <= allowed,
        "{taken} bytes were taken for {input}, {allowed} are allowed"
    );
    decoded
}

/// Takes a byte off the front; 0 where there is none. It selects what the rest is used for.
pub fn choice(data: &[u8]) -> (u8, &[u8]) {
    data.split_first()
        .map_or((0, data), |(first, rest)| (*first, rest))
}

/// The bytes with one bit flipped; which one, the bytes themselves decide, so that a finding can be repeated.
///
/// # Panics
/// Where there are none.
pub fn flipped(bytes: &[u8]) -> Vec<u8> {
    let at = crc32c::crc32c(bytes) as usize % (bytes.len() * 8);
    let mut flipped = bytes.to_vec();
    flipped[at / 8] ^= 1 << (at % 8);
    flipped
}
