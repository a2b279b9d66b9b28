//! The JSON codec, by example and by property.

mod bad_requests;
mod examples;
mod properties;

use super::{Decoded, decode_requests};
use crate::api::{ApiError, Outcome, Request};

/// The request in a frame of one.
fn read(text: &str) -> Request {
    let Decoded {
        mut requests,
        batch,
    } = decode_requests(text);
    assert!(!batch, "{text}");
    assert_eq!(requests.len(), 1, "{text}");
    requests
        .remove(0)
        .unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"))
}

/// The id and the error with which a frame of one is refused.
fn refused(text: &str) -> (Option<u64>, ApiError) {
    let Decoded {
        mut requests,
        batch,
    } = decode_requests(text);
    assert!(!batch, "{text}");
    assert_eq!(requests.len(), 1, "{text}");
    let response = requests.remove(0).expect_err(text);
    let error = response.result.expect_err("a refusal is an error");
    assert_eq!(error.outcome, Outcome::NotApplied, "{text}");
    (response.id.map(|id| id.0), error)
}
