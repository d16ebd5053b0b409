//! Balancers as one, of which one dies in the middle of downloads and uploads that another one goes on with.

use anyhow::{Context, Result, bail, ensure};
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use stickleback_tests::topology::crossing::{agrees, can_ask, join, unite};
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{Balancer, Crossing, SOON, ServiceConfig, server};

const PLAIN: &str = "affinity = \"source-ip\"\nmirror = true";
const COOKIES: &str =
    "affinity = { kind = \"http-cookie\", cookie = \"SESS\" }\nmirror = true\nmirror-age = \"1s\"";
/// Not mirrored.
const ALONE: &str = "affinity = \"source-ip\"";
/// Bytes of a transfer: without hurry it takes longer than any test.
const LONG: u64 = 12 << 20;

/// What backends of a service answer to.
#[derive(Clone, Copy)]
enum Source {
    /// An address of the node's in their network.
    Own,
    /// One that their router sends to the node.
    Routed,
    /// The client's: no source NAT.
    Client,
}

/// A service: its address, what its backends answer to, and its lines.
type Row = (&'static str, Source, &'static str);

const OWN: &[Row] = &[("10.99.0.1:80", Source::Own, PLAIN), ("10.99.0.2:8080", Source::Own, COOKIES)];

fn vip((address, ..): &Row) -> Result<SocketAddr> {
    Ok(address.parse()?)
}

fn services(crossing: &Crossing, node: usize, rows: &[Row]) -> Result<Vec<ServiceConfig>> {
    let service = |row: &Row| -> Result<ServiceConfig> {
        let (address, source, lines) = row;
        let service = crossing.service(node, address, vip(row)?, "nat");
        let service = match source {
            Source::Own => service,
            Source::Routed => {
                ServiceConfig { lines: format!("source-nat = \"fd05::{}\"\n", node + 1), ..service }
            }
            Source::Client => ServiceConfig { lines: String::new(), ..service },
        };
        let name = format!("at-{}", plainly(address));
        Ok(ServiceConfig { name, ..service }.with(lines))
    };
    rows.iter().map(service).collect()
}

/// An address as part of a name.
fn plainly(address: &str) -> String {
    address.replace(['.', ':', '[', ']'], "-")
}

/// Source addresses of a node in the backends' network, counted from 0.
fn block(node: usize) -> [String; 2] {
    [format!("10.2.0.2{}", node + 1), format!("fd02::2{}", node + 1)]
}

/// Nodes in a cluster that announce on this interface what they take over.
fn cluster(crossing: &Crossing, interface: &str, rows: &[Row]) -> Result<Vec<Balancer>> {
    // Transfers are to be on their way, not in the sockets of those who are in no hurry.
    for end in crossing.backends.iter().map(|(_, backend)| backend).chain([&crossing.client]) {
        end.set("ipv4/tcp_rmem=4096 65536 65536")?;
        end.set("ipv4/tcp_wmem=4096 65536 65536")?;
    }
    let of = |node: usize| {
        let [v4, v6] = block(node);
        let n = node + 1;
        format!("{{ node = \"lb{n}\", addresses = [\"{v4}\", \"{v6}\", \"fd05::{n}\"] }}")
    };
    let count = crossing.machines.len();
    let blocks: Vec<String> = (0..count).map(of).collect();
    let text = format!(
        "announce = {{ interface = \"{interface}\", lifetime = \"3s\" }}\nblock = [{}]\n",
        blocks.join(", ")
    );
    let start = |node| -> Result<Balancer> {
        crossing.balance(node, &crossing.config(node, &text, &services(crossing, node, rows)?))
    };
    let nodes = (0..count).map(start).collect::<Result<Vec<_>>>()?;
    unite(&nodes[0], &nodes[1])?;
    nodes[2..].iter().try_for_each(|node| join(&nodes[0], node))?;
    for node in &nodes {
        agrees(node)?;
        can_ask(node, count - 1)?;
    }
    Ok(nodes)
}

/// A download or an upload.
struct Transfer {
    name: String,
    child: Child,
    /// Where what came is; of an upload the name alone.
    to: PathBuf,
    is_upload: bool,
}

