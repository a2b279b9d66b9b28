//! How long to wait before the next try: doubling up to a cap, with jitter, so that the clients of
//! a server that comes back do not all come at once.

/// The longest wait before the second try.
const FIRST_MS_MAX: u64 = 50;
/// The longest wait before any try.
const CAP_MS: u64 = 2000;

pub(super) struct Backoff {
    /// State of SplitMix64 (Steele, Lea, Flood 2014).
    jitter: u64,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Backoff {
        Backoff { jitter: seed }
    }

    /// How long to wait after `failures` failures in a row (from 1): between half of the step and
    /// all of it.
    pub(super) fn delay_ms(&mut self, failures: u32) -> u64 {
        let doublings = failures.saturating_sub(1).min(16);
        let step_ms = (FIRST_MS_MAX << doublings).min(CAP_MS);
        step_ms / 2 + self.random() % (step_ms / 2 + 1)
    }

    fn random(&mut self) -> u64 {
        self.jitter = self.jitter.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.jitter;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
