//! A seed decides the whole run: what is found can be seen again.

#![allow(missing_docs, clippy::unwrap_used)]

use std::process::Command;

fn told(seed: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_net"))
        .args(["--seed", seed])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}");
    told
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in ["0", "3", "8"] {
        // With its digest of all that clients asked and were told.
        let first = told(seed);
        assert!(first.contains("digest"), "{first}");
        assert_eq!(first, told(seed));
    }
    assert_ne!(told("1"), told("25"), "two seeds of one scenario");
}
