//! Two balancers as one, of which one dies in the middle of downloads and uploads that the other one goes on with.

use anyhow::{Context, Result, bail, ensure};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;
use stickleback_tests::topology::crossing::{NODES, agrees, unite};
use stickleback_tests::topology::process::eventually;
use stickleback_tests::topology::{Balancer, Crossing, SOON, ServiceConfig};

const COOKIE: &str = r#"affinity = { kind = "http-cookie", cookie = "SESS" }"#;
/// Speeds as curl has them: at the one a transfer takes half a minute, at the other longer than any test.
const SPEED: &str = "200K";
const SLOW: &str = "20K";
const LONG: usize = 200 * 1_024 * 30;

/// Services that are mirrored, and one that is not.
fn plain() -> SocketAddr {
    "10.99.0.1:80".parse().expect("an address")
}
fn cookies() -> SocketAddr {
    "10.99.0.2:8080".parse().expect("an address")
}
fn alone() -> SocketAddr {
    "10.99.0.3:80".parse().expect("an address")
}

fn services(crossing: &Crossing, node: usize) -> Vec<ServiceConfig> {
    let nat = |name, vip| crossing.service(node, name, vip, "nat");
    let plain = nat("plain", plain()).with("affinity = \"source-ip\"\nmirror = true");
    let shop = nat("shop", cookies()).with(COOKIE).with("mirror = true\nmirror-age = \"1s\"");
    vec![plain, shop, nat("alone", alone()).with("affinity = \"source-ip\"")]
}

fn cluster(crossing: &Crossing) -> Result<Vec<Balancer>> {
    // Transfers are to be on their way, not in the sockets of those who are in no hurry.
    for end in crossing.backends.iter().map(|(_, backend)| backend).chain([&crossing.client]) {
        end.set("ipv4/tcp_rmem=4096 65536 65536")?;
        end.set("ipv4/tcp_wmem=4096 65536 65536")?;
    }
    let of = |node: usize| format!("{{ node = \"lb{}\", addresses = [\"10.2.0.2{}\"] }}", node + 1, node + 1);
    let blocks: Vec<String> = (0..NODES).map(of).collect();
    let text =
        format!("announce = {{ interface = \"lo\", lifetime = \"3s\" }}\nblock = [{}]\n", blocks.join(", "));
    let start = |node| crossing.balance(node, &crossing.config(node, &text, &services(crossing, node)));
    let nodes = (0..NODES).map(start).collect::<Result<Vec<_>>>()?;
    unite(&nodes[0], &nodes[1])?;
    Ok(nodes)
}

