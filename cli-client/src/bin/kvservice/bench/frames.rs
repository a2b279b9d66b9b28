//! Frames of the benchmark: requests are put together from parts that are made once, and answers
//! are skimmed instead of parsed. What is measured is the server, and this process shares its
//! cores.

use crate::args::BenchTest;
use kvservice_client::{ApiError, ErrorCode, Outcome};
use kvservice_shared::api::OpKind;
use kvservice_shared::api::json::decode_responses;

/// Makes requests of one test.
pub struct Requests {
    /// Between the id and the key's number.
    before_key: String,
    /// After the key's number: the values.
    after_key: String,
}

impl Requests {
    pub fn new(test: BenchTest, value_bytes: usize) -> Requests {
        // Letters only: nothing in a value needs an escape.
        let value: String = ('a'..='z').cycle().take(value_bytes).collect();
        let after_key = match test {
            BenchTest::Get => "\"}".to_owned(),
            BenchTest::Set => format!("\",\"value\":\"{value}\"}}"),
            BenchTest::Testset => format!("\",\"test\":\"{value}\",\"value\":\"{value}\"}}"),
        };
        let op = kind(test).as_str();
        Requests {
            before_key: format!(",\"op\":\"{op}\",\"key\":\"key:"),
            after_key,
        }
    }

    /// Most bytes of one request.
    pub fn bytes_max(&self) -> usize {
        // The braces, "id": and the comma; the id; the key's digits.
        8 + 16 + KEY_DIGITS + self.before_key.len() + self.after_key.len()
    }

    /// One frame of `count` requests, which are ids with the numbers of their keys: an object for
    /// one, an array for more.
    pub fn frame(&self, count: usize, requests: impl Iterator<Item = (u64, u64)>) -> String {
        let mut frame = String::with_capacity(2 + count * self.bytes_max());
        if count != 1 {
            frame.push('[');
        }
        for (index, (id, key)) in requests.enumerate() {
            if index > 0 {
                frame.push(',');
            }
            frame.push_str("{\"id\":");
            push_number(&mut frame, id, 1);
            frame.push_str(&self.before_key);
            push_number(&mut frame, key, KEY_DIGITS);
            frame.push_str(&self.after_key);
        }
        if count != 1 {
            frame.push(']');
        }
        frame
    }
}

/// `key:000000001234`, as redis-benchmark has it.
const KEY_DIGITS: usize = 12;

fn push_number(out: &mut String, mut number: u64, digits_min: usize) {
    const DIGITS_MAX: usize = 20;
    let mut digits = [b'0'; DIGITS_MAX];
    let mut start = DIGITS_MAX;
    while number > 0 || DIGITS_MAX - start < digits_min {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend(digits[start..].iter().map(|&digit| char::from(digit)));
}

pub fn kind(test: BenchTest) -> OpKind {
    match test {
        BenchTest::Set => OpKind::Set,
        BenchTest::Get => OpKind::Get,
        BenchTest::Testset => OpKind::TestSet,
    }
}

/// What one answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Done,
    /// Done, but a `get` found nothing, or the test of a `testset` failed.
    Missed,
    /// An error.
    Error(ApiError),
}

/// Reads a frame of answers, calling `each` with every id.
///
/// The usual answers are skimmed: `{"id":` cannot stand inside a JSON string, where quotes are
/// escaped, and no object of an answer to these tests has another `id`. At the first thing that is
/// not as this project's server writes it, or is an error, the frame is parsed in earnest.
///
/// # Errors
/// The frame is not made of responses to requests; the message is for people.
pub fn read_answers(
    text: &str,
    kind: OpKind,
    mut each: impl FnMut(u64, Answer),
) -> Result<(), String> {
    let mut rest = text.strip_prefix('[').unwrap_or(text);
    let mut skimmed = 0;
    loop {
        match skim(rest) {
            Some((id, answer)) => {
                each(id, answer);
                skimmed += 1;
            }
            None => return parse(text, kind, skimmed, each),
        }
        match rest[1..].find(ID) {
            Some(next) => rest = &rest[1 + next..],
            None => return Ok(()),
        }
    }
}

const ID: &str = "{\"id\":";

/// The answer at the beginning of the text, if it is one of the usual ones.
fn skim(text: &str) -> Option<(u64, Answer)> {
    let text = text.strip_prefix(ID)?;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let id = text[..digits].parse().ok()?;
    let fields = text[digits..].strip_prefix(',')?;
    if fields.starts_with("\"value\":null") || fields.starts_with("\"swapped\":false") {
        Some((id, Answer::Missed))
    } else if fields.starts_with("\"value\":\"") || fields.starts_with("\"swapped\":true") {
        Some((id, Answer::Done))
    } else {
        None
    }
}

