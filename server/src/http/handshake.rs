//! The HTTP half of the WebSocket handshake (RFC 6455, section 4.2): every way to get it wrong has an answer
//! that says what would be right.

use super::{Answer, origin, set, text};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};
use kvservice_shared::api::{SUBPROTOCOL, WS_PATH};
use std::net::SocketAddr;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// 101 to a handshake that is right; else why it is not.
pub(super) fn answer<B>(request: &Request<B>, local: SocketAddr, allow: &[String]) -> Answer {
    let headers = request.headers();
    if request.method() != Method::GET {
        let mut answer = text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET, for a WebSocket handshake\n",
        );
        set(&mut answer, header::ALLOW, "GET");
        return answer;
    }
    let wants_websocket = has_token(headers, &header::UPGRADE, "websocket")
        && has_token(headers, &header::CONNECTION, "upgrade")
        && request.version() == Version::HTTP_11;
    if !wants_websocket {
        return upgrade_required(format!(
            "this is kvservice's WebSocket end point: connect to ws://HOST:PORT{WS_PATH} with a WebSocket \
             client (sub-protocol {SUBPROTOCOL}); the browser client is at /\n"
        ));
    }
    if headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        return upgrade_required("only WebSocket version 13 is spoken here\n");
    }
    let Some(key) = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .filter(|key| is_key(key))
    else {
        return bad("Sec-WebSocket-Key must be 16 bytes in base64\n");
    };
    if let Err(why) = origin::check(headers, local, allow) {
        return text(StatusCode::FORBIDDEN, format!("{why}\n"));
    }
    let offers = headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    let offers_ours = tokens(headers, &header::SEC_WEBSOCKET_PROTOCOL).any(|p| p == SUBPROTOCOL);
    if offers && !offers_ours {
        return bad(format!(
            "only the sub-protocol {SUBPROTOCOL} is spoken here; offer it, or none\n"
        ));
    }
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    set(&mut answer, header::CONNECTION, "Upgrade");
    set(&mut answer, header::UPGRADE, "websocket");
    if offers_ours {
        set(&mut answer, header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
    }
    match HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        Ok(accept) => answer
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_ACCEPT, accept),
        Err(_) => unreachable!("base64 is a header value"),
    };
    answer
}

fn upgrade_required(body: impl Into<Bytes>) -> Answer {
    let mut answer = text(StatusCode::UPGRADE_REQUIRED, body);
    set(&mut answer, header::UPGRADE, "websocket");
    set(&mut answer, header::CONNECTION, "Upgrade");
    set(&mut answer, header::SEC_WEBSOCKET_VERSION, "13");
    answer
}

fn bad(body: impl Into<Bytes>) -> Answer {
    text(StatusCode::BAD_REQUEST, body)
}

/// The comma-separated words of all headers of that name.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|word| word.eq_ignore_ascii_case(token))
}

/// 16 bytes in base64: 22 digits and `==`.
fn is_key(key: &HeaderValue) -> bool {
    let is_digit = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    matches!(key.as_bytes(), [digits @ .., b'=', b'='] if digits.len() == 22 && digits.iter().all(is_digit))
}
