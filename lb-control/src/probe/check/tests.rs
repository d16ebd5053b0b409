use super::*;
use crate::loopback;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lb_core::health::{Body, Failback, HttpCheck, HttpVersion, Policy, Thresholds, Way};
use std::convert::Infallible;
use std::num::NonZero;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;

const TIMEOUT: Duration = Duration::from_secs(5);

fn checker(check: Check) -> Result<Checker, Unusable> {
    let one = NonZero::<u16>::MIN;
    let second = Duration::from_secs(1);
    let policy = Policy {
        interval: second,
        fast: second,
        slow: second,
        timeout: TIMEOUT,
        rise: one,
        fall: one,
        jitter: 0,
    };
    let thresholds = Thresholds { minimum_healthy: 0, ejected: 0 };
    Checker::new(&HealthSpec {
        check,
        policy,
        thresholds,
        port: 0,
        way: Way::Direct,
        quorum: false,
        failback: Failback::Never,
    })
}

async fn probe(check: Check, address: SocketAddr) -> Result<(), Failure> {
    checker(check).expect("a check that can be made").probe(address, TIMEOUT).await
}

/// Serves one connection after the other.
async fn serve<F: Future<Output = ()> + Send>(
    handle: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind(loopback::any_port()).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            handle(stream).await;
        }
    });
    address
}

/// Answers `bytes` to whatever comes.
async fn says(bytes: &'static [u8]) -> SocketAddr {
    serve(move |mut stream| async move {
        let mut request = [0; 4_096];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        // What comes still is read, so that the answer is not lost to a reset.
        while stream.read(&mut request).await.is_ok_and(|count| count > 0) {}
    })
    .await
}

async fn nobody() -> SocketAddr {
    TcpListener::bind(loopback::any_port()).await.expect("a port").local_addr().expect("an address")
}

fn get(path: &str) -> HttpCheck {
    HttpCheck {
        version: HttpVersion::One,
        tls: None,
        host: None,
        path: path.into(),
        head: false,
        status: vec![(200, 399)],
        body: Body::Any,
    }
}

#[tokio::test]
async fn tcp_is_alive_when_somebody_listens() {
    let address = serve(|_| async {}).await;
    assert_eq!(probe(Check::Tcp, address).await, Ok(()));
    assert_eq!(probe(Check::Tcp, nobody().await).await, Err(Failure::Refused));
}

#[tokio::test]
async fn an_answer_over_http_must_have_the_status_and_the_body() {
    let fine = says(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nall is well\n").await;
    let of = |body: &str| Check::Http(HttpCheck { body: Body::Contains(body.into()), ..get("/health") });
    assert_eq!(probe(Check::Http(get("/")), fine).await, Ok(()));
    assert_eq!(probe(of("is well"), fine).await, Ok(()));
    assert_eq!(probe(of("is bad"), fine).await, Err(Failure::Body));
    let head = Check::Http(HttpCheck { head: true, ..get("/") });
    assert_eq!(probe(head, fine).await, Ok(()), "a body that HEAD did not ask for");
    let broken = says(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(probe(Check::Http(get("/")), broken).await, Err(Failure::Status(503)));
    let teapot = Check::Http(HttpCheck { status: vec![(200, 200), (500, 599)], ..get("/") });
    assert_eq!(probe(teapot, broken).await, Ok(()));
}

#[tokio::test]
async fn the_request_is_what_was_configured() {
    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let address = serve(move |mut stream| {
        let sender = sender.clone();
        async move {
            let mut request = vec![0; 4_096];
            let length = stream.read(&mut request).await.expect("a request");
            sender.send(String::from_utf8_lossy(&request[..length]).into_owned()).expect("it is waited for");
            let _ = stream.write_all(b"HTTP/1.1 204 No\r\n\r\n").await;
        }
    })
    .await;
    let check = HttpCheck { host: Some("shop.example".into()), ..get("/health?deep=1") };
    assert_eq!(probe(Check::Http(check), address).await, Ok(()));
    let request = seen.recv().await.expect("a request").to_lowercase();
    assert!(request.starts_with("get /health?deep=1 http/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nhost: shop.example\r\n"), "{request}");
    assert!(request.contains("\r\nconnection: close\r\n"), "{request}");
    assert_eq!(probe(Check::Http(get("/")), address).await, Ok(()));
    let request = seen.recv().await.expect("a request").to_lowercase();
    assert!(request.contains(&format!("\r\nhost: {address}\r\n")), "{request}");
}

#[tokio::test]
async fn garbage_silence_and_cut_connections_are_told_apart() {
    let http = || Check::Http(get("/"));
    let garbage = says(b"\x00\x01\x02 what do you want\r\n\r\n").await;
    let failure = probe(http(), garbage).await;
    assert!(matches!(failure, Err(Failure::Garbled(_))), "{failure:?}");
    let nothing = says(b"").await;
    assert_eq!(probe(http(), nothing).await, Err(Failure::Cut));
    let half = says(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab").await;
    let wants = Check::Http(HttpCheck { body: Body::Contains(b"abcde".to_vec()), ..get("/") });
    let failure = probe(wants, half).await;
    assert!(matches!(failure, Err(Failure::Cut | Failure::Garbled(_))), "{failure:?}");
    let silent = serve(|stream| async move {
        let _open = stream;
        tokio::time::sleep(TIMEOUT).await;
    })
    .await;
    let soon = Duration::from_millis(50);
    let checker = checker(http()).expect("a check");
    assert_eq!(checker.probe(silent, soon).await, Err(Failure::Silent(soon)));
    let endless = serve(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 4_096]).await.is_ok() {}
    })
    .await;
    let wants = Check::Http(HttpCheck { body: Body::Contains(b"y".to_vec()), ..get("/") });
    assert_eq!(probe(wants, endless).await, Err(Failure::Body), "a body without end is read up to the limit");
}

