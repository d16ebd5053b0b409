use super::*;
use crate::loopback;
use http_body_util::{BodyExt, Empty};
use hyper::Response;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::VecDeque;
use std::sync::Mutex;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Quick, but for the end of patience.
const QUICK: Pace = Pace {
    request: Duration::from_secs(5),
    first: Duration::from_millis(1),
    longest: Duration::from_millis(20),
    patience: Duration::from_secs(20),
};
const SOON: Duration = Duration::from_secs(20);

/// What a server was told, as path and body.
type Told = mpsc::UnboundedReceiver<(String, String)>;

/// A server that answers with these states, and then with 204.
async fn server(states: &[u16], tls: Option<TlsAcceptor>) -> (SocketAddr, Told) {
    let listener = TcpListener::bind(loopback::any_port()).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (sender, told) = mpsc::unbounded_channel();
    let states = Arc::new(Mutex::new(states.iter().copied().collect::<VecDeque<_>>()));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (sender, states) = (sender.clone(), Arc::clone(&states));
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let (sender, states) = (sender.clone(), Arc::clone(&states));
                async move {
                    let path = format!("{} {}", request.method(), request.uri());
                    let body = request.into_body().collect().await?.to_bytes();
                    let status = states.lock().expect("nobody panics").pop_front().unwrap_or(204);
                    drop(sender.send((path, String::from_utf8_lossy(&body).into_owned())));
                    let answer = Response::builder().status(status).body(Empty::<Bytes>::new());
                    Ok::<_, hyper::Error>(answer.expect("a status"))
                }
            });
            let builder = hyper::server::conn::http1::Builder::new();
            let _ = match &tls {
                None => builder.serve_connection(TokioIo::new(stream), service).await,
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => builder.serve_connection(TokioIo::new(stream), service).await,
                    Err(_) => continue,
                },
            };
        }
    });
    (address, told)
}

fn spec(address: SocketAddr) -> WebhookSpec {
    WebhookSpec {
        is_secured: false,
        host: address.ip().to_string(),
        port: address.port(),
        path: "/hook?from=lb".into(),
        authorities: None,
    }
}

fn event(number: u64) -> EventRow {
    EventRow {
        number,
        unix_seconds: 1_700_000_000,
        kind: "down".into(),
        service: "web".into(),
        key: None,
        client: None,
        backend: Some("be1".into()),
        generation: None,
        health: None,
    }
}

fn start(spec: &WebhookSpec, pace: Pace) -> Webhook {
    let (webhook, courier) = Webhook::open_with(spec, "lb1".into(), pace).expect("it can be used");
    tokio::spawn(courier.run());
    webhook
}

async fn wait_for(webhook: &Webhook, wanted: impl Fn(Counts) -> bool) -> Counts {
    let found = async {
        loop {
            let counts = webhook.counts().expect("there is one");
            if wanted(counts) {
                return counts;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, found).await.expect("in time")
}

#[tokio::test]
async fn events_arrive_in_order_together_and_once() {
    let (address, mut told) = server(&[], None).await;
    let webhook = start(&spec(address), QUICK);
    (1..=250).for_each(|number| webhook.tell(event(number)));
    let mut numbers = Vec::new();
    while numbers.len() < 250 {
        let (path, body) = timeout(SOON, told.recv()).await.expect("in time").expect("a request");
        assert_eq!(path, "POST /hook?from=lb");
        let message: Message = serde_json::from_str(&body).expect("JSON");
        assert!(message.node == "lb1" && message.events.len() <= TOGETHER, "{body}");
        numbers.extend(message.events.iter().map(|event| event.number));
    }
    assert!(numbers.iter().copied().eq(1..=250), "{numbers:?}");
    let counts = wait_for(&webhook, |counts| counts.delivered == 250).await;
    assert_eq!((counts.failed, counts.dropped, counts.attempts_failed), (0, 0, 0));
}

#[tokio::test]
async fn a_server_in_trouble_is_tried_again_until_it_takes_them() {
    let (address, mut told) = server(&[500, 503, 429], None).await;
    let webhook = start(&spec(address), QUICK);
    webhook.tell(event(7));
    let counts = wait_for(&webhook, |counts| counts.delivered == 1).await;
    assert_eq!((counts.attempts_failed, counts.failed), (3, 0));
    let mut bodies = Vec::new();
    while let Ok((_, body)) = told.try_recv() {
        bodies.push(body);
    }
    assert!(bodies.len() == 4 && bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
}

#[tokio::test]
async fn what_the_server_refuses_is_given_up_at_once_and_counted() {
    let (address, _told) = server(&[404], None).await;
    let webhook = start(&spec(address), QUICK);
    webhook.tell(event(1));
    wait_for(&webhook, |counts| counts.failed == 1).await;
    webhook.tell(event(2));
    let counts = wait_for(&webhook, |counts| counts.delivered == 1).await;
    assert_eq!((counts.failed, counts.attempts_failed), (1, 1));
}

#[tokio::test]
async fn nobody_there_costs_events_and_never_time() {
    let address = TcpListener::bind(loopback::any_port()).await.expect("a port").local_addr().expect("it");
    let webhook = start(&spec(address), Pace { patience: Duration::from_millis(100), ..QUICK });
    webhook.tell(event(1));
    let counts = wait_for(&webhook, |counts| counts.failed == 1).await;
    assert!(counts.attempts_failed > 1, "{counts:?}");
    // A server that never answers: the queue fills, and telling goes on at once.
    let silent = TcpListener::bind(loopback::any_port()).await.expect("a port");
    let webhook = start(&spec(silent.local_addr().expect("it")), Pace { request: SOON, ..QUICK });
    let many = (QUEUE + TOGETHER + 50) as u64;
    (0..many).for_each(|number| webhook.tell(event(number)));
    let counts = webhook.counts().expect("there is one");
    assert!(counts.dropped >= 50 && counts.dropped <= 50 + TOGETHER as u64, "{counts:?}");
}

#[tokio::test]
async fn over_tls_the_certificate_must_be_of_the_authority_and_for_the_name() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), made.cert.pem()).expect("written");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (address, mut told) = server(&[], Some(acceptor)).await;
    let by_address =
        WebhookSpec { is_secured: true, authorities: Some(file.path().to_owned()), ..spec(address) };
    let short = Pace { patience: Duration::from_millis(50), ..QUICK };
    let webhook = start(&by_address, short);
    webhook.tell(event(1));
    wait_for(&webhook, |counts| counts.failed == 1).await;
    assert!(told.try_recv().is_err(), "nothing is said to whom the certificate does not name");
    // The same server, asked for by the name of its certificate.
    let (tls, courier) = Webhook::open_with(&by_address, "lb1".into(), QUICK).expect("it can be used");
    let secured: Secured<'_> = courier.tls.as_ref().map(|tls| (tls, Some("localhost")));
    let body = Full::from(Bytes::from_static(b"{}"));
    let request = Request::post("/x").header(header::HOST, "localhost").body(body).expect("a request");
    let answer =
        exchange(HttpVersion::One, secured, &address.into(), request, false).await.expect("an answer");
    assert_eq!((answer.status, tls.counts().expect("one").delivered), (204, 0));
    let (path, _) = timeout(SOON, told.recv()).await.expect("in time").expect("a request");
    assert_eq!(path, "POST /x");
    let missing = WebhookSpec { authorities: Some("/nowhere/ca.pem".into()), ..by_address };
    let error = Webhook::open(&missing, "lb1".into()).expect_err("no file").to_string();
    assert!(error.contains("/nowhere/ca.pem"), "{error}");
}
