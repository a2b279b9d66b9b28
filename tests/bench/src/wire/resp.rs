//! Redis: RESP over TCP, pipelined, with `WAIT` after the writes of each pipeline.

use super::{Request, Target, Wire};
use crate::stats::Answer;
use crate::work::{KEY_BYTES, Op, push_key, value};
use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BytesMut};
use std::collections::VecDeque;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a `testset` is in Redis, which has no command for it.
const TESTSET: &str = "if redis.call('GET',KEYS[1])==ARGV[1] then redis.call('SET',KEYS[1],ARGV[2]) return 1 \
                       else return 0 end";
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// One connection to Redis.
#[derive(Debug)]
pub struct Resp {
    stream: TcpStream,
    input: BytesMut,
    output: Vec<u8>,
    /// Behind a key in `SET` and in the script's call.
    set_tail: Vec<u8>,
    testset_tail: Vec<u8>,
    testset_head: Vec<u8>,
    wait: Option<Vec<u8>>,
    replicas: i64,
    /// What the answers to come are for, in their order.
    expected: VecDeque<Expected>,
    /// Answers to `WAIT` to come.
    waits: usize,
    /// Writes that are answered, and count with the answer to `WAIT`.
    unsafe_yet: Vec<(u64, Answer)>,
}

#[derive(Clone, Copy, Debug)]
enum Expected {
    Read(u64),
    Write(u64),
    Wait,
}

impl Wire for Resp {
    const BATCHES: bool = true;

    fn fill_max(_: &Target) -> u16 {
        1
    }

    async fn open(target: &Target) -> Result<Resp> {
        let stream = TcpStream::connect(target.address)
            .await
            .context("cannot connect to Redis")?;
        stream.set_nodelay(true)?;
        let value = value(target.value_bytes);
        let mut set_tail = b"\r\n".to_vec();
        push_bulk(&mut set_tail, &value);
        let mut testset_tail = set_tail.clone();
        push_bulk(&mut testset_tail, &value);
        let wait =
            (target.replicas > 0).then(|| command(&["WAIT", &target.replicas.to_string(), "0"]));
        let mut resp = Resp {
            stream,
            input: BytesMut::with_capacity(READ_BUFFER_BYTES),
            output: Vec::new(),
            set_tail,
            testset_tail,
            testset_head: Vec::new(),
            wait,
            replicas: target.replicas.into(),
            expected: VecDeque::new(),
            waits: 0,
            unsafe_yet: Vec::new(),
        };
        match resp.call(&["SCRIPT", "LOAD", TESTSET]).await? {
            OwnedReply::Bulk(Some(sha)) => {
                // The command, the script, the number of keys, the key, what it must hold, what it then holds.
                let mut head = b"*6\r\n".to_vec();
                push_bulk(&mut head, b"EVALSHA");
                push_bulk(&mut head, &sha);
                push_bulk(&mut head, b"1");
                push_key_length(&mut head);
                resp.testset_head = head;
            }
            other => bail!("Redis does not load a script: {other:?}"),
        }
        Ok(resp)
    }

    /// `WAIT` holds up its connection: what is sent meanwhile is not begun, and one `WAIT` for all of it is cheaper than
    /// one for each.
    fn is_ready(&self) -> bool {
        self.waits == 0
    }

    async fn send(&mut self, requests: &[Request]) -> Result<()> {
        self.output.clear();
        let mut writes = false;
        for request in requests {
            let (head, tail): (&[u8], &[u8]) = match request.op {
                Op::Get => (GET, b"\r\n"),
                Op::Set | Op::Fill(_) => (SET, &self.set_tail),
                Op::TestSet => (&self.testset_head, &self.testset_tail),
            };
            self.output.extend_from_slice(head);
            push_key(&mut self.output, request.key);
            self.output.extend_from_slice(tail);
            let write = request.op.is_write() && self.wait.is_some();
            writes |= write;
            self.expected.push_back(match write {
                true => Expected::Write(request.tag),
                false => Expected::Read(request.tag),
            });
        }
        if let (true, Some(wait)) = (writes, &self.wait) {
            self.output.extend_from_slice(wait);
            self.expected.push_back(Expected::Wait);
            self.waits += 1;
        }
        self.stream.write_all(&self.output).await?;
        Ok(())
    }