impl Transfer {
    fn start(crossing: &Crossing, vip: SocketAddr, is_upload: bool) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let directory = crossing.directory();
        let (long, script) = (long(crossing), directory.join("stroll.py"));
        if !long.exists() {
            server::file(&long, LONG)?;
            std::fs::write(&script, include_str!("stroll.py"))?;
        }
        let kind = if is_upload { "up" } else { "down" };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{kind}-{number}-{}", plainly(&vip.to_string()));
        let to = if is_upload { PathBuf::from(&name) } else { directory.join(&name) };
        let (verb, path, file) = match is_upload {
            true => ("put", format!("/put/{name}"), &long),
            false => ("get", "/files/long".to_owned(), &to),
        };
        let mut command = crossing.client.command("python3")?;
        command.arg(script).args([&vip.ip().to_string(), &vip.port().to_string(), verb, &path]);
        command.arg(file).arg(hurry(crossing));
        let child = command.stderr(Stdio::piped()).spawn()?;
        Ok(Self { name, child, to, is_upload })
    }

    /// A download and an upload by way of each service.
    fn both(crossing: &Crossing, rows: &[Row]) -> Result<Vec<Self>> {
        let ways = rows.iter().flat_map(|row| [(row, false), (row, true)]);
        ways.map(|(row, is_upload)| Self::start(crossing, vip(row)?, is_upload)).collect()
    }

    /// Fails when it has ended.
    fn runs(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let mut said = String::new();
            self.child.stderr.take().context("no errors to read")?.read_to_string(&mut said)?;
            bail!("{} ended too early, with {status}: {said}", self.name);
        }
        Ok(())
    }

    /// Waits for its end; whether every byte came as it was sent.
    fn finish(self, crossing: &Crossing) -> Result<()> {
        let output = self.child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {said}", self.name);
        let came = if self.is_upload {
            let stored = crossing.backends.iter().map(|(backend, _)| {
                std::fs::read(crossing.directory().join(backend).join("put").join(&self.to))
            });
            stored.filter_map(Result::ok).next().with_context(|| format!("{} is nowhere", self.name))?
        } else {
            std::fs::read(&self.to)?
        };
        let is_same = came == std::fs::read(long(crossing))?;
        ensure!(is_same, "{}: {} bytes came, and others than were sent", self.name, came.len());
        Ok(())
    }
}

/// The file that is transferred.
fn long(crossing: &Crossing) -> PathBuf {
    crossing.directory().join("files/long")
}

/// The file that makes transfers hurry.
fn hurry(crossing: &Crossing) -> PathBuf {
    crossing.directory().join("hurry")
}

