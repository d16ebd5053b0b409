//! The gRPC health service (grpc.health.v1): one small message each way.

use super::http::{self, Answer, Secured};
use super::path::Target;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, header};
use lb_core::health::{Failure, HttpVersion};

/// The method that is called.
const METHOD: &str = "/grpc.health.v1.Health/Check";
/// Length of what precedes a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// `SERVING`.
const SERVING: u64 = 1;

/// Asks for the health of `service`.
pub(super) async fn ask(
    service: &str,
    given: Option<&str>,
    secured: Secured<'_>,
    target: &Target,
) -> Result<(), Failure> {
    let host = http::host(given, target.address);
    let secured = secured.map(|(config, name)| (config, name.or(given)));
    let request = Request::post(http::uri(secured.is_some(), &host, METHOD))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "stickleback")
        .body(Full::new(Bytes::from(framed(service))))
        .map_err(|error| Failure::Own(error.to_string()))?;
    judge(&http::exchange(HttpVersion::Two, secured, target, request, true).await?)
}

/// A `HealthCheckRequest`: field 1, a string.
fn framed(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        varint(service.len() as u64, &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.append(&mut message);
    framed
}

fn judge(answer: &Answer) -> Result<(), Failure> {
    if answer.status != 200 {
        return Err(Failure::Status(answer.status));
    }
    // An answer without a message has its status in the head.
    let trailers = answer.trailers.as_ref().unwrap_or(&answer.headers);
    match http::text(trailers, "grpc-status") {
        Some("0") => {}
        Some(code) => {
            let why = http::text(trailers, "grpc-message").unwrap_or("no message");
            return Err(Failure::Garbled(format!("gRPC status {code}, {why}")));
        }
        None => return Err(Failure::Garbled("no gRPC status".into())),
    }
    match status(&answer.body) {
        Some(SERVING) => Ok(()),
        Some(_) => Err(Failure::NotServing),
        None => Err(Failure::Garbled("no health status".into())),
    }
}

/// The status in a framed `HealthCheckResponse`: field 1, an enum, 0 when absent; other fields are passed over.
fn status(framed: &[u8]) -> Option<u64> {
    let (prefix, rest) = framed.split_at_checked(PREFIX)?;
    let [0, length @ ..] = prefix else { return None };
    let length = u32::from_be_bytes(length.try_into().ok()?);
    let mut message = rest.get(..usize::try_from(length).ok()?)?;
    let mut found = 0;
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => found = take_varint(&mut message)?,
            (_, 0) => drop(take_varint(&mut message)?),
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            (_, 3 | 4 | 6 | 7) | (_, 8..) => return None,
        }
    }
    Some(found)
}

fn varint(mut number: u64, to: &mut Vec<u8>) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_is_what_protobuf_makes_of_it() {
        assert_eq!(framed(""), [0, 0, 0, 0, 0]);
        assert_eq!(framed("shop"), *b"\0\0\0\0\x06\x0a\x04shop");
        let long = "s".repeat(300);
        assert_eq!(framed(&long)[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn the_status_is_found_beside_fields_that_nobody_knows() {
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(status(&[0, 0, 0, 0, 0]), Some(0), "absent = unknown");
        let more = [0, 0, 0, 0, 13, 0x12, 2, b'x', b'y', 8, 2, 0x1d, 1, 2, 3, 4, 0x20, 0x05];
        assert_eq!(status(&more), Some(2));
        assert_eq!(status(&[1, 0, 0, 0, 2, 8, 1]), None, "compressed");
        assert_eq!(status(&[0, 0, 0, 0, 3, 8, 1]), None, "cut short");
    }

    proptest! {
        #[test]
        fn no_answer_breaks_it(bytes: Vec<u8>) {
            let _ = status(&bytes);
            let mut framed = vec![0];
            framed.extend((bytes.len() as u32).to_be_bytes());
            framed.extend(bytes);
            let _ = status(&framed);
        }
    }
}