/// The frame from its beginning, without the answers that are known already.
fn parse(
    text: &str,
    kind: OpKind,
    known: usize,
    mut each: impl FnMut(u64, Answer),
) -> Result<(), String> {
    use kvservice_client::Reply;
    let responses = decode_responses(text, |_| Some(kind)).map_err(|error| error.to_string())?;
    for response in responses.into_iter().skip(known) {
        let answer = match response.result {
            Ok(Reply::Get { value: None, .. } | Reply::TestSet { swapped: false, .. }) => {
                Answer::Missed
            }
            Ok(_) => Answer::Done,
            Err(error) => Answer::Error(error),
        };
        match (response.id, answer) {
            (Some(id), answer) => each(id.0, answer),
            (None, Answer::Error(error)) => {
                return Err(format!("the server refused a frame: {}", error.message));
            }
            (None, _) => return Err("an answer has no id".to_owned()),
        }
    }
    Ok(())
}

/// The error of a request that nothing is known of any more.
pub fn lost() -> ApiError {
    ApiError {
        code: ErrorCode::Timeout,
        message: "the connection was lost, and the server has forgotten the session".to_owned(),
        outcome: Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvservice_client::{Op, Reply, Response, Seq, Value};
    use kvservice_shared::api::json::{decode_requests, responses_to_json};
    use kvservice_shared::ids::RequestId;

    fn answers(text: &str, kind: OpKind) -> Result<Vec<(u64, Answer)>, String> {
        let mut answers = Vec::new();
        read_answers(text, kind, |id, answer| answers.push((id, answer)))?;
        Ok(answers)
    }

    #[test]
    fn requests_are_what_the_server_reads() {
        let (key, value) = ("key:000000001234".to_owned(), Value::from("abc"));
        let expected = [
            (BenchTest::Get, Op::Get { key: key.clone() }),
            (
                BenchTest::Set,
                Op::Set {
                    key: key.clone(),
                    value: value.clone(),
                },
            ),
            (
                BenchTest::Testset,
                Op::TestSet {
                    key,
                    test: Some(value.clone()),
                    value,
                },
            ),
        ];
        for (test, op) in expected {
            let requests = Requests::new(test, 3);
            let one = requests.frame(1, [(7, 1234)].into_iter());
            assert!(one.len() <= requests.bytes_max(), "{one}");
            let decoded = decode_requests(&one);
            assert!(!decoded.batch);
            let request = decoded.requests[0].as_ref().unwrap();
            assert_eq!((request.id, &request.op), (RequestId(7), &op));

            let many = requests.frame(2, [(8, 1234), ((1 << 53) - 1, 1234)].into_iter());
            let decoded = decode_requests(&many);
            assert!(decoded.batch);
            let ids: Vec<_> = decoded
                .requests
                .iter()
                .map(|r| r.as_ref().unwrap().id)
                .collect();
            assert_eq!(ids, [RequestId(8), RequestId::MAX]);
            assert!(
                decoded
                    .requests
                    .iter()
                    .all(|r| r.as_ref().unwrap().op == op)
            );
        }
    }

    fn response(id: u64, result: Result<Reply, ApiError>) -> Response {
        Response {
            id: Some(RequestId(id)),
            result,
        }
    }

    #[test]
    fn answers_are_read_as_the_server_writes_them() {
        let tricky = Value::from("{\"id\":9,\"value\":null} \\\"");
        let responses = [
            response(
                3,
                Ok(Reply::Get {
                    value: Some(tricky),
                    revision: Seq(5),
                }),
            ),
            response(
                1,
                Ok(Reply::Get {
                    value: None,
                    revision: Seq(0),
                }),
            ),
            response(2, Err(lost())),
            response(
                4,
                Ok(Reply::Get {
                    value: Some(vec![0xff].into()),
                    revision: Seq(6),
                }),
            ),
        ];
        let expected = [
            (3, Answer::Done),
            (1, Answer::Missed),
            (2, Answer::Error(lost())),
            (4, Answer::Done),
        ];
        let text = responses_to_json(&responses);
        assert_eq!(answers(&text, OpKind::Get).unwrap(), expected);
        for (response, expected) in responses.iter().zip(&expected) {
            let alone = answers(&response.to_json(), OpKind::Get).unwrap();
            assert_eq!(alone, std::slice::from_ref(expected));
        }
        let swap = |swapped| Reply::TestSet {
            swapped,
            value: None,
            revision: Seq(0),
        };
        let text = responses_to_json(&[response(1, Ok(swap(false))), response(2, Ok(swap(true)))]);
        assert_eq!(
            answers(&text, OpKind::TestSet).unwrap(),
            [(1, Answer::Missed), (2, Answer::Done)]
        );
    }

    #[test]
    fn another_servers_spacing_is_read_too() {
        let text = "[ {\"revision\": 1, \"value\": \"x\", \"id\": 1}, {\"id\": 2, \"value\": null, \"revision\": 0} ]";
        assert_eq!(
            answers(text, OpKind::Get).unwrap(),
            [(1, Answer::Done), (2, Answer::Missed)]
        );
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        assert!(answers("", OpKind::Get).is_err());
        assert!(answers("hello", OpKind::Get).is_err());
        let refused = Response {
            id: None,
            result: Err(lost()),
        }
        .to_json();
        assert!(
            answers(&refused, OpKind::Get)
                .unwrap_err()
                .contains("refused")
        );
    }
}
