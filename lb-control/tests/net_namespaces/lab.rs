//! A balancer's namespace with two links, and a follower that runs inside.
//!
//! `lb0` (192.0.2.1, 2001:db8:1::1) leads to `be0` (.2, MAC ..:01), `lb1` (192.0.3.1, 2001:db8:2::1) to
//! `be1` (.2, MAC ..:02).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lb_common::abi::Mac;
use lb_control::net::hops::{HopChange, Hops, Way};
use lb_control::net::interface::{Interface, InterfaceError};
use tokio::sync::watch;

pub(crate) fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

/// Three namespaces, removed with the value.
pub(crate) struct Lab {
    prefix: String,
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in ["lb", "be0", "be1"] {
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(name)]).output();
        }
    }
}

impl Lab {
    pub(crate) fn new(name: &str) -> Self {
        // SAFETY: has no preconditions.
        let user = unsafe { libc::geteuid() };
        assert_eq!(user, 0, "this test makes network namespaces and has to run as root");
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let lab = Self { prefix: format!("t-net-{}-{count}-{name}", std::process::id()) };
        for name in ["lb", "be0", "be1"] {
            run(&["netns", "add", &lab.namespace(name)]);
            lab.sysctl(name, "net.ipv6.conf.default.accept_dad=0");
            lab.ip_in(name, &["link", "set", "lo", "up"]);
        }
        for (number, net) in [(0_u8, 2_u8), (1, 3)] {
            let (ours, theirs) = (format!("lb{number}"), format!("be{number}"));
            let peer = lab.namespace(&theirs);
            let (own_mac, peer_mac) = (
                format!("02:00:00:00:00:{:02x}", 0x10 + number),
                format!("02:00:00:00:00:{:02x}", 1 + number),
            );
            lab.ip(&[
                "link", "add", &ours, "address", &own_mac, "type", "veth", "peer", "name", &theirs,
                "address", &peer_mac, "netns", &peer,
            ]);
            for (namespace, device, host) in [("lb", &ours, 1), (theirs.as_str(), &theirs, 2)] {
                lab.ip_in(namespace, &["link", "set", device, "up"]);
                lab.ip_in(namespace, &["addr", "add", &format!("192.0.{net}.{host}/24"), "dev", device]);
                let v6 = format!("2001:db8:{}::{host}/64", number + 1);
                lab.ip_in(namespace, &["addr", "add", &v6, "dev", device, "nodad"]);
            }
        }
        lab.eventually("carrier", || {
            ["lb0", "lb1"].iter().all(|link| lab.ip(&["link", "show", link]).contains("LOWER_UP"))
        });
        lab
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// `ip` in the balancer's namespace.
    pub(crate) fn ip(&self, arguments: &[&str]) -> String {
        self.ip_in("lb", arguments)
    }

    /// The same with the mounts of the test itself (`ip -n` makes its own), for paths in bpffs.
    pub(crate) fn ip_with_mounts(&self, arguments: &[&str]) -> String {
        self.inside(|| run(arguments))
    }

    pub(crate) fn ip_in(&self, name: &str, arguments: &[&str]) -> String {
        let namespace = self.namespace(name);
        run(&[["-n", namespace.as_str()].as_slice(), arguments].concat())
    }

    pub(crate) fn ip_batch(&self, commands: &str) {
        let mut child = Command::new("ip")
            .args(["-n", &self.namespace("lb"), "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("ip starts");
        child.stdin.take().expect("piped").write_all(commands.as_bytes()).expect("ip reads");
        assert!(child.wait().expect("ip ends").success());
    }

    pub(crate) fn sysctl(&self, name: &str, setting: &str) {
        self.exec(name, &["sysctl", "-qw", setting]);
    }

    pub(crate) fn exec(&self, name: &str, command: &[&str]) -> String {
        let namespace = self.namespace(name);
        run(&[["netns", "exec", namespace.as_str()].as_slice(), command].concat())
    }

    /// Runs something in a thread inside the balancer's namespace.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.namespace("lb"));
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                enter(&path);
                work()
            });
            thread.join().expect("no panic inside")
        })
    }

    pub(crate) fn interface(&self, name: &str) -> Result<Interface, InterfaceError> {
        self.inside(|| runtime().block_on(Interface::find(name)))
    }

    pub(crate) fn index(&self, link: &str) -> u32 {
        let line = self.ip(&["-o", "link", "show", link]);
        line.split(':').next().and_then(|number| number.trim().parse().ok()).expect("an index")
    }

    /// Netlink events of this process that the kernel dropped.
    pub(crate) fn dropped_events(&self) -> u64 {
        let shown = self.exec("lb", &["cat", "/proc/net/netlink"]);
        shown.lines().skip(1).filter_map(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok()).sum()
    }

    /// Makes the balancer's kernel know a neighbour.
    pub(crate) fn resolved(&self, address: &str) {
        let link = if address.contains(".3.") || address.contains(":2::") { "lb1" } else { "lb0" };
        self.ip(&["neigh", "replace", address, "dev", link, "use", "nud", "none"]);
        self.eventually("neighbour resolved", || {
            self.ip(&["neigh", "show", "to", address]).contains("02:00:00")
        });
    }

    pub(crate) fn eventually(&self, what: &str, condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < Duration::from_secs(10), "waited in vain: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Follows the ways to `targets` from a thread inside the balancer's namespace.
    pub(crate) fn follow(&self, targets: &[&str]) -> Follower {
        let path = format!("/run/netns/{}", self.namespace("lb"));
        let (targets, watched) = watch::channel(addresses(targets));
        let (sender, changes) = mpsc::channel();
        let (stall, mut stalls) = tokio::sync::mpsc::unbounded_channel::<mpsc::Receiver<()>>();
        let thread = std::thread::spawn(move || {
            enter(&path);
            runtime().block_on(async move {
                let (mut receiver, task) = Hops::start(watched);
                loop {
                    tokio::select! {
                        change = receiver.recv() => match change {
                            Some(change) => { let _ = sender.send(change); }
                            None => break,
                        },
                        // Blocks the whole thread until the other side is dropped.
                        Some(resume) = stalls.recv() => { let _ = resume.recv(); }
                    }
                }
                task.await.expect("the follower ends by itself");
            });
        });
        Follower { targets: Some(targets), changes, stall, thread: Some(thread) }
    }
}

