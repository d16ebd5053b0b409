//! QUIC through the switch: real QUIC stacks, servers that name themselves in plain connection ids, clients that move.

#[path = "../namespace_quic/client.rs"]
mod client;
#[path = "../namespace_quic/server.rs"]
mod server;

use super::{balance, site};
use anyhow::{Context as _, Result, ensure};
use client::{Answer, Client, ask};
use quinn::Connection;
use server::{Identity, Ids, Server};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use stickleback_tests::topology::{ServiceConfig, Site, Testbed};

const PORT: u16 = 4_433;
const IDS: Ids = Ids { rotation: 2, server: 6, nonce: 8, key: None };

fn vip(v6: bool) -> SocketAddr {
    SocketAddr::new(super::vip(v6).ip(), PORT)
}

fn service(site: &Site, mode: &'static str, v6: bool) -> ServiceConfig {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let lines = format!(
        "affinity = \"quic-cid\"\nquic = [{{ rotation = {}, server-id-length = {}, nonce-length = {} }}]",
        IDS.rotation, IDS.server, IDS.nonce
    );
    let mut service = site.service("quic", vip(v6), mode, v6).with(&lines);
    for (n, backend) in service.backends.iter_mut().enumerate() {
        backend.lines.push_str(&format!("server-id = \"{}\"\n", hex(IDS.server_id(n))));
    }
    ServiceConfig { protocol: "udp", ..service }
}

/// Asks small and large; one connection of one server answers, the one that answered before.
async fn stays(connection: &Connection, before: Option<&Answer>) -> Result<Answer> {
    let first = ask(connection, 10).await?;
    let before = before.unwrap_or(&first).clone();
    for len in [1, 30_000] {
        let answer = ask(connection, len).await?;
        let same = (&answer.server, answer.connection) == (&before.server, before.connection);
        ensure!(same, "{before:?}, then {answer:?}");
    }
    ask(connection, 1).await
}

/// A connection goes on when its client changes its port, and then its address.
async fn moves(site: &Site, identity: &Identity, v6: bool) -> Result<()> {
    let addresses = site.clients(v6, 9);
    let mut served = BTreeSet::new();
    for pair in addresses.windows(2) {
        let client = Client::new(pair[0], identity)?;
        let connection = client.connect(vip(v6), None).await?;
        let first = stays(&connection, None).await?;
        for address in [pair[0], pair[1]] {
            let now = client.move_to(address)?;
            let answer = stays(&connection, Some(&first)).await?;
            ensure!(answer.client == now, "the server sees {answer:?}, the client is at {now}");
        }
        served.insert(first.server);
    }
    ensure!(served.len() > 1, "only {served:?} served");
    Ok(())
}

/// Connections to every server on one socket, which then moves with all of them.
async fn shares(site: &Site, identity: &Identity, v6: bool) -> Result<()> {
    let addresses = site.clients_from(v6, 100, 2);
    let client = Client::new(addresses[0], identity)?;
    let mut connections = Vec::new();
    for (n, backend) in site.backends.iter().enumerate() {
        let first = IDS.encoder(n, 0x80)?.encode().context("an id")?;
        let connection = client.connect(vip(v6), Some(first.as_bytes())).await?;
        let answer = stays(&connection, None).await?;
        ensure!(answer.server == backend.name, "{answer:?}, expected {}", backend.name);
        connections.push((connection, answer));
    }
    for address in addresses {
        client.move_to(address)?;
        for (connection, before) in &connections {
            stays(connection, Some(before)).await?;
        }
    }
    Ok(())
}

fn through_the_switch(mode: &'static str, v6: bool) -> Result<()> {
    let (site, switch) = site(1_600)?;
    let identity = Identity::new()?;
    let mut servers = Vec::new();
    let mut decapsulators = Vec::new();
    for (n, backend) in site.backends.iter().enumerate() {
        servers.push(Server::start(&backend.namespace, &backend.name, PORT, &identity, IDS, n)?);
        if mode == "ipip" {
            decapsulators.push(Testbed::decapsulate(&backend.namespace, "eth0")?);
        }
    }
    let _balancer = balance(&site, &switch, service(&site, mode, v6))?;
    site.client.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            moves(&site, &identity, v6).await?;
            shares(&site, &identity, v6).await
        })
    })
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_quic_nat_v4() -> Result<()> {
    through_the_switch("nat", false)
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_quic_nat_v6() -> Result<()> {
    through_the_switch("nat", true)
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_quic_l2_v4() -> Result<()> {
    through_the_switch("l2", false)
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_quic_ipip_v6() -> Result<()> {
    through_the_switch("ipip", true)
}
