//! A checkpoint of a node that is not what it was.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| kvservice_fuzz::directory::check(data, &["checkpoint-"]));
