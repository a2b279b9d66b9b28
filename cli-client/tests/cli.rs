//! The binary, as a shell runs it.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a failure here is the test's"
)]

mod common;

use common::{Fault, Server, nobody};
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs `kvservice` against the server, with `input` on its standard input.
fn kvservice(server: &Server, args: &[&str], input: &[u8]) -> Output {
    run(&server.address.to_string(), args, input)
}

fn run(address: &str, args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvservice"))
        .args(args)
        .env("KVSERVICE_SERVER", address)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A program that has had enough of its input closes it.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

#[track_caller]
fn expect(output: &Output, status: i32, stdout: &str, stderr: &str) {
    let shown = (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(shown, (Some(status), stdout.into(), stderr.into()));
}

#[test]
fn the_four_answers() {
    let server = Server::start([]);
    let input = b"set(color,red)\nget(color)\ntestset(color,red,blue)\nget(color)\nexit\n";
    let answers = "set(color,red) -> red\nget(color) -> red\n\
                   testset(color,red,blue) -> blue [set]\nget(color) -> blue\n";
    expect(&kvservice(&server, &[], input), 0, answers, "");
}

#[test]
fn a_pipe_goes_on_after_lines_that_fail() {
    let server = Server::start([]);
    let input = b"get(nothing)\n\nnonsense\nset(a,1)\nset(a\ntestset(a,2,3)\n  delete( a )  \nlist()\n\xff\nstatus()\nget(b)";
    let output = kvservice(&server, &[], input);
    let stdout = "get(nothing) -> (none)\nset(a,1) -> 1\ntestset(a,2,3) -> 1 [not set]\n\
                  delete(a) -> deleted\nlist() -> ";
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        shown.starts_with(stdout.trim_end_matches("list() -> ")),
        "{shown}"
    );
    assert!(shown.ends_with("get(b) -> (none)\n"), "{shown}");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<_> = stderr
        .lines()
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        lines.starts_with(&["line 3", "line 5", "line 9"]),
        "{stderr}"
    );
}

#[test]
fn nothing_after_exit_runs() {
    let server = Server::start([]);
    expect(&kvservice(&server, &[], b"exit\nset(a,1)\n"), 0, "", "");
    assert_eq!(server.value("a"), None);
}

#[test]
fn an_error_answer_is_a_failure_with_its_line() {
    let server = Server::start([Fault::Unavailable]);
    let output = kvservice(&server, &[], b"get(a)\n");
    expect(
        &output,
        2,
        "",
        "line 1: get(a) -> error unavailable: no node has joined yet\n",
    );
}

#[test]
fn many_lines_keep_their_order_through_lost_connections() {
    let server = Server::start([
        Fault::None,
        Fault::DropAfter,
        Fault::None,
        Fault::DropBefore,
    ]);
    let (mut input, mut expected) = (String::new(), String::new());
    for n in 0..2000 {
        let key = n % 7;
        input += &format!("set(k{key},{n})\nget(k{key})\n");
        expected += &format!("set(k{key},{n}) -> {n}\nget(k{key}) -> {n}\n");
    }
    let output = kvservice(&server, &[], input.as_bytes());
    expect(&output, 0, &expected, "");
    assert!(server.hellos() >= 3, "the connection was lost twice");
}

#[test]
fn list_from_a_pipe_has_all_pages() {
    let server = Server::start([]);
    let mut expected = String::new();
    for n in 0..2500 {
        server.preset(&format!("k{n:04}"), "v");
        expected += &format!("k{n:04} -> v\n");
    }
    expect(&kvservice(&server, &[], b"list(k)"), 0, &expected, "");
    expect(&kvservice(&server, &[], b"list(none)"), 0, "(none)\n", "");
}

#[test]
fn json_from_a_pipe() {
    let server = Server::start([Fault::None, Fault::Unavailable]);
    let output = kvservice(&server, &["-o", "json"], b"set(a,1)\n");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&answer["value"], &answer["revision"]),
        (&"1".into(), &1.into())
    );
    let output = kvservice(&server, &["-o", "json"], b"get(a)\n");
    assert_eq!(output.status.code(), Some(2));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["error"]["code"], "unavailable");
}

