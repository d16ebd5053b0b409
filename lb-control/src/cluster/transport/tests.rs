use super::door::NAME;
use super::*;
use crate::cluster::join::join;
use crate::cluster::keyring::Keyring;
use crate::config::SharedSecrets;
use crate::loopback;
use lb_core::pool::secret::SegmentSecret;
use rcgen::KeyPair;
use std::net::UdpSocket;
use std::path::Path;
use std::time::SystemTime;
use tokio::time::{sleep, timeout};

mod renewal;

const HOUR: Duration = Duration::from_secs(3_600);
const SOON: Duration = Duration::from_secs(10);

/// A machine with a state directory and a free port.
pub(in crate::cluster) struct Machine {
    state: tempfile::TempDir,
    pub(in crate::cluster) listen: SocketAddr,
}

/// The secrets of a first node.
fn keyring() -> Keyring {
    let segment = vec![SegmentSecret { id: 0, key: [3; 16] }];
    Keyring::of(&SharedSecrets {
        session: [1; 16],
        session_next: None,
        syn_cookie: [2; 16],
        syn_cookie_later: Vec::new(),
        segment,
    })
}

/// A machine whose node runs.
struct Running {
    transport: Transport,
    events: mpsc::Receiver<Event>,
    /// Came while something else was waited for.
    seen: Vec<Event>,
}

impl Machine {
    pub(in crate::cluster) fn new() -> Self {
        let socket = UdpSocket::bind(loopback::any_port()).expect("a free port");
        Self {
            state: tempfile::tempdir().expect("a directory"),
            listen: socket.local_addr().expect("its address"),
        }
    }

    pub(in crate::cluster) fn home(&self) -> Home {
        Home::in_state(self.state.path())
    }

    fn addresses(&self) -> Vec<String> {
        vec![self.listen.to_string()]
    }

    pub(in crate::cluster) fn found() -> Self {
        let machine = Self::new();
        Authority::found(&machine.home(), "first", machine.addresses(), keyring()).expect("a cluster");
        machine
    }

    fn start(&self) -> Running {
        self.start_with(None)
    }

    /// A socket of a transport that has stopped is closed a moment later.
    fn start_with(&self, discover: Option<String>) -> Running {
        let mut attempts = 0;
        let (transport, events) = loop {
            match Transport::start(&self.home(), self.listen, discover.clone()) {
                Ok(started) => break started,
                Err(error) => assert!(attempts < 100, "{error}"),
            }
            attempts += 1;
            std::thread::sleep(Duration::from_millis(20));
        };
        Running { transport, events, seen: Vec::new() }
    }

    pub(in crate::cluster) async fn join(
        &self,
        by: &Machine,
        token: &Token,
    ) -> Result<Identity, ClusterError> {
        self.join_as(by, token, None).await
    }

    /// The same for a machine that can be this only.
    pub(in crate::cluster) async fn join_as(
        &self,
        by: &Machine,
        token: &Token,
        role: Option<Role>,
    ) -> Result<Identity, ClusterError> {
        join(&self.home(), &by.listen.to_string(), token, "another", self.addresses(), role).await
    }
}

impl Running {
    async fn event(&mut self) -> Event {
        timeout(SOON, self.events.recv()).await.expect("an event in time").expect("a transport")
    }

    async fn wait(&mut self, wanted: Event) {
        while !self.seen.contains(&wanted) {
            let event = self.event().await;
            self.seen.push(event);
        }
        self.seen.retain(|event| *event != wanted);
    }

    async fn up(&mut self, peer: NodeId) {
        self.wait(Event::Up { peer, role: Role::Node }).await;
    }

    async fn down(&mut self, peer: NodeId) {
        self.wait(Event::Down { peer }).await;
    }

    async fn stop(self) {
        self.transport.stop().await;
    }

    fn token(&self) -> Token {
        self.transport.token(Role::Node, HOUR).expect("a token")
    }

    fn is_connected(&self, peer: NodeId) -> bool {
        self.transport.peers().get(&peer).is_some_and(|state| state.contact.is_some())
    }
}

