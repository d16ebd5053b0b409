use super::*;
use crate::cluster::error::ClusterError;
use crate::cluster::transport::tests::Machine;
use lb_core::mirror::{Mirror, Record, Seen, Splice};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use tokio::time::{sleep, timeout};

const HOUR: Duration = Duration::from_secs(3_600);
const SOON: Duration = Duration::from_secs(30);

/// A node with spliced connections, and what it tells of them.
struct Node {
    transport: Transport,
    events: mpsc::Receiver<Event>,
    mirror: Mirror,
    flows: BTreeMap<u64, Record>,
}

fn record(id: u64) -> Record {
    let at = |last, port| (Ipv4Addr::new(10, 0, 0, last).into(), port);
    Record {
        id,
        service: 7,
        server: 8,
        session: 9,
        is_closing: false,
        flags: 8,
        is_own: false,
        has_tags: false,
        idle: Duration::ZERO,
        client: at(1, 4_000 + id as u16),
        service_address: at(2, 80),
        backend: at(3, 8_080),
        source: at(4, 5_000 + id as u16),
        splice: Some(Splice { answer: 9, isn: 2, start: 1, client_scale: 7, server_scale: 10, readers: 0 }),
    }
}

impl Node {
    fn of((transport, events): (Transport, mpsc::Receiver<Event>), to: NodeId) -> Self {
        let mut mirror = Mirror::new(LIFETIMES, transport.id().number());
        mirror.set_peers(&[binding::NodeId(to.number())]);
        Self { transport, events, mirror, flows: BTreeMap::new() }
    }

    /// A walk through its connections; the messages that `is_lost` lets through are sent.
    fn walk(&mut self, to: NodeId, is_lost: bool) {
        let now = Time(1);
        self.mirror.begin();
        for record in self.flows.values() {
            self.mirror.see(now, &Seen { record: *record, age: Duration::ZERO });
        }
        self.mirror.end();
        while let Some((_, bytes)) = self.mirror.poll_transmit() {
            if !is_lost {
                self.transport.send(to, bytes).expect("connected, with room");
            }
        }
    }

    /// Waits until the switch has asked for everything.
    async fn asked(&mut self, by: NodeId) {
        let asked = Event::Message { peer: by, bytes: Vec::new() };
        let asking = async {
            loop {
                let event = self.events.recv().await.expect("a transport");
                if let Event::Message { peer, bytes } = event {
                    assert_eq!(Event::Message { peer, bytes: Vec::new() }, asked);
                    assert!(wire::is_again(&bytes), "a switch only asks");
                    return;
                }
            }
        };
        timeout(SOON, asking).await.expect("in time");
        self.mirror.restart(binding::NodeId(by.number()), false);
    }
}

impl Hearing {
    /// Waits until just these connections are known.
    async fn knows(&self, wanted: &[(u64, u64)]) {
        let mut known = Vec::new();
        let waiting = async {
            loop {
                known = self.connections().iter().map(|express| express.id).collect();
                known.sort_unstable();
                if known == wanted {
                    return;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = timeout(SOON, waiting).await.is_ok();
        assert!(in_time, "{known:?}, not {wanted:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_hears_of_connections_for_as_long_as_their_node_is_there() {
    let (first, switch) = (Machine::found(), Machine::new());
    let started = Transport::start(&first.home(), first.listen, None).expect("started");
    let token = started.0.token(Role::Switch, HOUR).expect("a token");
    let identity = switch.join_as(&first, &token, Some(Role::Switch)).await.expect("joined");
    assert_eq!(identity.subject.role, Role::Switch);
    assert!(switch.home().keyring().expect("readable").is_none(), "it was told secrets");
    let to = identity.subject.id;
    let mut node = Node::of(started, to);
    let (transport, events) = Transport::start(&switch.home(), switch.listen, None).expect("started");
    let mut tasks = JoinSet::new();
    let hearing = Hearing::start(Arc::new(transport), events, &mut tasks);
    let connected =
        async { while node.events.recv().await != Some(Event::Up { peer: to, role: Role::Switch }) {} };
    timeout(SOON, connected).await.expect("in time");

    let id = node.transport.id().number();
    node.flows = (1..=3).map(|n| (n, record(n))).collect();
    // Not every connection can do without its node.
    node.flows.insert(4, Record { splice: None, flags: 0, ..record(4) });
    node.walk(to, false);
    hearing.knows(&[(id, 1), (id, 2), (id, 3)]).await;
    assert_eq!(hearing.standing().held[&id], 4);
    // One ends, one has a FIN.
    node.flows.remove(&1);
    node.flows.insert(2, Record { is_closing: true, ..record(2) });
    node.walk(to, false);
    hearing.knows(&[(id, 3)]).await;
    // What got lost is told again.
    node.flows.insert(5, record(5));
    node.walk(to, true);
    node.flows.insert(6, record(6));
    node.walk(to, false);
    node.asked(to).await;
    node.walk(to, false);
    hearing.knows(&[(id, 3), (id, 5), (id, 6)]).await;
    assert_eq!(hearing.standing().gaps, 1);
    node.transport.stop().await;
    hearing.knows(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_another_kind_of_machine_stays_good() {
    let (first, switch) = (Machine::found(), Machine::new());
    let (transport, _events) = Transport::start(&first.home(), first.listen, None).expect("started");
    let token = transport.token(Role::Node, HOUR).expect("a token");
    let refused = switch.join_as(&first, &token, Some(Role::Switch)).await;
    let Err(ClusterError::Refused { reason }) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("lbctl cluster token --role switch"), "{reason}");
    assert!(switch.home().identity().expect("readable").is_none());
    assert_eq!(transport.roster().borrow().roster().members.len(), 1);
    Machine::new().join_as(&first, &token, Some(Role::Node)).await.expect("joined");
}