#[test]
fn commands_and_their_exit_statuses() {
    let server = Server::start([]);
    let run = |args: &[&str]| kvservice(&server, args, b"");
    expect(&run(&["get", "color"]), 1, "", "");
    expect(&run(&["set", "color", "red"]), 0, "OK\n", "");
    expect(&run(&["get", "color"]), 0, "red\n", "");
    expect(&run(&["testset", "color", "green", "blue"]), 1, "red\n", "");
    expect(&run(&["testset", "color", "red", "blue"]), 0, "OK\n", "");
    expect(
        &run(&["testset", "color", "--absent", "x"]),
        1,
        "blue\n",
        "",
    );
    expect(
        &run(&["testset", "shape", "--absent", "round"]),
        0,
        "OK\n",
        "",
    );
    expect(&run(&["testset", "nothing", "a", "b"]), 1, "", "");
    expect(&run(&["list"]), 0, "color\tblue\nshape\tround\n", "");
    expect(&run(&["list", "sh"]), 0, "shape\tround\n", "");
    expect(&run(&["list", "x"]), 0, "", "");
    expect(&run(&["delete", "color"]), 0, "deleted\n", "");
    expect(&run(&["delete", "color"]), 1, "", "");
    let status = run(&["status"]);
    assert_eq!(status.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&status.stdout).contains("no node has joined yet"));
}

#[test]
fn json_answers_of_commands() {
    let server = Server::start([]);
    let json = |args: &[&str]| {
        let output = kvservice(&server, args, b"");
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code().unwrap(), value)
    };
    let (status, answer) = json(&["get", "a", "-o", "json"]);
    assert_eq!(
        (status, &answer["value"], &answer["revision"]),
        (1, &serde_json::Value::Null, &0.into())
    );
    let (status, answer) = json(&["set", "a", "1", "-o", "json"]);
    assert_eq!((status, &answer["value"]), (0, &"1".into()));
    let (status, answer) = json(&["-o", "json", "testset", "a", "2", "3"]);
    assert_eq!((status, &answer["swapped"]), (1, &false.into()));
    let (status, answer) = json(&["-o", "json", "list"]);
    assert_eq!((status, &answer["entries"][0]["key"]), (0, &"a".into()));
    let (status, answer) = json(&["-o", "json", "status"]);
    assert_eq!((status, &answer["mode"]), (0, &"chain".into()));
    let failing = Server::start([Fault::Unavailable]);
    let output = kvservice(&failing, &["-o", "json", "get", "a"], b"");
    assert_eq!(output.status.code(), Some(2));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["error"]["outcome"], "not_applied");
}

#[test]
fn a_value_from_standard_input_keeps_every_byte() {
    let server = Server::start([]);
    let bytes: Vec<u8> = (0..=255).chain(*b"\n\n").collect();
    expect(
        &kvservice(&server, &["set", "bytes", "-"], &bytes),
        0,
        "OK\n",
        "",
    );
    let mut printed = bytes.clone();
    printed.push(b'\n');
    assert_eq!(kvservice(&server, &["get", "bytes"], b"").stdout, printed);
    let listed = kvservice(&server, &["list"], b"").stdout;
    assert!(listed.starts_with(b"bytes\tbase64:AAECAw"), "{listed:?}");
    assert_eq!(listed.iter().filter(|&&b| b == b'\n').count(), 1);

    let args = ["testset", "empty", "--absent", "-"];
    expect(&kvservice(&server, &args, b""), 0, "OK\n", "");
    expect(&kvservice(&server, &["get", "empty"], b""), 0, "\n", "");
}

