//! kvservice: JSON over WebSocket, the requests of a pipeline as an array in one frame. And the bare hop, which is sent
//! what kvservice would answer to reads, and sends it back.

use super::{Request, Target, Wire};
use crate::stats::Answer;
use crate::work::{KEY_BYTES, Op, push_key, value};
use anyhow::{Context, Result, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use memchr::memmem;
use serde_json::Value as Json;
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// A frame is closed when it has become longer; the server takes 8 MiB.
const FRAME_BYTES: usize = 4 * 1024 * 1024;

type Socket = WebSocketStream<TcpStream>;

/// Short buffers, since the library fills them with zeros before each read; the same on both ends of the hop.
pub fn socket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(8 * 1024)
        .write_buffer_size(64 * 1024)
        .max_write_buffer_size(4 * FRAME_BYTES)
        .max_message_size(Some(16 * FRAME_BYTES))
        .max_frame_size(Some(16 * FRAME_BYTES))
}

async fn open(address: SocketAddr, path: &str, protocol: Option<&'static str>) -> Result<Socket> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let mut request = format!("ws://{address}{path}").into_client_request()?;
    if let Some(protocol) = protocol {
        let protocol = HeaderValue::from_static(protocol);
        request
            .headers_mut()
            .insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let opened =
        tokio_tungstenite::client_async_with_config(request, stream, Some(socket_config())).await;
    let (socket, _) = opened.context("no WebSocket")?;
    Ok(socket)
}

/// The next text frame.
async fn text(socket: &mut Socket) -> Result<Utf8Bytes> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return Ok(text),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Close(frame))) => bail!("the server closes: {frame:?}"),
            Some(Ok(Message::Binary(_))) => bail!("the server sends bytes instead of text"),
            Some(Err(error)) => return Err(error.into()),
            None => bail!("the server has closed the connection"),
        }
    }
}

/// One connection to kvservice, with a session of its own.
#[derive(Debug)]
pub struct Kvservice {
    socket: Socket,
    set_tail: Vec<u8>,
    testset_tail: Vec<u8>,
}

impl Wire for Kvservice {
    const BATCHES: bool = true;

    fn fill_max(_: &Target) -> u16 {
        1
    }

    async fn open(target: &Target) -> Result<Kvservice> {
        let mut socket = open(target.address, "/v1/ws", Some("kvservice.v1.json")).await?;
        let session = uuid::Uuid::new_v4();
        // The id of a `hello` does not count among the session's.
        let hello = format!("{{\"id\":1,\"op\":\"hello\",\"session\":\"{session}\"}}");
        socket.send(Message::text(hello)).await?;
        let answer = text(&mut socket).await?;
        let json: Json = serde_json::from_str(&answer).context("the answer to hello")?;
        ensure!(json["session"].is_string(), "hello is refused: {answer}");
        let value = String::from_utf8(value(target.value_bytes)).context("letters")?;
        Ok(Kvservice {
            socket,
            set_tail: format!("\",\"value\":\"{value}\"}}").into_bytes(),
            testset_tail: format!("\",\"test\":\"{value}\",\"value\":\"{value}\"}}").into_bytes(),
        })
    }

    async fn send(&mut self, requests: &[Request]) -> Result<()> {
        let longest = self.testset_tail.len() + KEY_BYTES + 48;
        for requests in requests.chunks((FRAME_BYTES / longest).max(1)) {
            let frame = frame(requests, &self.set_tail, &self.testset_tail);
            let frame = Utf8Bytes::try_from(frame).context("letters and digits")?;
            self.socket.feed(Message::Text(frame)).await?;
        }
        self.socket.flush().await?;
        Ok(())
    }

    async fn receive(&mut self, answers: &mut Vec<(u64, Answer)>) -> Result<()> {
        let text = text(&mut self.socket).await?;
        read_answers(&text, answers)
    }
}