    async fn receive(&mut self, answers: &mut Vec<(u64, Answer)>) -> Result<()> {
        let room = READ_BUFFER_BYTES;
        self.input.reserve(room);
        if self.stream.read_buf(&mut self.input).await? == 0 {
            bail!("Redis has closed the connection");
        }
        while let Some((reply, used)) = parse(&self.input)? {
            let Some(expected) = self.expected.pop_front() else {
                bail!("Redis answers what was not asked");
            };
            self.waits -= usize::from(matches!(expected, Expected::Wait));
            take(
                expected,
                &reply,
                self.replicas,
                &mut self.unsafe_yet,
                answers,
            );
            self.input.advance(used);
        }
        Ok(())
    }
}

impl Resp {
    /// One command, and its answer; nothing else may be under way.
    async fn call(&mut self, words: &[&str]) -> Result<OwnedReply> {
        self.stream.write_all(&command(words)).await?;
        loop {
            if let Some((reply, used)) = parse(&self.input)? {
                let reply = reply.to_owned();
                self.input.advance(used);
                return Ok(reply);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                bail!("Redis has closed the connection");
            }
        }
    }
}

/// One command to the Redis or Sentinel at `address`, on a connection of its own.
///
/// # Errors
/// It cannot be reached, or does not speak RESP.
pub async fn ask(address: SocketAddr, words: &[&str]) -> Result<OwnedReply> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&command(words)).await?;
    let mut input = BytesMut::new();
    loop {
        if let Some((reply, _)) = parse(&input)? {
            return Ok(reply.to_owned());
        }
        ensure!(
            stream.read_buf(&mut input).await? > 0,
            "{address} has closed the connection"
        );
    }
}

/// What the answer to `expected` means for the operations that wait.
fn take(
    expected: Expected,
    reply: &Reply<'_>,
    replicas: i64,
    unsafe_yet: &mut Vec<(u64, Answer)>,
    answers: &mut Vec<(u64, Answer)>,
) {
    let answer = match reply {
        Reply::Error(error) => Answer::Error(String::from_utf8_lossy(error).into_owned()),
        Reply::Bulk(None) | Reply::Integer(0) => Answer::Missed,
        Reply::Simple(_) | Reply::Bulk(Some(_)) | Reply::Integer(_) | Reply::Array(_) => {
            Answer::Done
        }
    };
    match expected {
        Expected::Read(tag) => answers.push((tag, answer)),
        Expected::Write(tag) => unsafe_yet.push((tag, answer)),
        Expected::Wait => {
            let enough = matches!(reply, Reply::Integer(count) if *count >= replicas);
            answers.extend(unsafe_yet.drain(..).map(|(tag, answer)| match answer {
                Answer::Error(_) => (tag, answer),
                _ if enough => (tag, answer),
                _ => (tag, Answer::Error(format!("WAIT says {reply:?}"))),
            }));
        }
    }
}

const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$16\r\n";
const SET: &[u8] = b"*3\r\n$3\r\nSET\r\n$16\r\n";

fn push_key_length(out: &mut Vec<u8>) {
    out.extend_from_slice(format!("${KEY_BYTES}\r\n").as_bytes());
}

