//! What is taken of a request: of which type it is, which types its client takes, and its body.
//!
//! Neighbours: [`super::endpoint`] asks. Never: reads what a body says.

use std::pin::Pin;
use std::time::Duration;

use hyper::body::{Body as _, Incoming as HttpBody};
use hyper::{HeaderMap, StatusCode, header};
use tokio::time::{Instant, timeout_at};

use super::endpoint::{Stop, stop};
use crate::mcp::envelope::INVALID_REQUEST;

/// The longest body.
const LONGEST_BODY: usize = 4 * 1024 * 1024;
/// How long a body may take.
const BODY: Duration = Duration::from_secs(30);

/// The body of a request, bounded in size and time.
pub(super) async fn read(mut body: HttpBody) -> Stop<Vec<u8>> {
    let too_large = || {
        let told = format!("the body is longer than {LONGEST_BODY} bytes");
        stop(StatusCode::PAYLOAD_TOO_LARGE, None, INVALID_REQUEST, &told)
    };
    if body.size_hint().lower() > LONGEST_BODY.try_into().unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    let deadline = Instant::now() + BODY;
    let mut bytes = Vec::new();
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        match timeout_at(deadline, frame).await {
            Err(_elapsed) => {
                let told = "the body did not come in time";
                return Err(stop(StatusCode::REQUEST_TIMEOUT, None, INVALID_REQUEST, told));
            }
            Ok(None) => return Ok(bytes),
            Ok(Some(Err(error))) => {
                let told = format!("the body cannot be read: {error}");
                return Err(stop(StatusCode::BAD_REQUEST, None, INVALID_REQUEST, &told));
            }
            Ok(Some(Ok(frame))) => {
                let data = frame.into_data().unwrap_or_default();
                if bytes.len() + data.len() > LONGEST_BODY {
                    return Err(too_large());
                }
                bytes.extend_from_slice(&data);
            }
        }
    }
}

/// Does `Content-Type` say that the body is JSON?
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// Does `Accept` name this type, or all of its kind? A weight of nothing is a no.
pub(super) fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    let kind = wanted.split('/').next().unwrap_or_default();
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let refused = parts.any(|part| {
            let weight = part.strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok());
            weight.is_some_and(|weight| weight <= 0.0)
        });
        !refused && (name == wanted || name == "*/*" || name.strip_suffix("/*") == Some(kind))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, value.parse().unwrap());
            (accepts(&headers, "application/json"), accepts(&headers, "text/event-stream"))
        };
        assert_eq!(with("application/json, text/event-stream"), (true, true));
        assert_eq!(with("Text/Event-Stream;q=0.5"), (false, true));
        assert_eq!(with("*/*"), (true, true));
        assert_eq!(with("application/*, text/event-stream;q=0"), (true, false));
        assert_eq!(with("text/html"), (false, false));
        assert!(!accepts(&HeaderMap::new(), "application/json"));
    }
}
