//! A node's two small files, who it is and what it remembers, one of which is not what it was.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| kvservice_fuzz::directory::check(data, &["meta", "node"]));
