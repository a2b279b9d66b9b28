//! Requests in the one form that most clients send nearly always: fields in the order of the documentation, no blanks,
//! no escapes. Read in one pass over the bytes; whatever differs is left to [`super::fields`], which reads it all.

use super::{Decoded, any_special, is_special};
use crate::api::{Op, Request, Value};
use crate::ids::RequestId;
use crate::limits;

/// A frame's requests; `None` where anything is not plain, or not as it must be.
pub(super) fn decode_plain(text: &str) -> Option<Decoded> {
    let mut rest = Rest(text);
    let batch = rest.skip("[").is_some();
    // About as many as there are.
    let room = (text.len() / 64).clamp(1, limits::BATCH_REQUESTS_MAX);
    let mut requests = Vec::with_capacity(if batch { room } else { 1 });
    requests.push(Ok(rest.request()?));
    while batch && rest.skip(",").is_some() {
        if requests.len() == limits::BATCH_REQUESTS_MAX {
            return None;
        }
        requests.push(Ok(rest.request()?));
    }
    if batch {
        rest.skip("]")?;
    }
    rest.0.is_empty().then_some(Decoded { requests, batch })
}

/// Where the first byte is that ends a string, or that JSON escapes in one. In pieces, as [`any_special`].
fn first_special(bytes: &[u8]) -> Option<usize> {
    const PIECE_BYTES: usize = 16;
    let piece = bytes.chunks(PIECE_BYTES).position(any_special)?;
    let start = piece * PIECE_BYTES;
    let place = bytes[start..].iter().position(|&byte| is_special(byte))?;
    Some(start + place)
}

/// What is not read yet.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn skip(&mut self, what: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(what)?;
        Some(())
    }

    fn request(&mut self) -> Option<Request> {
        self.skip("{\"id\":")?;
        let id = RequestId::new(self.number()?)?;
        self.skip(",\"op\":\"")?;
        let op = match self.0.as_bytes().first()? {
            b's' => {
                self.skip("set\"")?;
                Op::Set {
                    key: self.key()?,
                    value: self.value(",\"value\":\"")?,
                }
            }
            b'g' => {
                self.skip("get\"")?;
                Op::Get { key: self.key()? }
            }
            b't' => {
                self.skip("testset\"")?;
                let key = self.key()?;
                let test = match self.skip(",\"test\":null") {
                    Some(()) => None,
                    None => Some(self.value(",\"test\":\"")?),
                };
                let value = self.value(",\"value\":\"")?;
                Op::TestSet { key, test, value }
            }
            b'd' => {
                self.skip("delete\"")?;
                Op::Delete { key: self.key()? }
            }
            _ => return None,
        };
        self.skip("}")?;
        Some(Request { id, op })
    }

    fn number(&mut self) -> Option<u64> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = self.0.split_at(digits);
        if number.starts_with('0') {
            return None;
        }
        self.0 = rest;
        number.parse().ok()
    }

    fn key(&mut self) -> Option<String> {
        self.skip(",\"key\":\"")?;
        let key = self.string()?;
        let fits = !key.is_empty() && key.len() <= limits::KEY_BYTES_MAX;
        fits.then(|| key.to_owned())
    }

    fn value(&mut self, field: &str) -> Option<Value> {
        self.skip(field)?;
        let value = self.string()?;
        (value.len() <= limits::VALUE_BYTES_MAX).then(|| Value::from(value))
    }

    /// Up to the closing quote.
    fn string(&mut self) -> Option<&'a str> {
        let end = first_special(self.0.as_bytes())?;
        let (string, rest) = self.0.split_at(end);
        self.0 = rest.strip_prefix('"')?;
        Some(string)
    }
}
