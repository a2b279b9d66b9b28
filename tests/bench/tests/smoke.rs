//! The whole program, on our own system alone: `cargo xtask test --only bench`.

use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn bench(dir: &Path, words: &str) -> Output {
    let bin_dir = std::env::var_os("KVSERVICE_BIN_DIR").map(PathBuf::from);
    let bin_dir = bin_dir.expect("KVSERVICE_BIN_DIR; cargo xtask test --only bench sets it");
    let program = env!("CARGO_BIN_EXE_kvservice-rivals");
    Command::new(program)
        .args(words.split(' '))
        .arg("--bin-dir")
        .arg(bin_dir)
        .current_dir(dir)
        .output()
        .unwrap_or_else(|error| panic!("{program} does not start: {error}"))
}

#[test]
fn our_own_systems_are_measured_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let words = "--quick --seconds 0.2 --steal-max 100 -c 5 -r 500 --only throughput --only latency --only ycsb \
                 --only failover --system kvservice --system kvservice-memory --system hop \
                 --json out.json --markdown out.md --svg out.svg";
    let output = bench(dir.path(), words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let json: Json = serde_json::from_str(&read("out.json")).unwrap();
    let rows = json["rows"].as_array().unwrap();
    // set on two, get on two, testset on two, at half of the peak on two each, YCSB A on two.
    assert_eq!(rows.len(), 3 * 2 + 3 * 2 + 2 + 2 * 2 + 2);
    // In one short turn the host may leave nobody any time; not in all of them.
    for system in ["kvservice", "kvservice-memory", "hop"] {
        let of_system = rows.iter().filter(|row| row["system"] == system);
        let rates = of_system.map(|row| row["median"]["ops_per_s"].as_f64().unwrap());
        assert!(rates.sum::<f64>() > 10.0, "{system}");
    }
    for row in rows {
        assert_eq!(row["rounds"][0]["errors"], 0, "{row}");
        assert_eq!(row["rounds"][0]["missed"], 0, "{row}");
        let cpu = row["median"]["cpu_s_per_million"].as_object().unwrap();
        assert!(cpu.contains_key("generator"), "{row}");
        let [date, machine, commit] = ["date", "machine", "commit"].map(|key| &row[key]);
        assert!(date.is_string() && machine.is_string() && commit.is_string());
    }
    let failures = json["failover"].as_array().unwrap();
    assert_eq!(failures.len(), 6);
    for row in failures {
        let gap = row["median_ms"].as_f64().unwrap();
        assert!(gap > 0.0 && gap < 60_000.0, "{row}");
        assert_eq!(row["keys"], 100_000, "{row}");
    }
    assert!(read("out.md").contains("| kvservice |"));
    assert!(read("out.svg").starts_with("<svg"));
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 3, "{left:?}");
    assert_eq!(processes_in(dir.path()), Vec::<String>::new());
}

#[test]
fn a_system_that_breaks_is_left_out_and_the_others_are_measured() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["kvservice-server", "kvservice-backend", "kvservice"] {
        std::os::unix::fs::symlink("/bin/false", dir.path().join(name)).unwrap();
    }
    let words = "--quick --seconds 0.2 --steal-max 100 -c 5 -r 500 --only distribution --system kvservice --system hop \
                 --json out.json --bin-dir .";
    let output = Command::new(env!("CARGO_BIN_EXE_kvservice-rivals"))
        .args(words.split_ascii_whitespace())
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("2 measurements are missing"), "{said}");
    let text = std::fs::read_to_string(dir.path().join("out.json")).unwrap();
    let json: Json = serde_json::from_str(&text).unwrap();
    let rows = json["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["system"]), (1, &Json::from("hop")));
    assert_eq!(json["notes"].as_array().unwrap().len(), 2, "{json}");
}

#[test]
fn a_wrong_directory_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_kvservice-rivals"))
        .args(["--bin-dir", "nowhere"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("cargo xtask bench"), "{said}");
}

/// The command lines of processes that were given something in this directory.
fn processes_in(dir: &Path) -> Vec<String> {
    let dir = dir.canonicalize().expect("it is there");
    let dir = dir.to_string_lossy();
    let entries = std::fs::read_dir("/proc").expect("this is Linux");
    let lines = entries.filter_map(|entry| {
        let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(dir.as_ref())).collect()
}
