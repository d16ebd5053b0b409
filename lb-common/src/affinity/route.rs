//! Cookies that name their server, by a text from the configuration or by a mark that the product issued.

use super::bytes::{Bytes, Span, forgotten};
use super::text;

/// Most marks that are searched: those of 4,096 servers, under each of two secrets.
pub const SERVERS: u32 = 8_192;

/// The mark of a route's text, by which [`crate::abi::Server`]s are sorted and found: the same hash as [`text::key`].
///
/// Under the cluster's secret, so that a mark which the product issues in a [`super::ticket`] does not tell
/// which text it stands for. The configuration refuses two texts with one mark.
#[inline(always)]
pub fn mark<B: Bytes>(bytes: &B, route: Span, secret: &[u64; 2]) -> u64 {
    text::key(bytes, route, secret)
}

/// Place of the server with that mark among `count` servers sorted by mark.
///
/// `server` answers the mark of server 0, 1, … below `count`; `bytes` lends its loop.
#[inline(always)]
pub fn find<B: Bytes>(bytes: &B, mark: u64, count: u32, server: impl Fn(u32) -> Option<u64>) -> Option<u32> {
    let place = first_from(bytes, mark, count, &server);
    if place < count && server(place) == Some(mark) { Some(place) } else { None }
}

/// Place of the first server whose mark is `mark` or more; `count` when there is none.
#[inline(always)]
pub(super) fn first_from<B: Bytes>(
    bytes: &B,
    mark: u64,
    count: u32,
    server: &impl Fn(u32) -> Option<u64>,
) -> u32 {
    let (mut low, mut high) = (0, count.min(SERVERS));
    bytes.repeat(SERVERS.ilog2() + 1, |_| {
        if low >= high {
            return true;
        }
        let middle = (low + high) / 2;
        let Some(this) = server(middle) else { return true };
        if this < mark {
            low = forgotten(middle + 1, this);
        } else {
            high = forgotten(middle, this);
        }
        false
    });
    low
}

#[cfg(test)]
mod tests;