/// A certificate for `shop.example`, in a file, and a server that has it and speaks `protocol`.
async fn secured(protocol: &'static [u8]) -> (SocketAddr, tempfile::NamedTempFile) {
    let made = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).expect("a certificate");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), made.cert.pem()).expect("written");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let mut config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a pair");
    config.alpn_protocols = vec![protocol.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let address = serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let io = TokioIo::new(stream);
            let _ = match protocol {
                b"h2" => {
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    server.serve_connection(io, service_fn(answer)).await
                }
                _ => {
                    let server = hyper::server::conn::http1::Builder::new();
                    server.serve_connection(io, service_fn(answer)).await
                }
            };
        }
    })
    .await;
    (address, file)
}

type Answered = StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

/// A server of health over gRPC, and of "well" over HTTP.
async fn answer(request: Request<Incoming>) -> Result<Response<Answered>, Infallible> {
    let host = request.uri().authority().map(ToString::to_string);
    let is_grpc = request.uri().path() == "/grpc.health.v1.Health/Check";
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let (data, code) = match &body[..] {
        _ if !is_grpc => (b"well".to_vec(), "0"),
        b"\0\0\0\0\0" => (vec![0, 0, 0, 0, 2, 8, 1], "0"),
        b"\0\0\0\0\x06\x0a\x04shop" => (vec![0, 0, 0, 0, 2, 8, 2], "0"),
        _ => (Vec::new(), "5"),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse().expect("a value"));
    let mut frames = vec![Ok(Frame::data(Bytes::from(data)))];
    if is_grpc {
        frames.push(Ok(Frame::trailers(trailers)));
    }
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
    let host = host.unwrap_or_default();
    response.headers_mut().insert("x-host", host.parse().expect("a value"));
    Ok(response)
}

fn tls(file: &tempfile::NamedTempFile, name: Option<&str>) -> TlsSpec {
    TlsSpec { name: name.map(Into::into), verify: true, authorities: Some(file.path().to_owned()) }
}

#[tokio::test]
async fn https_checks_the_certificate_unless_it_must_not() {
    let (address, authority) = secured(b"http/1.1").await;
    let with = |tls, host: Option<&str>| {
        let body = Body::Contains(b"well".to_vec());
        Check::Http(HttpCheck { tls: Some(tls), host: host.map(Into::into), body, ..get("/") })
    };
    assert_eq!(probe(with(tls(&authority, Some("shop.example")), None), address).await, Ok(()));
    assert_eq!(probe(with(tls(&authority, None), Some("shop.example:8443")), address).await, Ok(()));
    for wrong in [tls(&authority, Some("other.example")), tls(&authority, None)] {
        let failure = probe(with(wrong, None), address).await;
        assert!(matches!(failure, Err(Failure::Tls(_))), "{failure:?}");
    }
    let (_, stranger) = secured(b"http/1.1").await;
    let failure = probe(with(tls(&stranger, Some("shop.example")), None), address).await;
    assert!(matches!(failure, Err(Failure::Tls(_))), "{failure:?}");
    let unchecked = TlsSpec { verify: false, ..tls(&stranger, None) };
    assert_eq!(probe(with(unchecked.clone(), None), address).await, Ok(()));
    let plain = says(b"HTTP/1.1 200 OK\r\n\r\n").await;
    let failure = probe(with(unchecked, None), plain).await;
    assert!(matches!(failure, Err(Failure::Tls(_))), "{failure:?}");
}

