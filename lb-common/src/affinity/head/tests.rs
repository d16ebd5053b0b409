use super::model::{self, Read, Unread};
use super::*;
use crate::affinity::{Slice, request, response};
use proptest::prelude::*;

fn rules(name: &[u8], limit: u16) -> AffinityRules {
    let mut rules =
        AffinityRules { name_len: name.len() as u8, head_limit: limit, ..AffinityRules::default() };
    rules.name[..name.len()].copy_from_slice(name);
    rules
}

/// Who wrote a head.
#[derive(Clone, Copy, Debug, PartialEq)]
enum From {
    Client,
    Server,
}

fn scan(from: From, bytes: &[u8], progress: &mut Progress, rules: &AffinityRules) -> Head {
    match from {
        From::Client => request::scan(&Slice(bytes), bytes.len() as u32, progress, rules),
        From::Server => response::scan(&Slice(bytes), bytes.len() as u32, progress, rules),
    }
}

fn text(bytes: &[u8], span: Span) -> Vec<u8> {
    bytes[span.start as usize..span.end() as usize].to_vec()
}

/// What the reader says agrees with the model.
fn agrees(from: From, bytes: &[u8], head: Head, progress: &Progress, rules: &AffinityRules) {
    let name = &rules.name[..rules.name_len as usize];
    let limit = rules.head_limit as usize;
    let seen = &bytes[..bytes.len().min(limit)];
    let read = match from {
        From::Client => model::request(seen, name),
        From::Server => model::response(seen, name),
    };
    let shown = String::from_utf8_lossy(bytes);
    match read {
        Ok(read) => {
            assert_eq!(head, Head::Complete, "{shown:?}");
            let method = match (from, read.method.as_slice()) {
                (From::Client, b"GET") => Method::Get,
                (From::Client, b"HEAD") => Method::Head,
                _ => Method::Other,
            };
            assert_eq!(progress.method(), method, "{shown:?}");
            let found = Read {
                end: progress.end() as usize,
                method: read.method.clone(),
                path: text(bytes, progress.path()),
                value: text(bytes, progress.value()),
                several: progress.several(),
            };
            assert_eq!(found, read, "{shown:?}");
        }
        Err(Unread::NotHttp) => assert_eq!(head, Head::NotHttp, "{shown:?}"),
        Err(Unread::More) if bytes.len() >= limit => assert_eq!(head, Head::TooLong, "{shown:?}"),
        Err(Unread::More) => assert_eq!(head, Head::Incomplete, "{shown:?}"),
    }
}

/// Reads at once, in two pieces split everywhere, and byte by byte; all of it as the model does.
fn everywhere(from: From, bytes: &[u8], rules: &AffinityRules) -> (Head, Progress) {
    let mut whole = Progress::default();
    let head = scan(from, bytes, &mut whole, rules);
    agrees(from, bytes, head, &whole, rules);
    let mut slow = Progress::default();
    for split in 0..=bytes.len() {
        let at = scan(from, &bytes[..split], &mut slow, rules);
        agrees(from, &bytes[..split], at, &slow, rules);
        let mut two = Progress::default();
        scan(from, &bytes[..split], &mut two, rules);
        assert_eq!(scan(from, bytes, &mut two, rules), head);
        if head == Head::Complete {
            assert_eq!(two, whole, "split at {split}");
        }
    }
    (head, whole)
}

const BROWSER: &str = "GET /a?b=SESS HTTP/1.1\r\nHost: x\r\n";

/// Value and whether there are several.
fn cookie(fields: &str) -> (String, bool) {
    let head = format!("{BROWSER}{fields}\r\n\r\nCookie: SESS=body\r\n\r\n");
    let (state, progress) = everywhere(From::Client, head.as_bytes(), &rules(b"SESS", 4_096));
    assert_eq!(state, Head::Complete);
    assert_eq!(progress.end() as usize, BROWSER.len() + fields.len() + 4);
    let value = String::from_utf8(text(head.as_bytes(), progress.value())).unwrap();
    (value, progress.several())
}