fn push_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn command(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        push_bulk(&mut out, word.as_bytes());
    }
    out
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// `+OK`
    Simple(&'a [u8]),
    /// `-ERR …`
    Error(&'a [u8]),
    /// `:7`
    Integer(i64),
    /// Bytes, or nothing.
    Bulk(Option<&'a [u8]>),
    /// Several; none for nothing.
    Array(Vec<Reply<'a>>),
}

impl Reply<'_> {
    fn to_owned(&self) -> OwnedReply {
        match self {
            Reply::Simple(text) => OwnedReply::Simple(text.to_vec()),
            Reply::Error(text) => OwnedReply::Error(String::from_utf8_lossy(text).into_owned()),
            Reply::Integer(number) => OwnedReply::Integer(*number),
            Reply::Bulk(bytes) => OwnedReply::Bulk(bytes.map(<[u8]>::to_vec)),
            Reply::Array(items) => OwnedReply::Array(items.iter().map(Reply::to_owned).collect()),
        }
    }
}

/// An answer that outlives the buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedReply {
    /// `+OK`
    Simple(Vec<u8>),
    /// `-ERR …`
    Error(String),
    /// `:7`
    Integer(i64),
    /// Bytes, or nothing.
    Bulk(Option<Vec<u8>>),
    /// Several.
    Array(Vec<OwnedReply>),
}

/// The answer at the beginning of `input` and its length; `None` if it is not all there yet.
///
/// # Errors
/// This is no RESP.
fn parse(input: &[u8]) -> Result<Option<(Reply<'_>, usize)>> {
    let Some(end) = memchr::memchr(b'\r', input).filter(|end| end + 1 < input.len()) else {
        return Ok(None);
    };
    ensure!(
        input[end + 1] == b'\n',
        "a line of Redis ends in something else than CR LF"
    );
    let (line, after) = (&input[1.min(end)..end], end + 2);
    let reply = match input[0] {
        b'+' => Reply::Simple(line),
        b'-' => Reply::Error(line),
        b':' => Reply::Integer(number(line)?),
        b'$' => match usize::try_from(number(line)?) {
            Err(_) => Reply::Bulk(None),
            Ok(length) => {
                let Some(bytes) = input.get(after..after + length + 2) else {
                    return Ok(None);
                };
                ensure!(bytes.ends_with(b"\r\n"), "a string is longer than it says");
                return Ok(Some((
                    Reply::Bulk(Some(&bytes[..length])),
                    after + length + 2,
                )));
            }
        },
        b'*' => {
            let (mut items, mut at) = (Vec::new(), after);
            for _ in 0..number(line)?.max(0) {
                let Some((item, used)) = parse(&input[at..])? else {
                    return Ok(None);
                };
                items.push(item);
                at += used;
            }
            return Ok(Some((Reply::Array(items), at)));
        }
        other => bail!(
            "Redis does not begin an answer with {:?}",
            char::from(other)
        ),
    };
    Ok(Some((reply, after)))
}

fn number(line: &[u8]) -> Result<i64> {
    let text = std::str::from_utf8(line).unwrap_or_default();
    text.parse()
        .with_context(|| format!("{text:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let cases: [(&[u8], Reply<'_>); 8] = [
            (b"+OK\r\n", Reply::Simple(b"OK")),
            (b"-ERR no\r\n", Reply::Error(b"ERR no")),
            (b":-7\r\n", Reply::Integer(-7)),
            (b"$5\r\na\r\nbc\r\n", Reply::Bulk(Some(b"a\r\nbc"))),
            (b"$0\r\n\r\n", Reply::Bulk(Some(b""))),
            (b"$-1\r\n", Reply::Bulk(None)),
            (
                b"*2\r\n$1\r\na\r\n:1\r\n",
                Reply::Array(vec![Reply::Bulk(Some(b"a")), Reply::Integer(1)]),
            ),
            (b"*-1\r\n", Reply::Array(vec![])),
        ];
        for (input, expected) in cases {
            assert_eq!(parse(input).unwrap(), Some((expected, input.len())));
            // What follows is not touched, and what is cut anywhere is not whole.
            let longer = [input, b"+more"].concat();
            assert_eq!(parse(&longer).unwrap().unwrap().1, input.len());
            for cut in 0..input.len() {
                assert_eq!(parse(&input[..cut]).unwrap(), None, "{cut} of {input:?}");
            }
        }
    }

    #[test]
    fn what_is_no_resp_is_an_error() {
        for input in [
            &b"HTTP/1.1 400\r\n"[..],
            b"$x\r\n",
            b"$1\r\nabc\r\n",
            b"\r\n",
            b":\r\n",
        ] {
            assert!(parse(input).is_err(), "{input:?}");
        }
    }

    #[test]
    fn a_write_counts_when_wait_has_counted_enough() {
        let done = |wait: Reply<'_>| {
            let (mut unsafe_yet, mut answers) = (Vec::new(), Vec::new());
            let mut take = |expected, reply: Reply<'_>, answers: &mut _| {
                take(expected, &reply, 2, &mut unsafe_yet, answers);
            };
            take(Expected::Write(1), Reply::Simple(b"OK"), &mut answers);
            take(Expected::Read(2), Reply::Bulk(None), &mut answers);
            take(Expected::Write(3), Reply::Error(b"READONLY"), &mut answers);
            assert_eq!(answers, [(2, Answer::Missed)]);
            take(Expected::Wait, wait, &mut answers);
            answers
        };
        let refused = Answer::Error("READONLY".to_owned());
        let whole = done(Reply::Integer(2));
        assert_eq!(
            whole,
            [(2, Answer::Missed), (1, Answer::Done), (3, refused)]
        );
        assert!(matches!(done(Reply::Integer(1))[1], (1, Answer::Error(_))));
        assert!(matches!(
            done(Reply::Error(b"ERR"))[1],
            (1, Answer::Error(_))
        ));
    }

    #[test]
    fn commands_are_arrays_of_strings() {
        assert_eq!(command(&["GET", "ab"]), b"*2\r\n$3\r\nGET\r\n$2\r\nab\r\n");
        let mut key = b"$16\r\n".to_vec();
        push_key(&mut key, 7);
        assert!(GET.ends_with(&key[..5]) && SET.ends_with(&key[..5]));
        assert_eq!(key.len(), 5 + KEY_BYTES);
    }
}