#[tokio::test]
async fn http_2_is_spoken_in_the_clear_and_over_tls() {
    let clear = serve(|stream| async move {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
    })
    .await;
    let body = Body::Contains(b"well".to_vec());
    let check = HttpCheck { version: HttpVersion::Two, body, ..get("/") };
    assert_eq!(probe(Check::Http(check.clone()), clear).await, Ok(()));
    let (address, authority) = secured(b"h2").await;
    let over = |tls| Check::Http(HttpCheck { tls: Some(tls), ..check.clone() });
    assert_eq!(probe(over(tls(&authority, Some("shop.example"))), address).await, Ok(()));
    let (older, authority) = secured(b"http/1.1").await;
    let failure = probe(over(tls(&authority, Some("shop.example"))), older).await;
    assert!(matches!(failure, Err(Failure::Tls(_))), "{failure:?}");
    let one = says(b"HTTP/1.1 200 OK\r\n\r\n").await;
    let failure = probe(Check::Http(check), one).await;
    assert!(matches!(failure, Err(Failure::Garbled(_) | Failure::Cut)), "{failure:?}");
}

#[tokio::test]
async fn grpc_asks_the_health_service() {
    let address = serve(|stream| async move {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
    })
    .await;
    let of = |service: &str| Check::Grpc { service: service.into(), host: None, tls: None };
    assert_eq!(probe(of(""), address).await, Ok(()));
    assert_eq!(probe(of("shop"), address).await, Err(Failure::NotServing));
    let unknown = probe(of("other"), address).await;
    assert!(matches!(&unknown, Err(Failure::Garbled(why)) if why.contains("status 5")), "{unknown:?}");
    let (secured, authority) = secured(b"h2").await;
    let check = Check::Grpc {
        service: String::new(),
        host: Some("shop.example".into()),
        tls: Some(tls(&authority, None)),
    };
    assert_eq!(probe(check, secured).await, Ok(()));
}

#[tokio::test]
async fn a_datagram_is_answered_as_expected() {
    let server = UdpSocket::bind(loopback::any_port()).await.expect("a port");
    let address = server.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut question = [0; 64];
        while let Ok((length, from)) = server.recv_from(&mut question).await {
            let answer: &[u8] = if &question[..length] == b"ping" { b"pong 1" } else { b"what?" };
            let _ = server.send_to(answer, from).await;
        }
    });
    let udp =
        |request: &[u8], response: &[u8]| Check::Udp { request: request.into(), response: response.into() };
    assert_eq!(probe(udp(b"ping", b"pong"), address).await, Ok(()));
    assert_eq!(probe(udp(b"pang", b"pong"), address).await, Err(Failure::Body));
    assert_eq!(probe(udp(b"pang", b""), address).await, Ok(()));
    let closed =
        UdpSocket::bind(loopback::any_port()).await.expect("a port").local_addr().expect("an address");
    assert_eq!(probe(udp(b"ping", b""), closed).await, Err(Failure::Refused));
}

#[tokio::test]
async fn pings_are_answered_by_both_families() {
    for host in ["127.0.0.1", "::1"] {
        let address = SocketAddr::new(host.parse().expect("an address"), 0);
        match checker(Check::Icmp) {
            Ok(checker) => assert_eq!(checker.probe(address, TIMEOUT).await, Ok(()), "{host}"),
            // Neither ping sockets nor raw ones: this user may not ping.
            Err(unusable) => {
                let told = unusable.to_string();
                assert!(matches!(unusable, Unusable::Icmp { .. }), "{told}");
                assert!(told.contains("CAP_NET_RAW") && told.contains("net.ipv4.ping_group_range"), "{told}");
            }
        }
    }
}

#[tokio::test]
async fn a_command_says_it_with_its_exit_code() {
    let address = SocketAddr::from(([192, 0, 2, 7], 8_080));
    let shell = |script: &str| Check::Command {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into(), "sh".into(), "{address}".into(), "{port}".into()],
    };
    let same = "test $1 = 192.0.2.7 -a $2 = 8080 -a $ADDRESS = $1 -a $PORT = $2 -a -z \"$HOME\"";
    assert_eq!(probe(shell(same), address).await, Ok(()));
    assert_eq!(probe(shell("exit 3"), address).await, Err(Failure::Exit(Some(3))));
    assert_eq!(probe(shell("kill -9 $$"), address).await, Err(Failure::Exit(None)));
    let soon = Duration::from_millis(50);
    let slow = checker(shell("sleep 60")).expect("a check");
    assert_eq!(slow.probe(address, soon).await, Err(Failure::Silent(soon)));
    let of = |program: &str| checker(Check::Command { program: program.into(), arguments: Vec::new() });
    for program in ["/nonexistent/check", "/etc", "/etc/passwd"] {
        let refused = of(program).expect_err("it cannot be run").to_string();
        assert!(refused.starts_with(program), "{refused}");
    }
}

#[test]
fn authorities_that_are_none_are_refused_by_name() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let check = Check::Http(HttpCheck { tls: Some(tls(&file, None)), ..get("/") });
    let refused = checker(check).expect_err("an empty file").to_string();
    assert!(refused.contains(&file.path().display().to_string()), "{refused}");
}