/// Lets all of them hurry to their end; every one that is not whole is named.
fn finish(crossing: &Crossing, transfers: Vec<Transfer>) -> Result<()> {
    std::fs::write(hurry(crossing), "")?;
    let failed = transfers.into_iter().filter_map(|transfer| transfer.finish(crossing).err());
    let failed: Vec<String> = failed.map(|why| format!("{why:#}")).collect();
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

fn mirror(node: &Balancer, what: &str) -> Result<u64> {
    let status = node.ask(&["cluster", "status"])?;
    status["node"]["mirror"][what].as_u64().with_context(|| format!("no {what} in {status:#}"))
}

/// Waits until a node says so many of its mirroring, while all of these run.
fn counts(node: &Balancer, what: &str, connections: usize, transfers: &mut [Transfer]) -> Result<()> {
    let counted = eventually(SOON, || {
        let found = mirror(node, what)?;
        ensure!(found == connections as u64, "{found} connections are {what}, not {connections}");
        Ok(())
    });
    // What has ended says why it is not counted.
    transfers.iter_mut().try_for_each(Transfer::runs)?;
    counted
}

/// Transfers of these services that are older than the age go on, byte by byte, when their node dies; others do not.
fn survive(crossing: &Crossing, interface: &str, rows: &[Row]) -> Result<()> {
    let alone: Row = ("10.99.0.99:80", Source::Own, ALONE);
    let all: Vec<Row> = rows.iter().copied().chain([alone]).collect();
    crossing.reshuffle(&[0])?;
    let mut nodes = cluster(crossing, interface, &all)?;
    let mut mirrored = Transfer::both(crossing, rows)?;
    // Who only waits for bytes would not hear that there will be none.
    let mut other = Transfer::start(crossing, vip(&alone)?, true)?;
    let count = mirrored.len();
    counts(&nodes[1], "held", count, &mut mirrored)?;
    counts(&nodes[0], "mirrored", count, &mut mirrored)?;
    std::thread::sleep(Duration::from_secs(2));
    other.runs()?;

    crossing.kill(0, &mut nodes[0])?;
    crossing.reshuffle(&[1])?;
    crossing.route_block(0, 1)?;
    counts(&nodes[1], "adopted", count, &mut mirrored)?;
    finish(crossing, mirrored)?;
    ensure!(other.finish(crossing).is_err(), "who is not mirrored does not survive");
    // What ended is not held for ever.
    counts(&nodes[1], "held", 0, &mut [])
}

#[test]
fn namespace_mirror_transfers_survive_their_node() -> Result<()> {
    survive(&Crossing::new(2)?, "lo", OWN)
}

/// Over IPv6, and where backends answer to their clients by way of an address that the heir takes over with the connections.
#[test]
fn namespace_mirror_transfers_survive_where_addresses_are_on_an_interface() -> Result<()> {
    let crossing = Crossing::new(2)?;
    crossing.answer_by_way_of(0)?;
    let rows = [
        ("[fd99::1]:80", Source::Own, PLAIN),
        ("[fd99::2]:8080", Source::Own, COOKIES),
        ("[fd99::3]:80", Source::Routed, PLAIN),
        ("[fd99::4]:80", Source::Client, PLAIN),
        ("10.99.0.5:80", Source::Client, PLAIN),
        ("10.99.0.6:8080", Source::Client, COOKIES),
    ];
    survive(&crossing, "l1", &rows)
}

/// Of three nodes one goes on with what a dead one had; what it had itself goes on, and what the third one has.
#[test]
fn namespace_mirror_has_one_heir_among_three() -> Result<()> {
    let crossing = Crossing::of(3, 2)?;
    crossing.reshuffle(&[0])?;
    let mut nodes = cluster(&crossing, "lo", OWN)?;
    let mut transfers = Vec::new();
    let each = 2 * OWN.len();
    for (n, node) in nodes.iter().enumerate() {
        crossing.reshuffle(&[n])?;
        transfers.extend(Transfer::both(&crossing, OWN)?);
        // Before they may go elsewhere they are this node's.
        counts(node, "mirrored", each, &mut transfers)?;
    }
    crossing.reshuffle(&[0, 1, 2])?;
    for node in &nodes {
        counts(node, "held", 2 * each, &mut transfers)?;
    }

    crossing.kill(0, &mut nodes[0])?;
    crossing.reshuffle(&[1, 2])?;
    eventually(SOON, || {
        let adopted = [mirror(&nodes[1], "adopted")?, mirror(&nodes[2], "adopted")?];
        ensure!(adopted.contains(&(each as u64)), "the others took {adopted:?} connections over, not {each}");
        Ok(())
    })?;
    finish(&crossing, transfers)?;
    let adopted = mirror(&nodes[1], "adopted")? + mirror(&nodes[2], "adopted")?;
    ensure!(adopted == each as u64, "{adopted} connections were taken over, not {each}");
    Ok(())
}

/// A node that comes back gets what was its own, and its addresses: what the heir has carried meanwhile goes on.
#[test]
fn namespace_mirror_gives_back() -> Result<()> {
    let client = [("10.99.0.3:80", Source::Client, PLAIN), ("10.99.0.4:8080", Source::Client, COOKIES)];
    let rows = [OWN, &[("[fd99::1]:80", Source::Own, PLAIN)], &client].concat();
    let crossing = Crossing::new(2)?;
    crossing.answer_by_way_of(0)?;
    crossing.reshuffle(&[0])?;
    let mut nodes = cluster(&crossing, "l1", &rows)?;
    let mut transfers = Transfer::both(&crossing, &rows)?;
    let first = transfers.len();
    counts(&nodes[1], "held", first, &mut transfers)?;

    crossing.kill(0, &mut nodes[0])?;
    crossing.reshuffle(&[1])?;
    counts(&nodes[1], "adopted", first, &mut transfers)?;
    // Backends answer by way of the address that the heir has now: these connections come home, too.
    let later = Transfer::both(&crossing, &client)?;
    let home = first + later.len();
    transfers.extend(later);
    std::thread::sleep(Duration::from_secs(3));

    crossing.revive(0, &mut nodes[0])?;
    agrees(&nodes[0])?;
    counts(&nodes[0], "adopted", home, &mut transfers)?;
    eventually(SOON, || {
        let shown = crossing.machines[1].sh("ip -o addr show dev l1")?;
        let held: Vec<String> =
            block(0).into_iter().filter(|address| shown.contains(&format!("{address}/"))).collect();
        ensure!(held.is_empty(), "the heir still has {held:?}");
        crossing.told(&block(0), 0)
    })?;
    crossing.reshuffle(&[0])?;
    transfers.iter_mut().try_for_each(Transfer::runs)?;
    finish(&crossing, transfers)
}

/// What ends is forgotten by those who hold it, and while a node lives nobody else touches its connections.
#[test]
fn namespace_mirror_is_of_what_runs() -> Result<()> {
    let crossing = Crossing::new(2)?;
    crossing.reshuffle(&[0])?;
    let mut nodes = cluster(&crossing, "lo", OWN)?;
    let downloads = OWN.iter().map(|row| Transfer::start(&crossing, vip(row)?, false));
    let mut transfers = downloads.collect::<Result<Vec<_>>>()?;
    counts(&nodes[1], "held", 2, &mut transfers)?;
    // The daemon alone dies: packets go on, and the other node keeps its hands off.
    nodes[0].kill();
    std::thread::sleep(Duration::from_secs(12));
    ensure!(mirror(&nodes[1], "adopted")? == 0, "its node lives");
    nodes[0].restart()?;
    agrees(&nodes[0])?;
    counts(&nodes[1], "held", 2, &mut transfers)?;
    // A reset or FIN says it.
    for left in [1, 0] {
        let mut running = transfers.pop().context("a transfer for each service")?;
        running.runs()?;
        running.child.kill()?;
        running.child.wait()?;
        counts(&nodes[1], "held", left, &mut transfers)?;
    }
    Ok(())
}
