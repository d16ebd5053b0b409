//! Session keys from application bytes, beside models of what they mean.

#[path = "../../lb-common/src/affinity/head/model.rs"]
mod model;

use lb_common::abi::{AffinityRules, SegmentKey};
use lb_common::affinity::head::{Head, Progress};
use lb_common::affinity::ticket::{self, Check, Kind, LENGTH, Ticket};
use lb_common::affinity::{
    Slice, Span, pair as sums, request as client, response as server, segment as parts,
};
use model::{Read, Unread};

/// Who wrote a head.
#[derive(Clone, Copy, PartialEq)]
enum Author {
    Client,
    Server,
}

/// A request head, read at once and in pieces: the first byte says which cookie and limit, the second how large the pieces are.
pub fn request(data: &[u8]) {
    head(Author::Client, data);
}

/// A response head, likewise.
pub fn response(data: &[u8]) {
    head(Author::Server, data);
}

fn head(author: Author, data: &[u8]) {
    let [choice, size, head @ ..] = data else { return };
    let name: &[u8] = [b"SESS".as_slice(), b"S", b"JSESSIONID", b"__Host-session"][usize::from(choice & 3)];
    let limit = if choice & 4 == 0 { 4_096 } else { 64 };
    let mut rules =
        AffinityRules { name_len: name.len() as u8, head_limit: limit, ..AffinityRules::default() };
    rules.name[..name.len()].copy_from_slice(name);
    let whole = agreed(author, head, &rules, &mut Progress::default());
    let mut progress = Progress::default();
    let mut last = Head::Incomplete;
    for end in (0..head.len()).step_by(usize::from(size % 61) + 1).chain([head.len()]) {
        last = agreed(author, &head[..end], &rules, &mut progress);
    }
    assert_eq!(last, whole);
}

/// Goes on reading, and compares what comes out with the model.
fn agreed(author: Author, bytes: &[u8], rules: &AffinityRules, progress: &mut Progress) -> Head {
    let len = bytes.len() as u32;
    let limit = usize::from(rules.head_limit);
    let name = &rules.name[..usize::from(rules.name_len)];
    let seen = &bytes[..bytes.len().min(limit)];
    let (head, read) = match author {
        Author::Client => (client::scan(&Slice(bytes), len, progress, rules), model::request(seen, name)),
        Author::Server => (server::scan(&Slice(bytes), len, progress, rules), model::response(seen, name)),
    };
    let text = |span: Span| bytes[span.start as usize..span.end() as usize].to_vec();
    match read {
        Ok(read) => {
            assert_eq!(head, Head::Complete);
            let found = Read {
                end: progress.end() as usize,
                method: read.method.clone(),
                path: text(progress.path()),
                value: text(progress.value()),
                several: progress.several(),
            };
            assert_eq!(found, read);
        }
        Err(Unread::NotHttp) => assert_eq!(head, Head::NotHttp),
        Err(Unread::More) if bytes.len() >= limit => assert_eq!(head, Head::TooLong),
        Err(Unread::More) => assert_eq!(head, Head::Incomplete),
    }
    head
}

/// A part of a value: the first byte is the delimiter, the second the part's number.
pub fn segment(data: &[u8]) {
    let [delimiter, index, value @ ..] = data else { return };
    let span = parts::part(&Slice(value), Span::new(0, value.len() as u32), *delimiter, *index);
    let found = &value[span.start as usize..span.end() as usize];
    let expected = match delimiter {
        0 => value,
        _ => value.split(|byte| byte == delimiter).nth(usize::from(*index)).unwrap_or(&[]),
    };
    assert_eq!(found, expected);
}

/// A ticket's text, then server numbers: the text is genuine only if issuing it again gives it, and the pair found is the
/// only one.
pub fn pair(data: &[u8]) {
    let key = SegmentKey { key: [1, 2], id: 3, valid: 1 };
    let (text, rest) = data.split_at(data.len().min(LENGTH));
    let mut seen = Ticket::default();
    let whole = Span::new(0, text.len() as u32);
    let keys = [key, SegmentKey::default()];
    if ticket::check(&Slice(text), whole, Kind::Pair, 7, &keys, &mut seen) == Check::Genuine {
        assert_eq!(ticket::issue(Kind::Pair, seen.number, seen.larger_first(), 7, 3, &key.key), text);
    }
    let mut numbers: Vec<u64> = rest
        .chunks_exact(8)
        .take(64)
        .map(|chunk| chunk.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    let Some((first, last)) = numbers.first().zip(numbers.last()) else { return };
    for sum in [seen.number, first.wrapping_add(*last), numbers[numbers.len() / 2].wrapping_add(*last)] {
        let found = sums::find(&Slice(&[]), sum, numbers.len() as u32, |i| numbers.get(i as usize).copied());
        let pairs: Vec<(usize, usize)> = (0..numbers.len())
            .flat_map(|a| (a + 1..numbers.len()).map(move |b| (a, b)))
            .filter(|(a, b)| numbers[*a].wrapping_add(numbers[*b]) == sum)
            .collect();
        assert_eq!(found.matches as usize, pairs.len().min(2));
        if let [only] = pairs[..] {
            assert_eq!((found.smaller as usize, found.larger as usize), only);
            let order = [numbers[only.0], numbers[only.1]];
            let text = sums::issue(&numbers, order, 7, 3, &key.key).expect("a pair with a sum of its own");
            let whole = Span::new(0, LENGTH as u32);
            let check = ticket::check(&Slice(&text), whole, Kind::Pair, 7, &keys, &mut seen);
            assert_eq!((check, seen.number), (Check::Genuine, sum));
        }
    }
}
