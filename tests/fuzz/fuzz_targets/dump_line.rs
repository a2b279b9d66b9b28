//! A line of a dump, as `kvservice restore` reads it.
#![no_main]

use kvservice_fuzz::within_memory;
use kvservice_shared::api::DumpLine;
use kvservice_shared::limits::{DUMP_LINE_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    let parsed = within_memory(line.len(), 16, || DumpLine::parse(line));
    let Ok(parsed) = parsed else { return };
    let mut written = String::new();
    match &parsed {
        DumpLine::Entry(entry) => {
            assert!((1..=KEY_BYTES_MAX).contains(&entry.key.len()));
            assert!(entry.value.0.len() <= VALUE_BYTES_MAX);
            entry.write_dump_line(&mut written);
        }
        DumpLine::End(end) => end.write_dump_line(&mut written),
    }
    assert!(written.len() <= DUMP_LINE_BYTES_MAX);
    assert_eq!(written.find('\n'), Some(written.len() - 1), "one line");
    assert_eq!(DumpLine::parse(written.as_bytes()), Ok(parsed));
    let cut = &written.as_bytes()[..written.len() - 2];
    assert!(DumpLine::parse(cut).is_err(), "cut off");
});