#[test]
fn cookies_are_found_wherever_they_may_stand() {
    for fields in [
        "Cookie: SESS=abc",
        "cookie: SESS=abc",
        "COOKIE:SESS=abc",
        "cOoKiE:\t SESS=abc \t",
        "Cookie: a=b; SESS=abc",
        "Cookie: a=b;SESS=abc; c=d",
        "Cookie: SESS=abc;",
        "Cookie: SESS=\"abc\"",
        "Cookie: SESS = abc ; c=d",
        "Cookie: XSESS=1; SESSX=2; SES=3; SESS=abc",
        "Cookie: SESS=; SESS=abc",
        "Cookie: a=b\r\nCookie: c=d\r\nCookie: SESS=abc",
        "Cookie: a=b;\r\n SESS=abc",
        "Cookie:\r\n\tSESS=abc",
        "Cookie: SESS=abc\r\n def",
        "X-Long: 0123456789012345678901234567890123456789012345678901234567890123456789\r\nCookie: SESS=abc",
        "Cookie: a=b\nCookie: SESS=abc\nX: y",
        "Cookie: SESS=abc; SESS=abc",
        "Cookie: SESS=abc\r\nCookie: SESS=\"abc\"",
        "Cookie: ;;; ;SESS=abc;;",
        "Cookie: SESS; SESS=abc",
    ] {
        assert_eq!(cookie(fields), ("abc".into(), false), "{fields:?}");
    }
    assert_eq!(cookie("Cookie: SESS=a=b"), ("a=b".into(), false));
    assert_eq!(cookie("Cookie: SESS=\"a b\""), ("a b".into(), false));
    assert_eq!(cookie("Cookie: SESS=\"a"), ("\"a".into(), false));
    assert_eq!(cookie("Cookie: SESS=a    \t \t \t    ;b=c"), ("a".into(), false));
}

#[test]
fn of_different_values_the_first_counts_and_it_is_said() {
    for fields in [
        "Cookie: SESS=abc; SESS=def",
        "Cookie: SESS=abc; SESS=abcd",
        "Cookie: SESS=abc; SESS=abc; SESS=ab; SESS=abc",
        "Cookie: SESS=abc\r\nX: y\r\nCookie: a=b; SESS=ABC",
    ] {
        assert_eq!(cookie(fields), ("abc".into(), true), "{fields:?}");
    }
    let long = "x".repeat(100);
    assert!(!cookie(&format!("Cookie: SESS={long}; SESS={long}")).1);
    assert!(cookie(&format!("Cookie: SESS={long}y; SESS={long}z")).1);
}

#[test]
fn nothing_else_is_taken_for_the_cookie() {
    for fields in [
        "Accept: SESS=abc",
        "X-Cookie: SESS=abc",
        "Set-Cookie: SESS=abc",
        "Cookie2: SESS=abc",
        "Cookie : SESS=abc",
        "Cookie\u{1a} SESS=abc",
        "CookieSESS=abc",
        "X: y\r\n Cookie: SESS=abc",
        "X: y Cookie: SESS=abc",
        "X: y\rCookie: SESS=abc",
        "Cookie: XSESS=abc",
        "Cookie: SESSX=abc",
        "Cookie: sess=abc",
        "Cookie: a=SESS=abc",
        "Cookie: a=b, SESS=abc",
        "Cookie: a=\"SESS=abc\"",
        "Cookie: SESS",
        "Cookie: SESS=",
        "Cookie: SESS=\"\"",
        "Cookie: SESS=\r\n abc",
        "Cookie: a=b\r\n SESS=abc",
        "Cookie:",
        "Referer: http://x/?\r\nX: Cookie: SESS=abc",
    ] {
        assert_eq!(cookie(fields), (String::new(), false), "{fields:?}");
    }
}

#[test]
fn names_of_every_length_are_compared_to_their_end() {
    for len in 1..=64 {
        let name: String = ('a'..='z').cycle().take(len).collect();
        let other = format!("{}!", &name[..len - 1]);
        let head =
            format!("GET / HTTP/1.1\r\nCookie: {other}=no; {name}x=no; x{name}=no; {name}=yes\r\n\r\n");
        let (_, progress) = everywhere(From::Client, head.as_bytes(), &rules(name.as_bytes(), 4_096));
        assert_eq!(text(head.as_bytes(), progress.value()), b"yes", "{name}");
    }
}

#[test]
fn without_a_name_no_cookie_is_found() {
    let head = b"GET / HTTP/1.1\r\nCookie: =a; SESS=b\r\n\r\n";
    let mut progress = Progress::default();
    assert_eq!(scan(From::Client, head, &mut progress, &rules(b"", 4_096)), Head::Complete);
    assert_eq!((progress.value().len, progress.end()), (0, head.len() as u32));
}