#[test]
fn limits_are_checked_before_anything_is_sent() {
    let server = Server::start([]);
    let key = "k".repeat(1025);
    let refused = "kvservice: the key is 1025 bytes long: at most 1024 are allowed\n";
    expect(&kvservice(&server, &["get", &key], b""), 2, "", refused);
    expect(
        &kvservice(&server, &["set", &key, "v"], b""),
        2,
        "",
        refused,
    );
    expect(
        &kvservice(&server, &["delete", ""], b""),
        2,
        "",
        "kvservice: the key is empty\n",
    );
    let long = vec![b'v'; 1024 * 1024 + 1];
    let refused = "kvservice: standard input is longer than a value may be (1048576 bytes)\n";
    expect(
        &kvservice(&server, &["set", "k", "-"], &long),
        2,
        "",
        refused,
    );
    assert_eq!(server.seen(), []);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let server = Server::start([]);
    let output = run("wss://localhost:7400", &["get", "a"], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not speak TLS yet"));
    let output = kvservice(&server, &["testset", "a", "--absent", "b", "c"], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("with --absent there is no TEST"));
    assert_eq!(server.seen(), []);
}

#[test]
fn a_server_that_is_not_there_is_named_with_what_to_do() {
    let address = nobody().to_string();
    for (args, input) in [
        (vec!["get", "a"], ""),
        (vec!["set", "a", "b"], ""),
        (vec![], "get(a)\n"),
    ] {
        let output = run(&address, &args, input.as_bytes());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        let expected =
            format!("kvservice: cannot reach ws://{address}/v1/ws: connection refused\n");
        assert!(stderr.starts_with(&expected), "{stderr}");
        assert!(
            stderr.contains(&format!("kvservice-server single --listen {address}")),
            "{stderr}"
        );
    }
}

#[test]
fn a_chain_that_takes_no_session_still_reads_and_says_so() {
    let server = Server::start([]);
    server.refuse_hello(true);
    assert_eq!(kvservice(&server, &["status"], b"").status.code(), Some(0));
    let output = kvservice(&server, &["set", "a", "b"], b"");
    let refused = "kvservice: unavailable: no node has joined yet\n";
    expect(&output, 2, "", refused);
}

#[test]
fn a_write_survives_a_lost_connection() {
    let server = Server::start([Fault::DropAfter]);
    expect(
        &kvservice(&server, &["testset", "a", "--absent", "1"], b""),
        0,
        "OK\n",
        "",
    );
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn a_request_times_out() {
    let server = Server::start([Fault::Mute]);
    let output = kvservice(&server, &["set", "a", "b", "--timeout", "300ms"], b"");
    let timed_out = "kvservice: timeout: no answer within 300 ms (outcome unknown)\n";
    expect(&output, 2, "", timed_out);
}

#[test]
fn completions_are_printed_without_a_server() {
    let output = run("127.0.0.1:1", &["completions", "bash"], b"");
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("complete -F _kvservice"));
}

#[test]
fn bench_measures_every_test_and_survives_lost_connections() {
    let server = Server::start([
        Fault::None,
        Fault::DropAfter,
        Fault::None,
        Fault::DropBefore,
        Fault::None,
        Fault::DropAfter,
    ]);
    let args = "bench -c 4 -P 8 -n 1000 -r 50 -d 16 -t set,get,testset --json"
        .split(' ')
        .collect::<Vec<_>>();
    let output = kvservice(&server, &args, b"");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let lines: Vec<serde_json::Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let ops: Vec<_> = lines
        .iter()
        .map(|line| line["op"].as_str().unwrap())
        .collect();
    assert_eq!(ops, ["set", "get", "testset"]);
    for line in &lines {
        assert_eq!(
            (&line["errors"], &line["pipeline"]),
            (&0.into(), &8.into()),
            "{line}"
        );
        assert!(line["ops_per_s"].as_f64().unwrap() > 0.0, "{line}");
        assert!(
            line["p50_us"].as_u64().unwrap() <= line["max_us"].as_u64().unwrap(),
            "{line}"
        );
    }
    assert!(stderr.contains("connections were lost 3 times"), "{stderr}");
    // 1,000 of each test, and nothing more than what the drops made it send again.
    let seen = server.seen().len();
    assert!((3000..=3024).contains(&seen), "{seen}");
    let key = &server.seen()[0].request.op;
    assert!(format!("{key:?}").contains("key:0000000000"), "{key:?}");
}

#[test]
fn bench_prints_a_table_and_counts_errors() {
    let server = Server::start([Fault::Unavailable]);
    let args = ["bench", "-c", "1", "-n", "10", "-t", "get"];
    let output = kvservice(&server, &args, b"");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        stdout.starts_with("====== GET ======\n  9 requests completed in "),
        "{stdout}"
    );
    assert!(stdout.contains("errors: 1\n"), "{stdout}");
    assert!(stderr.contains("get: 1 x unavailable"), "{stderr}");
    assert!(stderr.contains("get: 9 of 9 found nothing"), "{stderr}");
}

#[test]
fn bench_ends_in_time() {
    let server = Server::start([]);
    let output = kvservice(
        &server,
        &["bench", "-c", "2", "-s", "300ms", "-t", "set", "--json"],
        b"",
    );
    assert_eq!(output.status.code(), Some(0));
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(line["longest_gap_ms"].as_f64().unwrap() < 300.0, "{line}");
    let refused = kvservice(&server, &["bench", "-d", "1000000", "-P", "100"], b"");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("do not fit into one frame"));
}

#[test]
fn output_that_nobody_reads_any_more_is_no_error() {
    let server = Server::start([]);
    for n in 0..5000 {
        server.preset(
            &format!("key:{n}"),
            "a value of some length, so that pipes fill up",
        );
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvservice"))
        .arg("list")
        .env("KVSERVICE_SERVER", server.address.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.len()),
        (Some(0), 0),
        "{output:?}"
    );
}
