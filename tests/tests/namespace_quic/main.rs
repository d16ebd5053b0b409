//! QUIC by connection id: real QUIC stacks on both sides, clients that move, several connections on one socket.
//!
//! Needs root.

mod client;
mod foreign;
mod server;

use anyhow::{Result, ensure};
use client::{Answer, Client, ask};
use quinn::Connection;
use server::{Identity, Ids, Server};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use stickleback_tests::topology::{Arms, Balancer, ServiceConfig, Site, Testbed};

const PORT: u16 = 4_433;
const KEY: [u8; 16] = *b"sixteen bytes...";
const PLAIN: Ids = Ids { rotation: 0, server: 6, nonce: 8, key: None };
const SINGLE: Ids = Ids { rotation: 1, server: 8, nonce: 8, key: Some(KEY) };
const FOUR: Ids = Ids { rotation: 5, server: 3, nonce: 6, key: Some(KEY) };
const BACKENDS: u8 = 3;

fn vip(v6: bool) -> SocketAddr {
    let address: IpAddr = if v6 { [0xfd99, 0, 0, 0, 0, 0, 0, 1].into() } else { [10, 99, 0, 1].into() };
    SocketAddr::new(address, PORT)
}

/// Servers behind a balancer.
struct Stage {
    _balancer: Balancer,
    _decapsulators: Vec<Testbed>,
    _servers: Vec<Server>,
    identity: Identity,
    site: Site,
}

impl Stage {
    fn new(mode: &'static str, ids: Ids) -> Result<Self> {
        let site = Site::with_mtu(Arms::Two, BACKENDS, 1_600)?;
        let identity = Identity::new()?;
        let mut servers = Vec::new();
        let mut decapsulators = Vec::new();
        for (n, backend) in site.backends.iter().enumerate() {
            servers.push(Server::start(&backend.namespace, &backend.name, PORT, &identity, ids, n)?);
            if matches!(mode, "ipip" | "gue") {
                decapsulators.push(Testbed::decapsulate(&backend.namespace, "eth0")?);
            }
        }
        let services = [false, true].map(|v6| service(&site, mode, ids, v6));
        let balancer = site.balance(&services)?;
        Ok(Self { _balancer: balancer, _decapsulators: decapsulators, _servers: servers, identity, site })
    }

    /// Runs a client's doings in the client's namespace.
    fn as_client<T: Send>(&self, doing: impl AsyncFnOnce(&Self) -> Result<T> + Send) -> Result<T> {
        self.site.client.inside(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(doing(self))
        })
    }
}

fn service(site: &Site, mode: &'static str, ids: Ids, v6: bool) -> ServiceConfig {
    let name = if v6 { "quic-v6" } else { "quic-v4" };
    let key = ids.key.map_or_else(String::new, |key| format!(", key = \"{}\"", hex(&key)));
    let lines = format!(
        "affinity = \"quic-cid\"\nquic = [{{ rotation = {}, server-id-length = {}, nonce-length = {}{key} }}]",
        ids.rotation, ids.server, ids.nonce
    );
    let mut service = site.service(name, vip(v6), mode, v6).with(&lines);
    for (n, backend) in service.backends.iter_mut().enumerate() {
        backend.lines.push_str(&format!("server-id = \"{}\"\n", hex(&ids.server_id(n))));
    }
    ServiceConfig { protocol: "udp", ..service }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Connections of many clients, each of which changes its port and then its address.
fn migration(mode: &'static str, ids: Ids) -> Result<()> {
    let stage = Stage::new(mode, ids)?;
    stage.as_client(async |stage| {
        for v6 in [false, true] {
            let addresses = stage.site.clients(v6, 10);
            let mut served = BTreeSet::new();
            for pair in addresses.windows(2) {
                let client = Client::new(pair[0], &stage.identity)?;
                let connection = client.connect(vip(v6), None).await?;
                let first = stays(&connection, None).await?;
                // Another port, as after a new mapping of an address translator, then another network.
                for address in [pair[0], pair[1]] {
                    let now = client.move_to(address)?;
                    let answer = stays(&connection, Some(&first)).await?;
                    ensure!(answer.client == now, "the server sees {answer:?}, the client is at {now}");
                }
                served.insert(first.server);
            }
            ensure!(served.len() > 1, "only {served:?} served");
        }
        Ok(())
    })
}

/// Asks small and large; the answers come from one connection of one server, the one that answered before.
async fn stays(connection: &Connection, before: Option<&Answer>) -> Result<Answer> {
    let first = ask(connection, 10).await?;
    let before = before.unwrap_or(&first).clone();
    for len in [1, 100_000, 30] {
        let answer = ask(connection, len).await?;
        let same = (&answer.server, answer.connection) == (&before.server, before.connection);
        ensure!(same, "{before:?}, then {answer:?}");
    }
    ask(connection, 1).await
}

/// Several connections to different servers on one socket, which then moves with all of them.
fn one_socket(mode: &'static str, ids: Ids) -> Result<()> {
    let stage = Stage::new(mode, ids)?;
    stage.as_client(async |stage| {
        for v6 in [false, true] {
            let addresses = stage.site.clients(v6, 2);
            let client = Client::new(addresses[0], &stage.identity)?;
            let mut connections = Vec::new();
            for (n, backend) in stage.site.backends.iter().enumerate() {
                let first = ids.encoder(n, 0x80 + u8::from(v6))?.encode()?;
                let connection = client.connect(vip(v6), Some(first.as_bytes())).await?;
                let answer = stays(&connection, None).await?;
                ensure!(answer.server == backend.name, "{answer:?}, expected {}", backend.name);
                connections.push((connection, answer));
            }
            for _ in 0..3 {
                for (connection, before) in &connections {
                    stays(connection, Some(before)).await?;
                }
            }
            for address in addresses {
                client.move_to(address)?;
                for (connection, before) in &connections {
                    stays(connection, Some(before)).await?;
                }
            }
        }
        Ok(())
    })
}

macro_rules! tests {
    ($($name:ident: $what:ident($mode:literal, $ids:ident);)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            $what($mode, $ids)
        }
    )*};
}

tests! {
    namespace_quic_moves_nat_plain: migration("nat", PLAIN);
    namespace_quic_moves_nat_single_pass: migration("nat", SINGLE);
    namespace_quic_moves_nat_four_pass: migration("nat", FOUR);
    namespace_quic_moves_l2_four_pass: migration("l2", FOUR);
    namespace_quic_moves_ipip_single_pass: migration("ipip", SINGLE);
    namespace_quic_moves_gue_plain: migration("gue", PLAIN);
    namespace_quic_one_socket_nat: one_socket("nat", FOUR);
    namespace_quic_one_socket_l2: one_socket("l2", SINGLE);
}
