//! The entries, found by the hash of their keys.
//!
//! They are spread over shards, so that no growing table makes everybody wait: at ten million keys one shard takes
//! milliseconds to grow, and all of them at once would take a second.

use super::entry::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

/// A power of two.
const SHARDS: u32 = 256;

/// Names an entry as long as it is there: its shard in the low bits, its place there above them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(u32);

/// Where an entry would be that is not there.
pub(super) struct Vacancy {
    shard: u32,
    hash: u64,
}

#[derive(Default)]
struct Shard {
    entries: Vec<Entry>,
    vacant: Vec<u32>,
    places: HashTable<u32>,
}

/// All entries, in no order.
pub(super) struct Entries {
    shards: Vec<Shard>,
    len: u64,
    /// Seeded at random: nobody outside can choose keys that collide.
    hasher: DefaultHashBuilder,
}

impl Default for Entries {
    fn default() -> Entries {
        Entries {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            len: 0,
            hasher: DefaultHashBuilder::default(),
        }
    }
}

impl Id {
    fn new(shard: u32, place: u32) -> Id {
        assert!(place <= u32::MAX / SHARDS, "more keys than ids");
        Id(place * SHARDS + shard)
    }

    fn shard(self) -> usize {
        (self.0 % SHARDS) as usize
    }

    fn place(self) -> usize {
        (self.0 / SHARDS) as usize
    }
}

impl Entries {
    /// The shard's number, and the hash.
    fn hash(&self, key: &[u8]) -> (u32, u64) {
        let hash = self.hasher.hash_one(key);
        // The table uses the low bits and the highest ones.
        ((hash >> 32) as u32 % SHARDS, hash)
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// # Panics
    /// Where there is no such entry.
    pub(super) fn get(&self, id: Id) -> &Entry {
        &self.shards[id.shard()].entries[id.place()]
    }

    pub(super) fn key(&self, id: Id) -> &[u8] {
        self.get(id).key()
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<&Entry> {
        let (shard, hash) = self.hash(key);
        let shard = &self.shards[shard as usize];
        let place = shard
            .places
            .find(hash, |place| shard.entries[*place as usize].key() == key)?;
        Some(&shard.entries[*place as usize])
    }

    /// Looks at the entries with these keys, most likely. A lookup waits for memory at each of its steps, each for
    /// the one before it; those of many keys, step by step, wait together.
    pub(super) fn warm<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        let places: Vec<(u32, u32)> = keys
            .filter_map(|key| {
                let (shard, hash) = self.hash(key);
                // Whatever has a hash like it: nearly always the right one.
                let place = self.shards[shard as usize].places.find(hash, |_| true)?;
                Some((shard, *place))
            })
            .collect();
        let ends = places.iter().map(|(shard, place)| {
            let entry = &self.shards[*shard as usize].entries[*place as usize];
            entry.ends()
        });
        std::hint::black_box(ends.fold(0, |all, end| all ^ end));
    }

    /// The entry with this key, or where it would be.
    pub(super) fn find_mut(&mut self, key: &[u8]) -> Result<&mut Entry, Vacancy> {
        let (number, hash) = self.hash(key);
        let Shard {
            entries, places, ..
        } = &mut self.shards[number as usize];
        match places.find(hash, |place| entries[*place as usize].key() == key) {
            Some(place) => Ok(&mut entries[*place as usize]),
            None => Err(Vacancy {
                shard: number,
                hash,
            }),
        }
    }

    /// Takes in an entry whose key is not there.
    pub(super) fn add_new(&mut self, entry: Entry) -> Id {
        let (shard, hash) = self.hash(entry.key());
        self.add(Vacancy { shard, hash }, entry)
    }

    /// Takes in an entry where there is none with its key.
    pub(super) fn add(&mut self, vacancy: Vacancy, entry: Entry) -> Id {
        let Vacancy {
            shard: number,
            hash,
        } = vacancy;
        let Shard {
            entries,
            vacant,
            places,
        } = &mut self.shards[number as usize];
        let place = match vacant.pop() {
            Some(place) => {
                entries[place as usize] = entry;
                place
            }
            None => {
                entries.push(entry);
                u32::try_from(entries.len() - 1).expect("fewer places than ids")
            }
        };
        places.insert_unique(hash, place, |place| {
            self.hasher.hash_one(entries[*place as usize].key())
        });
        self.len += 1;
        Id::new(number, place)
    }

    /// Takes out an entry.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let (number, hash) = self.hash(key);
        let Shard {
            entries,
            vacant,
            places,
        } = &mut self.shards[number as usize];
        let found = places.find_entry(hash, |place| entries[*place as usize].key() == key);
        let (place, _) = found.ok()?.remove();
        vacant.push(place);
        self.len -= 1;
        Some(std::mem::take(&mut entries[place as usize]))
    }

    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, more: usize) {
        // Shards differ a little.
        let each = more / SHARDS as usize;
        let each = each + each / 16;
        for shard in &mut self.shards {
            shard.entries.reserve(each);
            let entries = &shard.entries;
            shard.places.reserve(each, |place| {
                self.hasher.hash_one(entries[*place as usize].key())
            });
        }
    }
}