/// A running follower; ends with the value.
pub(crate) struct Follower {
    targets: Option<watch::Sender<BTreeSet<IpAddr>>>,
    changes: mpsc::Receiver<HopChange>,
    stall: tokio::sync::mpsc::UnboundedSender<mpsc::Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.targets.take());
        let joined = self.thread.take().expect("taken here only").join();
        assert!(joined.is_ok() || std::thread::panicking());
    }
}

impl Follower {
    pub(crate) fn targets(&self, targets: &[&str]) {
        self.targets.as_ref().expect("taken in drop only").send_replace(addresses(targets));
    }

    /// The next changes, one for each of `count` addresses (the last of each counts).
    pub(crate) fn ways(&self, count: usize, within: Duration) -> BTreeMap<IpAddr, Option<Way>> {
        let end = Instant::now() + within;
        let mut found = BTreeMap::new();
        while found.len() < count {
            let left = end.saturating_duration_since(Instant::now());
            match self.changes.recv_timeout(left) {
                Ok(change) => found.insert(change.address, change.way),
                Err(_) => panic!("{} of {count} addresses changed within {within:?}: {found:?}", found.len()),
            };
        }
        found
    }

    /// The next change, which has to be of `address`.
    pub(crate) fn change(&self, address: &str, within: Duration) -> Option<Way> {
        let (changed, way) = self.ways(1, within).pop_first().expect("one change");
        assert_eq!(changed.to_string(), address);
        way
    }

    /// The way to `address`, which has to be told within the time.
    pub(crate) fn way(&self, address: &str, within: Duration) -> Way {
        let end = Instant::now() + within;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let change = self.changes.recv_timeout(left);
            let change = change.unwrap_or_else(|_| panic!("no way to {address} within {within:?}"));
            if let Some(way) = change.way.filter(|_| change.address.to_string() == address) {
                return way;
            }
        }
    }

    /// Nothing may change for a while.
    pub(crate) fn quiet(&self, time: Duration) {
        let change = self.changes.recv_timeout(time);
        assert!(change.is_err(), "nothing was to change: {change:?}");
    }

    /// Keeps the follower's thread from running until the returned value is dropped.
    pub(crate) fn stall(&self) -> mpsc::Sender<()> {
        let (resume, stalled) = mpsc::channel();
        self.stall.send(stalled).expect("the thread runs");
        resume
    }
}

fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

fn run(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
    assert!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Moves the calling thread into a network namespace.
fn enter(path: &str) {
    let namespace = File::open(path).expect("the namespace exists");
    // SAFETY: the descriptor is open; the call changes this thread only.
    let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(entered, 0, "cannot enter {path}");
}