fn frame(requests: &[Request], set_tail: &[u8], testset_tail: &[u8]) -> Vec<u8> {
    let writes = requests.iter().filter(|request| request.op.is_write());
    let tail = set_tail.len().max(testset_tail.len());
    let mut frame = Vec::with_capacity(2 + 64 * requests.len() + tail * writes.count());
    if requests.len() > 1 {
        frame.push(b'[');
    }
    for (index, request) in requests.iter().enumerate() {
        if index > 0 {
            frame.push(b',');
        }
        frame.extend_from_slice(b"{\"id\":");
        push_number(&mut frame, request.tag);
        let (op, tail): (&[u8], &[u8]) = match request.op {
            Op::Get => (b",\"op\":\"get\",\"key\":\"", b"\"}"),
            Op::Set | Op::Fill(_) => (b",\"op\":\"set\",\"key\":\"", set_tail),
            Op::TestSet => (b",\"op\":\"testset\",\"key\":\"", testset_tail),
        };
        frame.extend_from_slice(op);
        push_key(&mut frame, request.key);
        frame.extend_from_slice(tail);
    }
    if requests.len() > 1 {
        frame.push(b']');
    }
    frame
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

const ID: &[u8] = b"{\"id\":";

/// Adds the answers of a frame.
///
/// The usual ones are skimmed: `{"id":` cannot stand inside a JSON string, where quotes are escaped, and no object in
/// an answer to what is asked here has another `id`. A frame with anything else in it is parsed in earnest.
fn read_answers(text: &str, answers: &mut Vec<(u64, Answer)>) -> Result<()> {
    let before = answers.len();
    let rest = text.strip_prefix('[').unwrap_or(text).as_bytes();
    if skim(rest, answers) {
        return Ok(());
    }
    answers.truncate(before);
    let json: Json = serde_json::from_str(text).context("an answer is no JSON")?;
    match json {
        Json::Array(items) => items.iter().try_for_each(|item| {
            answers.push(read_answer(item)?);
            Ok(())
        }),
        item => {
            answers.push(read_answer(&item)?);
            Ok(())
        }
    }
}

fn read_answer(json: &Json) -> Result<(u64, Answer)> {
    let error = &json["error"];
    let Some(id) = json["id"].as_u64() else {
        bail!("the server refuses a frame: {json}");
    };
    let missed = json["swapped"] == Json::Bool(false)
        || (json["swapped"].is_null() && json["value"].is_null());
    let answer = match error.is_null() {
        false => Answer::Error(error.to_string()),
        true if json.get("value").is_none() => bail!("no answer to what was asked: {json}"),
        true if missed => Answer::Missed,
        true => Answer::Done,
    };
    Ok((id, answer))
}

/// Whether every answer was one of the usual ones.
fn skim(frame: &[u8], answers: &mut Vec<(u64, Answer)>) -> bool {
    let mut rest = frame;
    loop {
        let Some(after) = rest.strip_prefix(ID) else {
            return false;
        };
        let digits = after.iter().take_while(|byte| byte.is_ascii_digit());
        let (mut id, mut length) = (0_u64, 0);
        for digit in digits {
            id = id.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            length += 1;
        }
        let fields = &after[length..];
        let is = |start: &[u8]| fields.starts_with(start);
        let answer = if is(b",\"value\":\"") || is(b",\"swapped\":true") {
            Answer::Done
        } else if is(b",\"value\":null") || is(b",\"swapped\":false") {
            Answer::Missed
        } else {
            return false;
        };
        answers.push((id, answer));
        match memmem::find(fields, ID) {
            Some(next) => rest = &fields[next..],
            None => return true,
        }
    }
}

/// One connection to the echo.
#[derive(Debug)]
pub struct Hop {
    socket: Socket,
    /// What kvservice would answer to a `get`, after its id.
    answer_tail: Vec<u8>,
}

impl Wire for Hop {
    const BATCHES: bool = true;

    fn fill_max(_: &Target) -> u16 {
        u16::MAX
    }

    async fn open(target: &Target) -> Result<Hop> {
        let value = String::from_utf8(value(target.value_bytes)).context("letters")?;
        Ok(Hop {
            socket: open(target.address, "/", None).await?,
            answer_tail: format!(",\"value\":\"{value}\",\"revision\":1000000}}").into_bytes(),
        })
    }

    async fn send(&mut self, requests: &[Request]) -> Result<()> {
        let one = self.answer_tail.len() + 24;
        for requests in requests.chunks((FRAME_BYTES / one).max(1)) {
            let mut frame = Vec::with_capacity(2 + one * requests.len());
            for request in requests {
                frame.push(if frame.is_empty() { b'[' } else { b',' });
                frame.extend_from_slice(ID);
                push_number(&mut frame, request.tag);
                frame.extend_from_slice(&self.answer_tail);
            }
            frame.push(b']');
            let frame = Utf8Bytes::try_from(frame).context("letters and digits")?;
            self.socket.feed(Message::Text(frame)).await?;
        }
        self.socket.flush().await?;
        Ok(())
    }

    async fn receive(&mut self, answers: &mut Vec<(u64, Answer)>) -> Result<()> {
        let text = text(&mut self.socket).await?;
        read_answers(&text, answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(text: &str) -> Result<Vec<(u64, Answer)>> {
        let mut answers = Vec::new();
        read_answers(text, &mut answers).map(|()| answers)
    }

    #[test]
    fn requests_are_json_of_the_protocol() {
        let ops = [Op::Get, Op::Set, Op::TestSet];
        let requests: Vec<Request> = ops
            .into_iter()
            .zip(9..)
            .map(|(op, tag)| Request { tag, op, key: 12 })
            .collect();
        let set_tail = b"\",\"value\":\"ab\"}";
        let testset_tail = b"\",\"test\":\"ab\",\"value\":\"ab\"}";
        let json: Json = serde_json::from_slice(&frame(&requests, set_tail, testset_tail)).unwrap();
        assert_eq!(
            json,
            serde_json::json!([
                {"id": 9, "op": "get", "key": "key:000000000012"},
                {"id": 10, "op": "set", "key": "key:000000000012", "value": "ab"},
                {"id": 11, "op": "testset", "key": "key:000000000012", "test": "ab", "value": "ab"},
            ])
        );
        let one: Json = serde_json::from_slice(&frame(&requests[..1], set_tail, b"")).unwrap();
        assert!(one.is_object(), "one request is no array");
    }

    #[test]
    fn answers_are_skimmed_and_errors_are_read() {
        let get = r#"[{"id":3,"value":"{\"id\":9,\"value\":null}","revision":5},{"id":12,"value":null,"revision":0}]"#;
        assert_eq!(
            answers(get).unwrap(),
            [(3, Answer::Done), (12, Answer::Missed)]
        );
        let swaps = r#"[{"id":1,"swapped":false,"value":null,"revision":0},{"id":2,"swapped":true,"value":"x","revision":7}]"#;
        assert_eq!(
            answers(swaps).unwrap(),
            [(1, Answer::Missed), (2, Answer::Done)]
        );
        let error = r#"[{"id":1,"value":"x","revision":5},{"id":2,"error":{"code":"timeout","message":"late","outcome":"unknown"}}]"#;
        let read = answers(error).unwrap();
        assert_eq!(read[0], (1, Answer::Done));
        assert!(matches!(&read[1], (2, Answer::Error(text)) if text.contains("timeout")));
        let spaced = r#"[ {"revision": 1, "value": "x", "id": 1} ]"#;
        assert_eq!(answers(spaced).unwrap(), [(1, Answer::Done)]);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for text in [
            "",
            "hello",
            "{}",
            r#"{"id":null,"error":{"code":"bad"}}"#,
            r#"{"id":1}"#,
        ] {
            assert!(answers(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_decimal() {
        let mut out = Vec::new();
        for number in [0, 7, 1050, u64::MAX] {
            push_number(&mut out, number);
        }
        assert_eq!(out, format!("071050{}", u64::MAX).as_bytes());
    }
}
