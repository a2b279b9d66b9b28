//! Every maximum in one place, the unit in its name. The asserts at the end relate them.

/// With the feature `small-limits`, for simulators: what is forgotten only after long runs is forgotten soon.
const SMALL: bool = cfg!(feature = "small-limits");

/// Longest key, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// Longest frame a client may send, in bytes.
pub const CLIENT_FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most requests in one client frame.
pub const BATCH_REQUESTS_MAX: usize = 1024;
/// Most unanswered requests of one connection; past that it is not read.
pub const IN_FLIGHT_REQUESTS_MAX: usize = if SMALL { 40 } else { 1024 };
/// Most entries on one page of `list`.
pub const LIST_ENTRIES_MAX: u32 = 1000;
/// Entries on a page of `list` where the request does not say.
pub const LIST_ENTRIES_DEFAULT: u32 = 100;
/// A page of `list` ends once its keys and values pass this many bytes.
pub const LIST_BYTES_MAX: usize = 1024 * 1024;
/// Most dumps that are read at one time, by all clients together.
pub const DUMPS_MAX: usize = 4;
/// A page of a dump ends once its keys and values pass this many bytes.
pub const DUMP_PAGE_BYTES_MAX: usize = 256 * 1024;
/// Longest line of a dump, in bytes. Escapes make a byte of text six of JSON at most.
pub const DUMP_LINE_BYTES_MAX: usize = 6 * (VALUE_BYTES_MAX + KEY_BYTES_MAX) + 1024;
/// Events kept for `status`.
pub const EVENTS_MAX: usize = 64;

/// Write outcomes kept for one session.
pub const SESSION_OUTCOMES_MAX: usize = if SMALL { 8 } else { 1024 };
/// Bytes of write outcomes kept for one session.
pub const SESSION_OUTCOME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Sessions kept in the replicated state; the least recently used goes first.
pub const SESSIONS_MAX: usize = if SMALL { 12 } else { 16_384 };
/// Bytes of write outcomes kept for all sessions together.
pub const SESSIONS_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Longest frame between nodes, in bytes. A frame holds at least one entry, snapshot chunk or answer.
pub const CHAIN_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A batch of entries or requests is closed once it passes this many bytes.
pub const CHAIN_BATCH_BYTES_TARGET: usize = 1024 * 1024;
/// Most requests in one frame from front-end to head. Bounds the answers that one frame can cause.
pub const CHAIN_REQUESTS_MAX: usize = 128;
/// Most members in a view.
pub const MEMBERS_MAX: usize = 64;
/// Longest `HOST:PORT`, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 256;

const _: () = {
    assert!(
        CHAIN_BATCH_BYTES_TARGET + 2 * VALUE_BYTES_MAX + 2 * KEY_BYTES_MAX < CHAIN_FRAME_BYTES_MAX
    );
    assert!(VALUE_BYTES_MAX * 4 / 3 + KEY_BYTES_MAX < CLIENT_FRAME_BYTES_MAX);
    assert!(SMALL || SESSION_OUTCOMES_MAX >= IN_FLIGHT_REQUESTS_MAX);
    assert!(SESSION_OUTCOME_BYTES_MAX > 2 * VALUE_BYTES_MAX);
    assert!(SESSIONS_BYTES_MAX > SESSION_OUTCOME_BYTES_MAX);
    assert!(DUMP_PAGE_BYTES_MAX <= LIST_BYTES_MAX);
    assert!(LIST_BYTES_MAX + VALUE_BYTES_MAX + KEY_BYTES_MAX < CHAIN_FRAME_BYTES_MAX);
};
