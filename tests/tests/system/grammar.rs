//! `kvservice` against real servers of both variations: what it prints, and its exit status.

use kvservice_tests::chain::{Chain, Setup};
use kvservice_tests::cli::{Ran, kvservice};
use kvservice_tests::process::lasting_address;
use kvservice_tests::rounds::{Round, rounds};
use kvservice_tests::single::Single;
use std::net::SocketAddr;

/// A server of each variation.
async fn both(round: &Round, check: impl Fn(SocketAddr)) {
    let single = Single::start(round, &[]).await;
    check(single.address);
    let mut chain = Chain::start(round, Setup::default()).await;
    check(chain.clients());
    chain.settle(3).await;
}

fn ran(status: i32, out: &str) -> Ran {
    Ran {
        status: Some(status),
        out: out.to_owned(),
        err: String::new(),
    }
}

/// The line of the README.
#[test]
fn four_answers_from_a_pipe() {
    rounds(async |round| {
        both(round, |server| {
            let input = "set(color,red)\nget(color)\ntestset(color,red,blue)\nget(color)\nexit\n";
            let answers = "set(color,red) -> red\nget(color) -> red\n\
                           testset(color,red,blue) -> blue [set]\nget(color) -> blue\n";
            assert_eq!(kvservice(server, &[], input.as_bytes()), ran(0, answers));
        })
        .await;
    });
}

#[test]
fn every_command_from_a_pipe() {
    rounds(async |round| {
        both(round, |server| {
            let input = concat!(
                "get(nothing)\n",
                "  set ( \"two words\" , \"a\\nb\" )  \n",
                "testset(color,,red)\n",
                "testset(color,,green)\n",
                "testset(color,blue,green)\n",
                "list(co)\n",
                "list()\n",
                "delete(color)\n",
                "delete(color)\n",
                "get(color)\n",
            );
            let answers = concat!(
                "get(nothing) -> (none)\n",
                "set(\"two words\",\"a\\nb\") -> \"a\\nb\"\n",
                "testset(color,,red) -> red [set]\n",
                "testset(color,,green) -> red [not set]\n",
                "testset(color,blue,green) -> red [not set]\n",
                "color -> red\n",
                "color -> red\n",
                "\"two words\" -> \"a\\nb\"\n",
                "delete(color) -> deleted\n",
                "delete(color) -> (none)\n",
                "get(color) -> (none)\n",
            );
            assert_eq!(kvservice(server, &[], input.as_bytes()), ran(0, answers));
        })
        .await;
    });
}

/// A line that does not parse is named with its number; the rest runs, and the exit status tells.
#[test]
fn lines_that_do_not_parse() {
    rounds(async |round| {
        both(round, |server| {
            let Ran { status, out, err } = kvservice(
                server,
                &[],
                b"set(a,1)\nset(a\nget(a)\nfrobnicate\nget(a)\n",
            );
            assert_eq!(status, Some(2));
            assert_eq!(out, "set(a,1) -> 1\nget(a) -> 1\nget(a) -> 1\n");
            let lines: Vec<&str> = err
                .lines()
                .filter(|line| line.starts_with("line "))
                .collect();
            assert_eq!(lines.len(), 2, "{err}");
            assert!(
                lines[0].starts_with("line 2") && lines[1].starts_with("line 4"),
                "{err}"
            );
        })
        .await;
    });
}

#[test]
fn commands_and_their_exit_statuses() {
    rounds(async |round| {
        both(round, |server| {
            let run = |args: &[&str]| kvservice(server, args, b"");
            assert_eq!(run(&["get", "color"]), ran(1, ""));
            assert_eq!(run(&["set", "color", "red"]), ran(0, "OK\n"));
            assert_eq!(run(&["get", "color"]), ran(0, "red\n"));
            assert_eq!(run(&["testset", "color", "red", "blue"]), ran(0, "OK\n"));
            assert_eq!(run(&["testset", "color", "red", "green"]), ran(1, "blue\n"));
            assert_eq!(
                run(&["testset", "color", "--absent", "green"]),
                ran(1, "blue\n")
            );
            assert_eq!(run(&["testset", "other", "--absent", "1"]), ran(0, "OK\n"));
            assert_eq!(run(&["testset", "nothing", "1", "2"]), ran(1, ""));
            assert_eq!(run(&["list"]), ran(0, "color\tblue\nother\t1\n"));
            assert_eq!(run(&["list", "col"]), ran(0, "color\tblue\n"));
            assert_eq!(run(&["list", "nothing"]), ran(0, ""));
            assert_eq!(run(&["delete", "color"]), ran(0, "deleted\n"));
            assert_eq!(run(&["delete", "color"]), ran(1, ""));

            let json = run(&["-o", "json", "get", "other"]);
            assert_eq!((json.status, json.err.as_str()), (Some(0), ""));
            let answer: serde_json::Value =
                serde_json::from_str(&json.out).expect("JSON was asked for");
            assert_eq!(answer["value"], "1");
            let status = run(&["status"]);
            assert_eq!(status.status, Some(0), "{status:?}");
            assert!(status.out.contains("n1"), "{status:?}");
        })
        .await;
    });
}

/// Bytes go in and come out as they are.
#[test]
fn values_byte_for_byte() {
    rounds(async |round| {
        both(round, |server| {
            let text = "a line\nand half a line\u{0}\r";
            let set = kvservice(server, &["set", "bytes", "-"], text.as_bytes());
            assert_eq!(set, ran(0, "OK\n"));
            assert_eq!(
                kvservice(server, &["get", "bytes"], b""),
                ran(0, &format!("{text}\n"))
            );
            let set = kvservice(server, &["set", "binary", "-"], b"\xff\x00\xfe");
            assert_eq!(set, ran(0, "OK\n"));
            let listed = kvservice(server, &["list", "binary"], b"");
            assert_eq!(listed, ran(0, "binary\tbase64:/wD+\n"));
        })
        .await;
    });
}

#[test]
fn errors_have_status_2() {
    rounds(async |round| {
        both(round, |server| {
            let long_key = "k".repeat(1025);
            let bad: [&[&str]; 5] = [
                &["get", ""],
                &["get", &long_key],
                &["testset", "color", "red"],
                &["frobnicate"],
                &["--server", "nowhere", "get", "color"],
            ];
            for args in bad {
                let Ran { status, out, err } = kvservice(server, args, b"");
                assert_eq!((status, out.as_str()), (Some(2), ""), "{args:?}: {err}");
                assert!(!err.trim().is_empty(), "{args:?} says nothing");
            }
        })
        .await;

        let nobody = lasting_address();
        let Ran { status, out, err } = kvservice(nobody, &["get", "color"], b"");
        assert_eq!((status, out.as_str()), (Some(2), ""), "{err}");
        assert!(err.contains(&nobody.to_string()), "{err}");
    });
}