/// The first node and so many that joined it, all connected to each other.
async fn cluster(others: usize) -> Vec<(Machine, Running)> {
    let first = Machine::found();
    let running = first.start();
    let mut nodes = vec![(first, running)];
    for _ in 0..others {
        let machine = Machine::new();
        let token = nodes[0].1.token();
        machine.join(&nodes[0].0, &token).await.expect("joined");
        let mut running = machine.start();
        for (_, known) in &mut nodes {
            known.up(running.transport.id()).await;
            running.up(known.transport.id()).await;
        }
        nodes.push((machine, running));
    }
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_are_up_in_two_commands_and_talk() {
    // `lbctl cluster init` ...
    let first = Machine::found();
    let mut a = first.start();
    let token: Token = a.token().to_string().parse().expect("a token survives being printed");
    // ... and `lbctl cluster join`.
    let second = Machine::new();
    let identity = second.join(&first, &token).await.expect("joined");
    let mut b = second.start();
    assert_eq!(b.transport.id(), identity.subject.id);
    a.up(b.transport.id()).await;
    b.up(a.transport.id()).await;

    let message = |n: u32| vec![u8::try_from(n % 251).expect("small"); (n * 997) as usize];
    for n in 0..100 {
        while a.transport.send(b.transport.id(), message(n)) == Err(SendError::Full) {
            sleep(Duration::from_millis(1)).await;
        }
        b.transport.send(a.transport.id(), message(n)).expect("queued");
    }
    for n in 0..100 {
        assert_eq!(b.event().await, Event::Message { peer: a.transport.id(), bytes: message(n) });
        assert_eq!(a.event().await, Event::Message { peer: b.transport.id(), bytes: message(n) });
    }
    assert_eq!(
        a.transport.send(b.transport.id(), vec![0; frame::MESSAGE + 1]),
        Err(SendError::Large(frame::MESSAGE + 1))
    );
    let (one, other) = (a.transport.roster(), b.transport.roster());
    assert_eq!(one.borrow().roster(), other.borrow().roster());
    let states = a.transport.peers();
    let contact = states[&b.transport.id()].contact.as_ref().expect("connected");
    assert!(contact.received > 1_000_000 && contact.sent > 1_000_000, "{contact:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_one_machine_in_once() {
    let first = Machine::found();
    let a = first.start();
    let serial = || a.transport.roster().borrow().roster().serial;
    let refused = |outcome: Result<Identity, ClusterError>| match outcome {
        Err(ClusterError::Refused { reason }) => assert!(reason.contains("token"), "{reason}"),
        other => panic!("{other:?}"),
    };
    let good = a.token();
    let (second, third) = (Machine::new(), Machine::new());
    // A secret that nobody gave out, with the right authority.
    let mut digits = good.to_string();
    digits.replace_range(digits.len() - 4.., if digits.ends_with("0000") { "1111" } else { "0000" });
    refused(third.join(&first, &digits.parse().expect("a token")).await);
    assert_eq!(serial(), 1);
    second.join(&first, &good).await.expect("joined");
    assert_eq!(serial(), 2);

    let expired = a.transport.token(Role::Node, Duration::ZERO).expect("a token");
    let open = a.token();
    refused(third.join(&first, &good).await);
    refused(third.join(&first, &expired).await);
    assert_eq!(serial(), 2, "who was refused changed nothing");
    assert!(third.home().identity().expect("readable").is_none(), "and has nothing");
    assert!(matches!(second.join(&first, &open).await, Err(ClusterError::Already { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_too_long_uses_no_token_up() {
    let (first, second) = (Machine::found(), Machine::new());
    let a = first.start();
    let token = a.token();
    let by = first.listen.to_string();
    let long = join(&second.home(), &by, &token, &"\u{e9}".repeat(NAME + 1), second.addresses(), None).await;
    match long {
        Err(ClusterError::Refused { reason }) => assert!(reason.contains("65 characters"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let fits = join(&second.home(), &by, &token, &"\u{e9}".repeat(NAME), second.addresses(), None).await;
    fits.expect("joined");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_authority_is_worth_nothing() {
    let (first, stranger) = (Machine::found(), Machine::found());
    let (a, b) = (first.start(), stranger.start());
    let (_open, token) = (a.token(), b.token());
    let outcome = Machine::new().join(&first, &token).await;
    assert!(matches!(outcome, Err(ClusterError::Unreachable { .. })), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_open_token_nobody_may_join() {
    let first = Machine::found();
    let a = first.start();
    let token = Token::make(&a.transport.shared.trusted).expect("a token");
    let outcome = Machine::new().join(&first, &token).await;
    assert!(matches!(outcome, Err(ClusterError::Unreachable { .. })), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_members_last_a_year() {
    let (first, second) = (Machine::found(), Machine::new());
    let a = first.start();
    let joined = second.join(&first, &a.token()).await.expect("joined");
    let founder = first.home().identity().expect("readable").expect("a member");
    for identity in [joined, founder] {
        let left = identity.until().expect("an end").duration_since(SystemTime::now()).expect("it is good");
        assert_eq!(left.as_secs().div_ceil(86_400), 365);
        identity.is_signed().expect("by the authority");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_balancers_are_shown_a_token() {
    let (first, server) = (Machine::found(), Machine::new());
    let a = first.start();
    let token = a.transport.token(Role::App, HOUR).expect("a token");
    let app = server.join(&first, &token).await.expect("joined");
    let node = first.home().identity().expect("readable").expect("a member");
    let any = || "127.0.0.1:0".parse().expect("an address");
    for (identity, is_trusted) in [(node, true), (app, false)] {
        let config = tls::server(&identity, true).expect("a server");
        let called = quinn::Endpoint::server(config, any()).expect("an endpoint");
        let address = called.local_addr().expect("its address").to_string();
        let answering = tokio::spawn(async move {
            let connection = called.accept().await.expect("a call").await;
            if let Ok(connection) = connection {
                connection.closed().await;
            }
        });
        let caller = quinn::Endpoint::client(any()).expect("an endpoint");
        let client = tls::joiner(token.clone()).expect("a client");
        let outcome = calls::connect(&caller, client, &address, "join.stickleback.internal").await;
        assert_eq!(outcome.is_ok(), is_trusted, "{outcome:?}");
        drop((outcome, caller));
        timeout(SOON, answering).await.expect("in time").expect("no panic");
    }
}

/// Calls a node as a member, with whatever certificate.
async fn call_as(
    identity: &Identity,
    trusted: &Identity,
    to: &Machine,
) -> Result<quinn::Connection, ClusterError> {
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("an endpoint");
    let mixed = Identity {
        subject: identity.subject,
        certificate: identity.certificate.clone(),
        authority: trusted.authority.clone(),
        key: KeyPair::from_pem(&identity.key.serialize_pem()).expect("a key"),
    };
    let name = trusted.subject.dns_name();
    let connection = calls::connect(&endpoint, tls::client(&mixed)?, &to.listen.to_string(), &name).await?;
    // A client learns only afterwards that its certificate was refused.
    let closed = timeout(SOON, async {
        if let Ok((mut sender, mut receiver)) = connection.open_bi().await {
            let _ = frame::write(&mut sender, b"{}").await;
            assert_eq!(
                frame::read(&mut receiver, frame::CONTROL).await.ok().flatten(),
                None,
                "it learned something"
            );
        }
        connection.closed().await
    });
    let reason = closed.await.expect("shut out");
    Err(ClusterError::Refused { reason: reason.to_string() })
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_valid_certificate_nothing_is_learnt_and_nothing_changes() {
    let (first, stranger) = (Machine::found(), Machine::found());
    let mut a = first.start();
    let own = first.home().identity().expect("readable").expect("a member");
    let other = stranger.home().identity().expect("readable").expect("a member");
    for is_open in [false, true] {
        if is_open {
            a.token();
        }
        let outcome = call_as(&other, &own, &first).await;
        assert!(matches!(outcome, Err(ClusterError::Refused { .. })), "{outcome:?}");
        // And with no certificate at all.
        let token = Token::make(&own.authority).expect("a token");
        let mut client = tls::joiner(token).expect("a client");
        let mut bare =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .expect("TLS 1.3")
                .with_root_certificates({
                    let mut roots = rustls::RootCertStore::empty();
                    roots.add(own.authority.clone()).expect("an authority");
                    roots
                })
                .with_no_client_auth();
        bare.alpn_protocols = vec![tls::MEMBER.to_vec()];
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(bare).expect("a client");
        client = {
            drop(client);
            quinn::ClientConfig::new(Arc::new(crypto))
        };
        let endpoint =
            quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("an endpoint");
        let name = own.subject.dns_name();
        if let Ok(connection) = calls::connect(&endpoint, client, &first.listen.to_string(), &name).await {
            if let Ok((mut sender, mut receiver)) = connection.open_bi().await {
                let _ = frame::write(&mut sender, b"{}").await;
                assert_eq!(frame::read(&mut receiver, frame::CONTROL).await.ok().flatten(), None);
            }
            timeout(SOON, connection.closed()).await.expect("shut out");
        }
    }
    assert!(a.events.try_recv().is_err(), "nobody was ever up");
    assert_eq!(a.transport.roster().borrow().roster().serial, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_is_shut_out_at_once_and_everywhere() {
    let mut nodes = cluster(2).await;
    let gone = nodes[2].1.transport.id();
    let removed_at = std::time::Instant::now();
    nodes[0].1.transport.remove(gone).expect("removed");
    for (_, running) in &mut nodes[..2] {
        running.down(gone).await;
    }
    assert!(removed_at.elapsed() < Duration::from_secs(2), "{:?}", removed_at.elapsed());
    // It keeps trying, with a certificate that is still good.
    sleep(Duration::from_secs(3)).await;
    for (_, running) in &mut nodes[..2] {
        assert!(!running.is_connected(gone));
        assert!(running.events.try_recv().is_err(), "it got in again");
    }
    assert!(matches!(nodes[0].1.transport.remove(gone), Err(ClusterError::NoMember { .. })));
    let own = nodes[0].1.transport.id();
    assert!(matches!(nodes[0].1.transport.remove(own), Err(ClusterError::Itself { .. })));
    assert!(matches!(nodes[1].1.transport.remove(own), Err(ClusterError::NoAuthority)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_learns_of_a_removal_from_any_member() {
    let mut nodes = cluster(3).await;
    let (first, third) = (nodes[0].1.transport.id(), nodes[3].1.transport.id());
    let (machine, away) = nodes.remove(2);
    away.stop().await;
    nodes[0].1.transport.remove(third).expect("removed");
    nodes[1].1.down(third).await;
    // The authority is gone when the other one returns.
    let (_first, authority) = nodes.remove(0);
    authority.stop().await;
    let mut back = machine.start();
    back.up(nodes[0].1.transport.id()).await;
    let mut roster = back.transport.roster();
    let learnt = roster.wait_for(|list| list.roster().member(third).is_none());
    timeout(SOON, learnt).await.expect("in time").expect("a transport");
    sleep(Duration::from_millis(500)).await;
    assert!(!back.is_connected(third) && !back.is_connected(first));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_again_is_connected_again() {
    let mut nodes = cluster(1).await;
    let (machine, running) = nodes.remove(1);
    let id = running.transport.id();
    running.stop().await;
    nodes[0].1.down(id).await;
    let mut again = machine.start();
    assert_eq!(again.transport.id(), id);
    nodes[0].1.up(id).await;
    again.up(nodes[0].1.transport.id()).await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_node_is_refused_while_the_original_lives() {
    let mut nodes = cluster(1).await;
    let (original, first) = (nodes[1].1.transport.id(), nodes[0].1.transport.id());
    let clone = Machine::new();
    copy(nodes[1].0.home().directory(), clone.home().directory());
    let mut twin = clone.start();
    assert_eq!(twin.transport.id(), original);
    sleep(Duration::from_secs(6)).await;
    assert!(nodes[0].1.events.try_recv().is_err(), "the original's connection was touched");
    assert!(nodes[1].1.events.try_recv().is_err());
    assert!(!twin.is_connected(first));
    let failure = twin.transport.peers()[&first].failure.clone();
    assert!(failure.is_some_and(|failure| failure.contains("this node's id")));
    // Once the original is gone, the files are as good as it was.
    let (_machine, running) = nodes.remove(1);
    running.stop().await;
    twin.up(first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_sends_nonsense_loses_its_connection_and_nothing_else() {
    let mut nodes = cluster(1).await;
    let peer = nodes[1].1.transport.id();
    let identity = nodes[1].0.home().identity().expect("readable").expect("a member");
    let trusted = nodes[0].0.home().identity().expect("readable").expect("a member");
    let outcome = call_as(&identity, &trusted, &nodes[0].0).await;
    assert!(matches!(outcome, Err(ClusterError::Refused { .. })), "{outcome:?}");
    assert!(nodes[0].1.is_connected(peer));
    nodes[1].1.transport.send(nodes[0].1.transport.id(), b"still here".to_vec()).expect("queued");
    assert_eq!(nodes[0].1.event().await, Event::Message { peer, bytes: b"still here".to_vec() });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_list_that_the_authority_did_not_sign_is_refused() {
    let nodes = cluster(1).await;
    let shared = &nodes[1].1.transport.shared;
    let mut roster = shared.roster.borrow().roster().clone();
    roster.serial += 1;
    roster.members.pop();
    let forged = SignedRoster::sign(roster, &KeyPair::generate().expect("a key")).expect("signed");
    let outcome = shared.adopt(forged);
    assert!(matches!(outcome, Err(ClusterError::Document { .. })), "{outcome:?}");
    let text = String::from_utf8(shared.roster.borrow().text().expect("text")).expect("text");
    let altered = text.replace("another", "an0ther");
    assert_ne!(altered, text);
    assert!(shared.adopt(serde_json::from_str(&altered).expect("a list")).is_err());
    assert_eq!(shared.roster.borrow().roster().members.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let first = Machine::found();
    for entry in std::fs::read_dir(first.home().directory()).expect("listed") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("its mode").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", entry.path());
    }
    let again = Authority::found(&first.home(), "again", vec![], keyring());
    assert!(matches!(again, Err(ClusterError::Already { .. })), "{again:?}");
}

impl Running {
    async fn secrets(&self, serial: u64) -> SharedSecrets {
        let mut keyring = self.transport.keyring();
        let has_come = keyring.wait_for(|keyring| super::serial(keyring.as_deref()) == serial);
        let keyring = timeout(SOON, has_come).await.expect("in time").expect("a transport").clone();
        keyring.expect("a keyring").content().secrets()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_come_with_the_certificate_and_are_changed_everywhere() {
    let mut nodes = cluster(1).await;
    let first = keyring().secrets();
    assert_eq!(nodes[1].1.secrets(1).await, first);
    nodes[0].1.transport.rotate(Rotation::Segment).expect("changed");
    let second = nodes[0].1.secrets(2).await;
    assert_ne!(second.segment, first.segment);
    assert_eq!(nodes[1].1.secrets(2).await, second);
    let refused = nodes[1].1.transport.rotate(Rotation::Segment);
    assert!(matches!(refused, Err(ClusterError::NoAuthority)), "{refused:?}");
    // Who is away meanwhile hears of it when it is back, and has kept what it knew.
    let (machine, running) = nodes.remove(1);
    running.stop().await;
    nodes[0].1.transport.rotate(Rotation::SynCookie).expect("changed");
    assert_eq!(machine.home().keyring().expect("readable").expect("there").content().secrets(), second);
    let again = machine.start();
    let third = again.secrets(3).await;
    assert_eq!(third.syn_cookie_later.len(), 1);
    assert_eq!(nodes[0].1.secrets(3).await, third);
    again.stop().await;
    assert_eq!(machine.start().secrets(3).await, third);
}

#[tokio::test(flavor = "multi_thread")]
async fn application_servers_are_not_told_the_secrets() {
    let nodes = cluster(0).await;
    let token = nodes[0].1.transport.token(Role::App, HOUR).expect("a token");
    let machine = Machine::new();
    machine.join(&nodes[0].0, &token).await.expect("joined");
    assert!(machine.home().keyring().expect("readable").is_none());
    let mut app = machine.start();
    app.up(nodes[0].1.transport.id()).await;
    nodes[0].1.transport.rotate(Rotation::Segment).expect("changed");
    // Lists go the same way, one after the other.
    let other = Machine::new();
    other.join(&nodes[0].0, &nodes[0].1.token()).await.expect("joined");
    let mut rosters = app.transport.roster();
    let three = rosters.wait_for(|list| list.roster().members.len() == 3);
    drop(timeout(SOON, three).await.expect("in time").expect("a transport"));
    assert!(app.transport.keyring().borrow().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_has_moved_is_found_behind_the_name_for_all() {
    let mut nodes = cluster(1).await;
    let (mut second, running) = nodes.remove(1);
    let id = running.transport.id();
    running.stop().await;
    let (first, running) = nodes.remove(0);
    running.stop().await;
    // Both have moved, so that neither finds the other one where the list says.
    second.listen = Machine::new().listen;
    let moved = Machine { listen: Machine::new().listen, ..first };
    let mut there = second.start();
    let mut here = moved.start_with(Some(second.listen.to_string()));
    here.up(id).await;
    there.up(here.transport.id()).await;
}