#[test]
fn what_is_not_http_is_told_at_the_first_byte_that_proves_it() {
    for (bytes, proof) in [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), 1),
        (b"\0GET / HTTP/1.1\r\n\r\n", 1),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 4),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 20),
        (b" GET / HTTP/1.1\r\n\r\n", 1),
        (b"GET  / HTTP/1.1\r\n\r\n", 5),
        (b"GET /\r\n", 6),
        (b"GET / HTTQ/1.1\r\n\r\n", 10),
        (b"GET / HTTP/2.0\r\n\r\n", 12),
        (b"GET / HTTP/1.x\r\n\r\n", 14),
        (b"GET / HTTP/1.1 \r\n\r\n", 15),
        (b"GET / HTTP/1.1\rX", 16),
        (b"GET /a\tb HTTP/1.1\r\n\r\n", 7),
        (b"{\"json\": 1}\n", 1),
    ] {
        let rules = rules(b"SESS", 4_096);
        everywhere(From::Client, bytes, &rules);
        let mut progress = Progress::default();
        assert_eq!(scan(From::Client, &bytes[..proof - 1], &mut progress, &rules), Head::Incomplete);
        assert_eq!(scan(From::Client, &bytes[..proof], &mut progress, &rules), Head::NotHttp, "{bytes:?}");
        assert_eq!(progress.http2(), bytes.starts_with(b"PRI "));
        // And it stays so.
        assert_eq!(scan(From::Client, bytes, &mut progress, &rules), Head::NotHttp);
    }
}

#[test]
fn methods_and_paths_are_told() {
    for (line, method, path) in [
        ("GET / HTTP/1.1", Method::Get, "/"),
        ("HEAD /a/b HTTP/1.0", Method::Head, "/a/b"),
        ("POST /a?b=/c HTTP/1.1", Method::Other, "/a?b=/c"),
        ("GETS / HTTP/1.1", Method::Other, "/"),
        ("HEADER / HTTP/1.1", Method::Other, "/"),
        ("M-SEARCH * HTTP/1.1", Method::Other, ""),
        ("OPTIONS * HTTP/1.1", Method::Other, ""),
        ("CONNECT example.net:443 HTTP/1.1", Method::Other, ""),
        ("GET http://example.net/a/b?c HTTP/1.1", Method::Get, "/a/b?c"),
        ("GET http://example.net HTTP/1.1", Method::Get, ""),
        ("GET http://example.net?a=b/c/d/e HTTP/1.1", Method::Get, ""),
        ("GET a/b/c/d HTTP/1.1", Method::Get, ""),
        ("GET a:/b/c/d HTTP/1.1", Method::Get, ""),
        ("GET //a/b HTTP/1.1", Method::Get, "//a/b"),
    ] {
        let head = format!("\r\n{line}\r\n\r\n");
        let (state, progress) = everywhere(From::Client, head.as_bytes(), &rules(b"SESS", 4_096));
        assert_eq!((state, progress.method()), (Head::Complete, method), "{line}");
        assert_eq!(text(head.as_bytes(), progress.path()), path.as_bytes(), "{line}");
    }
}

#[test]
fn a_head_may_be_as_long_as_its_limit() {
    let head = format!("{BROWSER}Cookie: SESS=abc\r\n\r\n");
    let len = head.len() as u16;
    for (limit, expected) in
        [(len + 1, Head::Complete), (len, Head::Complete), (len - 1, Head::TooLong), (0, Head::TooLong)]
    {
        let (state, _) = everywhere(From::Client, head.as_bytes(), &rules(b"SESS", limit));
        assert_eq!(state, expected, "limit {limit}");
    }
    // The largest limit there is, and bytes up to it.
    let endless = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 70_000]].concat();
    let mut progress = Progress::default();
    assert_eq!(scan(From::Client, &endless, &mut progress, &rules(b"SESS", u16::MAX)), Head::TooLong);
}

/// Value that a response sets.
fn set(fields: &str) -> String {
    let head = format!("HTTP/1.1 200 OK\r\nServer: x\r\n{fields}\r\n\r\nSet-Cookie: SESS=body\r\n\r\n");
    let (state, progress) = everywhere(From::Server, head.as_bytes(), &rules(b"SESS", 4_096));
    assert_eq!(state, Head::Complete, "{fields:?}");
    String::from_utf8(text(head.as_bytes(), progress.value())).unwrap()
}

