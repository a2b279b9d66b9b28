//! The overlay against a model: whatever is written and removed between its pages, a dump is the state at its
//! start.

use super::*;
use crate::storage::MemoryState;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What happens.
#[derive(Clone, Debug)]
enum Step {
    Put {
        key: u8,
        bytes: usize,
    },
    Remove {
        key: u8,
    },
    Start,
    /// Reads a page of one of the dumps that are open.
    Page(prop::sample::Index),
    End(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    // Pages of a few keys: a value is a large part of one now and then.
    let bytes = prop_oneof![Just(0usize), 1..100usize, Just(DUMP_PAGE_BYTES_MAX / 3)];
    prop_oneof![
        8 => (any::<u8>(), bytes).prop_map(|(key, bytes)| Step::Put { key, bytes }),
        4 => any::<u8>().prop_map(|key| Step::Remove { key }),
        1 => Just(Step::Start),
        4 => any::<prop::sample::Index>().prop_map(Step::Page),
        1 => any::<prop::sample::Index>().prop_map(Step::End),
    ]
}

type Content = BTreeMap<String, (usize, Seq)>;

#[derive(Default)]
struct World {
    state: MemoryState,
    content: Content,
    dumps: Dumps,
    seq: Seq,
    /// Of each open dump what it must show, and what its pages showed.
    reading: Vec<(Ticket, Seq, Content, Content)>,
    finished: usize,
}

impl World {
    fn put(&mut self, key: &str, bytes: usize) {
        self.seq = self.seq.next();
        self.content.insert(key.to_owned(), (bytes, self.seq));
        let dumps = &mut self.dumps;
        let value = vec![b'x'; bytes];
        self.state.put(key, &value, self.seq, &mut |old, revision| {
            dumps.changed(key, old, revision);
        });
    }

    fn remove(&mut self, key: &str) {
        if let Some(old) = self.state.remove(key) {
            self.seq = self.seq.next();
            self.content.remove(key);
            self.dumps.changed(key, &old.value, old.revision);
        }
    }

    fn start(&mut self, name: u64) {
        let dump = Ticket(name);
        let started = self.dumps.start(dump, self.seq, self.state.keys());
        assert_eq!(started.is_ok(), self.reading.len() < DUMPS_MAX);
        if started.is_ok() {
            let shown = Content::new();
            self.reading
                .push((dump, self.seq, self.content.clone(), shown));
        }
    }

    fn page(&mut self, index: usize) {
        let (dump, at, want, shown) = &mut self.reading[index];
        let AnswerBody::DumpPage {
            revision,
            entries,
            more,
        } = self.dumps.page(*dump, &self.state)
        else {
            panic!("no page of {dump}");
        };
        assert_eq!(revision, *at);
        let bytes: usize = entries.iter().map(|e| e.key.len() + e.value.0.len()).sum();
        assert!(bytes < 2 * DUMP_PAGE_BYTES_MAX, "a page of {bytes} bytes");
        for entry in entries {
            let last = shown.last_key_value().map(|(key, _)| key.clone());
            assert!(last.is_none_or(|last| last < entry.key), "out of order");
            shown.insert(entry.key, (entry.value.0.len(), entry.revision));
        }
        if !more {
            assert_eq!(shown, want, "the dump at {at}");
            self.reading.remove(index);
            self.finished += 1;
        }
    }
}

fn name(key: u8) -> String {
    format!("key:{key:03}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_dump_is_the_state_at_its_start(steps in vec(step(), 1..400)) {
        let mut world = World::default();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Put { key, bytes } => world.put(&name(key), bytes),
                Step::Remove { key } => world.remove(&name(key)),
                Step::Start => world.start(number as u64),
                Step::Page(index) if !world.reading.is_empty() => {
                    let index = index.index(world.reading.len());
                    world.page(index);
                }
                Step::End(index) if !world.reading.is_empty() => {
                    let (dump, ..) = world.reading.remove(index.index(world.reading.len()));
                    world.dumps.end(dump);
                }
                Step::Page(_) | Step::End(_) => {}
            }
        }
        while !world.reading.is_empty() {
            world.page(0);
        }
        prop_assert_eq!(world.dumps.saved_bytes, 0, "nothing is kept without a dump");
        prop_assert!(world.dumps.open.is_empty());
    }
}

/// Pages move over keys that are newer than the dump, a bounded number at a time.
#[test]
fn keys_that_came_later_do_not_make_a_page_long() {
    let mut world = World::default();
    world.put("z", 1);
    world.start(1);
    for key in 0..PAGE_VISITS_MAX + 1 {
        world.put(&format!("a{key:06}"), 1);
    }
    let AnswerBody::DumpPage { entries, more, .. } = world.dumps.page(Ticket(1), &world.state)
    else {
        panic!("no page");
    };
    assert_eq!((entries.len(), more), (0, true));
    world.page(0);
    assert_eq!(world.finished, 1);
}

#[test]
fn a_dump_that_holds_too_much_is_given_up_alone() {
    const VALUE: usize = DUMP_PAGE_BYTES_MAX;
    const KEYS: u8 = 8;
    let mut world = World::default();
    world.dumps.saved_bytes_max = (usize::from(KEYS) - 1) * VALUE;
    for key in 0..KEYS {
        world.put(&name(key), VALUE);
    }
    world.start(1);
    for key in 0..KEYS / 2 {
        world.put(&name(key), 1);
    }
    assert!(world.dumps.saved_bytes > usize::from(KEYS / 2) * VALUE);
    world.start(2);
    for key in KEYS / 2..KEYS - 1 {
        world.put(&name(key), 1);
    }
    assert!(world.dumps.saved_bytes <= world.dumps.saved_bytes_max);
    let gone = world.dumps.page(Ticket(1), &world.state);
    assert!(
        matches!(&gone, AnswerBody::NoDump { reason } if reason.contains("256 MiB")),
        "{gone:?}"
    );
    while world.finished == 0 {
        world.page(1);
    }
    assert_eq!(world.dumps.saved_bytes, 0);
}

#[test]
fn a_dump_that_nobody_reads_ends() {
    let mut world = World::default();
    for key in 0..3 {
        world.put(&name(key), DUMP_PAGE_BYTES_MAX);
    }
    world.start(1);
    world.start(2);
    world.dumps.tick(IDLE_MS_MAX - 1);
    world.page(1);
    world.put(&name(2), 1);
    world.dumps.tick(IDLE_MS_MAX);
    let gone = world.dumps.page(Ticket(1), &world.state);
    assert!(matches!(gone, AnswerBody::NoDump { .. }), "{gone:?}");
    while world.finished == 0 {
        world.page(1);
    }
    assert_eq!(world.dumps.saved_bytes, 0);
}