/// Bytes that are the same nowhere else.
fn content() -> Vec<u8> {
    let mut state = 0x1234_5678_9abc_def1_u64;
    let words = (0..LONG / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
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
    fn start(crossing: &Crossing, vip: SocketAddr, is_upload: bool, speed: &str) -> Result<Self> {
        let directory = crossing.directory();
        let long = directory.join("files/long");
        if !long.exists() {
            std::fs::write(&long, content())?;
        }
        let kind = if is_upload { "up" } else { "down" };
        let name = format!("{kind}-{}", vip.to_string().replace(['.', ':', '[', ']'], "-"));
        let mut command = crossing.client.command("curl")?;
        command.args(["-sS", "--fail", "-m", "150", "--limit-rate", speed]);
        let to = if is_upload { PathBuf::from(&name) } else { directory.join(&name) };
        if is_upload {
            command.arg("-o").arg("/dev/null").arg("-T").arg(&long).arg(format!("http://{vip}/put/{name}"));
        } else {
            command.arg("-o").arg(&to).arg(format!("http://{vip}/files/long"));
        }
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        Ok(Self { name, child, to, is_upload })
    }

    /// Itself while it runs, else how it ended.
    fn still_runs(mut self, crossing: &Crossing) -> Result<Self> {
        if self.child.try_wait()?.is_some() {
            self.finish(crossing)?;
            bail!("a transfer ended too early");
        }
        Ok(self)
    }

    /// Waits for its end; whether every byte came as it was sent.
    fn finish(self, crossing: &Crossing) -> Result<()> {
        let output = self.child.wait_with_output().context("curl")?;
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
        ensure!(came == content(), "{}: {} bytes came, and others than were sent", self.name, came.len());
        Ok(())
    }
}

/// Waits until a node holds so many connections of the other one.
fn holds(node: &Balancer, connections: u64) -> Result<()> {
    eventually(SOON, || {
        let status = node.ask(&["cluster", "status"])?;
        let held = status["peers"][0]["held_connections"].as_u64();
        ensure!(held == Some(connections), "{held:?} connections are held, not {connections}: {status:#}");
        Ok(())
    })
}

fn mirror(node: &Balancer, what: &str) -> Result<u64> {
    let status = node.ask(&["cluster", "status"])?;
    status["node"]["mirror"][what].as_u64().with_context(|| format!("no {what} in {status:#}"))
}

/// Downloads and uploads that are older than the age go on, byte by byte, when their node dies; others do not.
#[test]
fn namespace_mirror_transfers_survive_their_node() -> Result<()> {
    let crossing = Crossing::new(2)?;
    crossing.reshuffle(&[0])?;
    let mut nodes = cluster(&crossing)?;
    let start = |vip| {
        [false, true]
            .into_iter()
            .map(|up| Transfer::start(&crossing, vip, up, SPEED))
            .collect::<Result<Vec<_>>>()
    };
    let mirrored = [start(plain())?, start(cookies())?].into_iter().flatten().collect::<Vec<_>>();
    let other = Transfer::start(&crossing, alone(), false, SPEED)?;
    if let Err(error) = holds(&nodes[1], mirrored.len() as u64) {
        let ended = mirrored.into_iter().map(|mut transfer| {
            drop(transfer.child.kill());
            transfer.finish(&crossing).map_or_else(|why| format!("{why:#}"), |()| "done".to_owned())
        });
        return Err(error.context(ended.collect::<Vec<_>>().join("; ")));
    }
    ensure!(mirror(&nodes[0], "mirrored")? == mirrored.len() as u64);
    std::thread::sleep(Duration::from_secs(2));
    let other = other.still_runs(&crossing)?;

    crossing.kill(0, &mut nodes[0])?;
    crossing.reshuffle(&[1])?;
    eventually(SOON, || {
        let adopted = mirror(&nodes[1], "adopted")?;
        ensure!(adopted == mirrored.len() as u64, "{adopted} connections were taken over");
        Ok(())
    })?;
    for transfer in mirrored {
        transfer.finish(&crossing)?;
    }
    ensure!(other.finish(&crossing).is_err(), "who is not mirrored does not survive");
    // What ended is not held for ever.
    holds(&nodes[1], 0)?;
    Ok(())
}

/// What ends is forgotten by those who hold it, and while a node lives nobody else touches its connections.
#[test]
fn namespace_mirror_is_of_what_runs() -> Result<()> {
    let crossing = Crossing::new(2)?;
    crossing.reshuffle(&[0])?;
    let mut nodes = cluster(&crossing)?;
    let transfers = [plain(), cookies()]
        .map(|vip| Transfer::start(&crossing, vip, false, SLOW))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    holds(&nodes[1], 2)?;
    // The daemon alone dies: packets go on, and the other node keeps its hands off.
    nodes[0].kill();
    std::thread::sleep(Duration::from_secs(12));
    ensure!(mirror(&nodes[1], "adopted")? == 0, "its node lives");
    nodes[0].restart()?;
    agrees(&nodes[0])?;
    holds(&nodes[1], 2)?;
    // A reset or FIN says it.
    for (left, transfer) in [1, 0].into_iter().zip(transfers) {
        let mut running = transfer.still_runs(&crossing)?;
        running.child.kill()?;
        running.child.wait()?;
        holds(&nodes[1], left)?;
    }
    Ok(())
}