#[test]
fn of_the_cookies_a_response_sets_the_last_counts() {
    for (fields, value) in [
        ("Set-Cookie: SESS=abc", "abc"),
        ("set-cookie:SESS=abc; Path=/; HttpOnly", "abc"),
        ("SET-COOKIE: SESS=\"abc\";Secure", "abc"),
        ("Set-Cookie: SESS = abc ; Path=/", "abc"),
        ("Set-Cookie: a=b; SESS=no", ""),
        ("Set-Cookie: a=b\r\nSet-Cookie: SESS=abc\r\nSet-Cookie: c=d", "abc"),
        ("Set-Cookie: SESS=old\r\nSet-Cookie: SESS=abc", "abc"),
        ("Set-Cookie: SESS=old\r\nSet-Cookie: SESS=; Max-Age=0", ""),
        ("Set-Cookie: SESSX=abc", ""),
        ("Set-Cookie2: SESS=abc", ""),
        ("Set-Cookie : SESS=abc", ""),
        ("Set\rookie: SESS=abc", ""),
        ("Cookie: SESS=abc", ""),
        ("Set-Cookie:\r\n SESS=abc", "abc"),
        ("Set-Cookie: SESS=abc\nX: y", "abc"),
    ] {
        assert_eq!(set(fields), value, "{fields:?}");
    }
}

#[test]
fn interim_responses_belong_to_the_head() {
    for (first, several) in
        [("100 Continue", true), ("103 Early Hints", true), ("101 Switching Protocols", false)]
    {
        let head = format!(
            "HTTP/1.1 {first}\r\nX: y\r\n\r\nHTTP/1.1 204 No Content\r\nSet-Cookie: SESS=abc\r\n\r\n"
        );
        let (state, progress) = everywhere(From::Server, head.as_bytes(), &rules(b"SESS", 4_096));
        assert_eq!(state, Head::Complete);
        assert_eq!(progress.end() as usize == head.len(), several, "{first}");
        assert_eq!(progress.value().len, if several { 3 } else { 0 }, "{first}");
    }
}

#[test]
fn what_is_no_response_is_told() {
    for bytes in [
        "HTTP/2 200\r\n",
        "GET / HTTP/1.1\r\n",
        "HTTP/1.1 20x\r\n",
        "HTTP/1.1\r\n",
        "\r\nHTTP/1.1 200 OK\r\n",
    ] {
        let (state, _) = everywhere(From::Server, bytes.as_bytes(), &rules(b"SESS", 4_096));
        assert_eq!(state, Head::NotHttp, "{bytes:?}");
    }
}

#[test]
fn a_progress_that_nobody_wrote_stops() {
    for state in 0..=255_u8 {
        let mut progress = Progress { state, fold: !state, at: 5, pair_len: 9_999, ..Progress::default() };
        scan(
            From::Client,
            b"GET / HTTP/1.1\r\nCookie: SESS=a\r\n\r\n",
            &mut progress,
            &rules(b"SESS", 4_096),
        );
        let mut progress = Progress { state, at: u32::MAX, value_start: 65_535, ..progress };
        scan(From::Server, b"HTTP/1.1 200\r\n\r\n", &mut progress, &rules(b"SESS", 4_096));
    }
}

/// Heads put together from what matters in them.
fn heads() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        "GET ",
        "POST ",
        "PRI ",
        "/",
        "http://h",
        "?",
        " HTTP/1.1",
        "HTTP/1.1 200",
        "HTTP/1.0 100 C",
        "\r\n",
        "\r\n",
        "\r\n",
        "\n",
        "\r",
        " ",
        "\t",
        "Cookie:",
        "cookie: ",
        "Set-Cookie:",
        "set-cOOkie: ",
        "SESS",
        "SESS=",
        "SES",
        "=",
        ";",
        "; ",
        "\"",
        "abc",
        "abcdefghijk",
        "a=b",
        "X: y",
        "\0",
        "\u{e9}",
        "0123456789012345678901234567890123456789",
    ]);
    let start = prop::sample::select(vec![
        "",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nCookie: SESS=",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nSet-Cookie: SESS=",
    ]);
    (start, prop::collection::vec(pieces, 0..24))
        .prop_map(|(start, pieces)| format!("{start}{}", pieces.concat()).into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn heads_are_read_as_the_model_reads_them(
        head in heads(),
        name in prop::sample::select(vec!["SESS", "S", "abcdefghi", "X"]),
        limit in prop::sample::select(vec![4_096_u16, 40, 17]),
    ) {
        for from in [From::Client, From::Server] {
            everywhere(from, &head, &rules(name.as_bytes(), limit));
        }
    }

    #[test]
    fn bytes_of_any_kind_are_read_as_the_model_reads_them(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for from in [From::Client, From::Server] {
            everywhere(from, &bytes, &rules(b"SESS", 150));
        }
    }
}
