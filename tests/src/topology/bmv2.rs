//! bmv2's `simple_switch_grpc` in the place of the balancer's kernel.

use super::process::{Process, eventually};
use super::{Namespace, SOON, Site};
use anyhow::{Context, Result, bail, ensure};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

/// The switch's program.
const PROGRAM: &str = "simple_switch_grpc";
/// Where it listens for P4Runtime.
const SERVER: &str = "127.0.0.1:9559";

/// A running switch.
#[derive(Debug)]
pub struct Bmv2 {
    namespace: Namespace,
    ports: Vec<String>,
    log: PathBuf,
    process: Process,
}

impl Bmv2 {
    /// Where its program is.
    pub fn program() -> Result<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut files = std::env::split_paths(&path).map(|directory| directory.join(PROGRAM));
        files.find(|file| file.is_file()).with_context(|| {
            format!("{PROGRAM} is not on the PATH: install p4lang/behavioral-model with p4lang/PI")
        })
    }

    /// Starts it where the balancer of a site with two arms is: port 1 to the clients, 2 and so on to the backends.
    pub fn start(site: &Site) -> Result<Self> {
        let ports = (0..=site.backends.len()).map(|n| format!("l{n}")).collect();
        Self::at(&site.lb, ports, site.directory())
    }

    /// Starts it with these interfaces of a namespace, whose kernel still answers for its own addresses, and forwards nothing; the
    /// first one leads to the clients.
    pub fn at(namespace: &Namespace, ports: Vec<String>, directory: &Path) -> Result<Self> {
        namespace.set("ipv4/conf/all/forwarding=0")?;
        namespace.set("ipv6/conf/all/forwarding=0")?;
        // Without a route the kernel would tell clients that there is none.
        namespace.sh("ip route add blackhole 10.99.0.0/24; ip -6 route add blackhole fd99::/64")?;
        for port in &ports {
            // What arrives merged is not what was on the wire.
            namespace.sh(&format!("ethtool -K {port} gro off gso off tso off tx off >/dev/null"))?;
        }
        let log = directory.join("bmv2.log");
        let process = run(namespace, &ports, &log)?;
        Ok(Self { namespace: namespace.clone(), ports, log, process })
    }

    /// Ends it as a loss of power would, and starts it again, empty.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill();
        self.process = run(&self.namespace, &self.ports, &self.log)?;
        Ok(())
    }

    /// Its interfaces, the first of which leads to the clients.
    pub fn ports(&self) -> &[String] {
        &self.ports
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The `[dataplane]` table for it, with these clients behind port 1.
    pub fn config(&self, client: &Namespace, election: u64) -> Result<String> {
        let first = self.ports.first().context("a switch has ports")?;
        let mac = client.sh("ip -o link show dev eth0")?;
        let mac = mac.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
        let mac = mac.context("the clients' interface has a MAC")?;
        let ports: Vec<String> = (1..)
            .zip(&self.ports)
            .map(|(n, name)| format!("{{ interface = {name:?}, number = {n} }}"))
            .collect();
        let route = |to: &str| format!("{{ to = {to:?}, interface = {first:?}, mac = {mac:?} }}");
        Ok(format!(
            "[dataplane]\nkind = \"p4\"\naddress = \"{SERVER}\"\nelection-id = {election}\nports = [{}]\nroutes = [{}, {}]\n",
            ports.join(", "),
            route("10.0.0.0/8"),
            route("fd00::/8")
        ))
    }
}

fn run(namespace: &Namespace, ports: &[String], log: &Path) -> Result<Process> {
    let mut command = namespace.command(Bmv2::program()?)?;
    command.args(["--no-p4", "--device-id", "0", "--log-console", "-L"]);
    command.arg(std::env::var("BMV2_LOG").unwrap_or_else(|_| "warn".to_owned()));
    for (n, port) in (1..).zip(ports) {
        command.arg("-i").arg(format!("{n}@{port}"));
    }
    command.args(["--", "--grpc-server-addr", SERVER]);
    let mut process = Process::start(&mut command, log)?;
    let listens = eventually(SOON, || {
        if let Some(status) = process.ended()? {
            bail!("it ended with {status}");
        }
        namespace.inside(|| Ok(TcpStream::connect(SERVER).map(drop)?))
    });
    listens.with_context(|| format!("{PROGRAM} does not come up: {}", process.log()))?;
    ensure!(process.ended()?.is_none(), "{PROGRAM} ended: {}", process.log());
    Ok(process)
}
