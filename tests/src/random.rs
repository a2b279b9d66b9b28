//! Dice that fall the same way each time.

/// A small generator, xorshift64* (Vigna 2014): the same numbers for the same seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Seeds it; every seed gives another sequence.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        // The state must not be zero; and small seeds must not begin alike.
        let mixed = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Random((mixed ^ (mixed >> 31)) | 1)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    /// One of them, if there are any.
    pub fn pick<T>(&mut self, items: impl ExactSizeIterator<Item = T>) -> Option<T> {
        let mut items = items;
        let count = items.len() as u64;
        (count > 0)
            .then(|| self.below(count))
            .and_then(|at| items.nth(at as usize))
    }
}
