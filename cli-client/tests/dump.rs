//! `kvservice dump` and `kvservice restore`, as a shell runs them: what they refuse, and what they leave.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a failure here is the test's"
)]

mod common;

use common::{Fault, Server};
use kvservice_client::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

const LINES: &str = "{\"key\":\"color\",\"value\":\"red\",\"revision\":7}\n\
                     {\"key\":\"raw\",\"value\":{\"base64\":\"/wA=\"},\"revision\":5}\n";
const END: &str = "{\"end\":true,\"revision\":9,\"keys\":2}\n";

struct Ran {
    status: Option<i32>,
    out: String,
    err: String,
}

fn run(address: SocketAddr, args: &[&str], input: &str) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvservice"))
        .args(args)
        .env("KVSERVICE_SERVER", address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // All inputs here fit into the pipe. A program that refuses does not read it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    Ran {
        status: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A server of one HTTP answer: what it writes, byte for byte, before it closes.
fn answering(answer: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && tcp.read(&mut byte).unwrap() == 1 {
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"GET /v1/dump HTTP/1.1\r\n"));
        tcp.write_all(answer.as_bytes()).unwrap();
    });
    address
}

/// A dump of these lines in one chunk, and whatever comes after it.
fn chunked(lines: &str, rest: &str) -> String {
    let length = lines.len();
    format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{lines}\r\n{rest}")
}

fn whole() -> String {
    chunked(&format!("{LINES}{END}"), "0\r\n\r\n")
}

/// The names of the files in a folder.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_whole_dump_goes_to_standard_output_or_gets_its_name() {
    let ran = run(answering(whole()), &["dump"], "");
    assert_eq!(
        (ran.status, ran.out, ran.err),
        (
            Some(0),
            format!("{LINES}{END}"),
            "2 keys, at revision 9\n".to_owned()
        )
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("all.jsonl");
    let ran = run(answering(whole()), &["dump", file.to_str().unwrap()], "");
    assert_eq!((ran.status, ran.out.as_str()), (Some(0), ""));
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{LINES}{END}"));
    assert_eq!(names(dir.path()), ["all.jsonl"]);
}

#[test]
fn a_dump_that_is_not_whole_is_a_failure_and_leaves_no_file() {
    for answer in [
        chunked(LINES, ""),
        chunked(LINES, "0\r\n\r\n"),
        chunked(
            &format!("{LINES}{END}").replace("\"keys\":2", "\"keys\":3"),
            "0\r\n\r\n",
        ),
        // All lines are there, and the end of the body is not: whoever cut it off has more to say.
        chunked(&format!("{LINES}{END}"), ""),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("all.jsonl");
        fs::write(&file, "an earlier dump").unwrap();
        let address = answering(answer.clone());
        let ran = run(address, &["dump", file.to_str().unwrap()], "");
        assert_eq!(ran.status, Some(1), "{answer}: {}", ran.err);
        assert!(ran.err.contains("incomplete"), "{}", ran.err);
        assert_eq!(fs::read_to_string(&file).unwrap(), "an earlier dump");
        assert_eq!(names(dir.path()), ["all.jsonl"]);
        let ran = run(answering(answer), &["dump"], "");
        assert_eq!(ran.status, Some(1), "{}", ran.err);
    }
}

#[test]
fn a_servers_refusal_is_shown() {
    let reason = "4 dumps are being read already: try again later";
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: {}\r\n\r\n{reason}\n",
        reason.len() + 1
    );
    let ran = run(answering(answer), &["dump"], "");
    assert_eq!((ran.status, ran.out.as_str()), (Some(2), ""));
    assert!(ran.err.contains(reason), "{}", ran.err);
    let older = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned();
    let ran = run(answering(older), &["dump"], "");
    assert_eq!(ran.status, Some(2));
    assert!(ran.err.contains("404"), "{}", ran.err);
}

fn restored(server: &Server) -> bool {
    server.value("color") == Some(Value::from("red"))
        && server.value("raw") == Some(Value::from(vec![0xff, 0]))
}

#[test]
fn a_dump_is_restored_from_a_pipe_and_from_a_file() {
    let dump = format!("{LINES}{END}");
    let server = Server::start([]);
    let ran = run(server.address, &["restore"], &dump);
    assert_eq!((ran.status, ran.out.as_str()), (Some(0), ""), "{}", ran.err);
    let said = "2 keys written, under revisions 1 to 2: the dump of revision 9 is restored\n";
    assert_eq!(ran.err, said);
    assert!(restored(&server));

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("all.jsonl");
    fs::write(&file, dump).unwrap();
    let server = Server::start([]);
    let ran = run(server.address, &["restore", file.to_str().unwrap()], "");
    assert_eq!(ran.status, Some(0), "{}", ran.err);
    assert!(restored(&server));
}

#[test]
fn a_server_that_takes_no_writes_for_a_while_is_asked_again() {
    let dump = format!("{LINES}{END}");
    let server = Server::start([Fault::None, Fault::Unavailable, Fault::Unavailable]);
    let ran = run(server.address, &["restore"], &dump);
    assert_eq!(ran.status, Some(0), "{}", ran.err);
    assert!(ran.err.contains("2 keys written"), "{}", ran.err);
    assert!(restored(&server));
    // What looks for data, and three times the two keys.
    assert_eq!(server.seen().len(), 7);
}

#[test]
fn a_cluster_that_holds_data_is_left_alone_unless_forced() {
    let dump = format!("{LINES}{END}");
    let server = Server::start([]);
    server.preset("color", "green");
    server.preset("other", "x");
    let ran = run(server.address, &["restore"], &dump);
    assert_eq!(ran.status, Some(2));
    assert!(ran.err.contains("holds data (\"color\""), "{}", ran.err);
    assert!(ran.err.contains("--force"), "{}", ran.err);
    assert_eq!(server.value("color"), Some(Value::from("green")));
    let ran = run(server.address, &["restore", "--force", "-"], &dump);
    assert_eq!(ran.status, Some(0), "{}", ran.err);
    assert!(restored(&server));
    assert_eq!(server.value("other"), Some(Value::from("x")));
}

#[test]
fn a_file_that_is_not_whole_is_refused_before_anything_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("all.jsonl");
    let server = Server::start([]);
    for (dump, status, said) in [
        (LINES.to_owned(), 1, "no end line"),
        (format!("{LINES}{{\"key\":\"c"), 1, "cut off in line 3"),
        (format!("{LINES}nonsense\n{END}"), 2, "line 3"),
        (format!("{LINES}{LINES}{END}"), 1, "counts 2 keys"),
    ] {
        fs::write(&file, dump).unwrap();
        let ran = run(server.address, &["restore", file.to_str().unwrap()], "");
        assert_eq!(ran.status, Some(status), "{}", ran.err);
        assert!(ran.err.contains(said), "{}", ran.err);
        assert!(ran.err.contains("nothing was written"), "{}", ran.err);
    }
    assert_eq!((server.seen().len(), server.hellos()), (0, 0));
}

#[test]
fn a_pipe_that_is_not_whole_says_so_at_its_end() {
    let server = Server::start([]);
    let ran = run(server.address, &["restore"], LINES);
    assert_eq!(ran.status, Some(1));
    assert!(ran.err.contains("incomplete"), "{}", ran.err);
    assert!(ran.err.contains("2 keys were written"), "{}", ran.err);
    assert!(restored(&server));
}

#[test]
fn a_server_that_refuses_a_key_stops_it() {
    let server = Server::start([Fault::None, Fault::TooLarge]);
    let ran = run(server.address, &["restore"], &format!("{LINES}{END}"));
    assert_eq!(ran.status, Some(2));
    assert!(ran.err.contains("stopped after 0 keys"), "{}", ran.err);
}
