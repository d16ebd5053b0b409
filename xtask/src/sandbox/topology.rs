//! The sandbox's network: who is connected to whom, and under which addresses.
//!
//! ```text
//! sb-client eth0 --- client sb-lb be1 --- eth0 sb-be1   (and be2, be3)
//! ```
//! `sb-lb` is the router between all of them, so that replies of the direct-return modes get through it as
//! ordinary packets. Every interface has its own subnet; the virtual addresses belong to none of them.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};

use super::netns;
use crate::progress::read;

/// The namespace of the clients.
pub(crate) const CLIENT: &str = "sb-client";
/// The namespace of the balancer.
pub(crate) const BALANCER: &str = "sb-lb";
/// The backends; their namespaces have `sb-` before the name.
pub(crate) const BACKENDS: [&str; 3] = ["be1", "be2", "be3"];
/// The services' IPv4 address.
pub(crate) const VIP4: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The services' IPv6 address.
pub(crate) const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1);
/// How many client addresses there are in each family.
pub(crate) const CLIENTS: u8 = 99;

/// All namespaces, in the order they are made.
pub(crate) fn namespaces() -> Vec<String> {
    let fixed = [CLIENT, BALANCER].map(str::to_owned);
    fixed.into_iter().chain(BACKENDS.map(|name| format!("sb-{name}"))).collect()
}

/// The IPv4 address of client `n`, counted from 0.
pub(crate) fn client4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 9, 2 + n)
}

/// The IPv6 address of client `n`: each has a /64 of its own, as clients in the Internet do.
pub(crate) fn client6(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd99, 9, 0, 0x100 + u16::from(n), 0, 0, 0, 2)
}

/// Makes the namespaces, cables, addresses and routes.
pub(super) fn make() -> Result<()> {
    for name in namespaces() {
        netns::add(&name)?;
        settings(&name)?;
    }
    cable(CLIENT, "client", 9)?;
    for (number, name) in (1..).zip(BACKENDS) {
        cable(&format!("sb-{name}"), name, number)?;
    }
    client_addresses()?;
    for name in BACKENDS {
        // Direct-return modes hand packets to the backend with the virtual address still in them.
        ip(
            &format!("sb-{name}"),
            "route add local 10.99.0.0/24 dev lo\n-6 route add local fd99::/64 dev lo\n",
        )?;
    }
    Ok(())
}

fn settings(namespace: &str) -> Result<()> {
    // `default` before any interface is made, so that those inherit it.
    let mut settings = vec![
        "net.ipv4.conf.all.rp_filter=0",
        "net.ipv4.conf.default.rp_filter=0",
        "net.ipv6.conf.all.accept_dad=0",
        "net.ipv6.conf.default.accept_dad=0",
        "net.ipv6.conf.default.accept_ra=0",
        // Thousands of short connections from few ports.
        "net.ipv4.ip_local_port_range=1024 65535",
        "net.ipv4.tcp_max_syn_backlog=65536",
        "net.core.somaxconn=65536",
    ];
    if namespace == BALANCER {
        settings.extend(["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]);
    } else {
        settings.extend(["net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2"]);
    }
    netns::within(namespace, || {
        settings.iter().try_for_each(|setting| {
            let (name, value) = setting.split_once('=').expect("the list is constant");
            let path = format!("/proc/sys/{}", name.replace('.', "/"));
            std::fs::write(&path, value)
                .with_context(|| format!("cannot set {name} to {value} in {namespace}"))
        })
    })
}

/// A veth pair between the balancer and another namespace, in subnet `number` of both families.
fn cable(namespace: &str, at_balancer: &str, number: u8) -> Result<()> {
    // A queue per CPU: packets of one flow then meet the program on several CPUs, as on a real NIC.
    let queues = thread::available_parallelism().map_or(1, usize::from);
    let queues = format!("numtxqueues {queues} numrxqueues {queues}");
    ip(
        BALANCER,
        &format!(
            "link add name {at_balancer} {queues} address 02:99:00:00:{number:02x}:01 type veth \
             peer name eth0 {queues} address 02:99:00:00:{number:02x}:02 netns {namespace}\n\
             addr add 10.99.{number}.1/24 dev {at_balancer}\n\
             addr add fd99:{number}::1/64 dev {at_balancer} nodad\n\
             link set {at_balancer} up\nlink set lo up\n"
        ),
    )?;
    ip(
        namespace,
        &format!(
            "addr add 10.99.{number}.2/24 dev eth0\n\
             addr add fd99:{number}::2/64 dev eth0 nodad\n\
             link set lo up\nlink set eth0 up\n\
             route add default via 10.99.{number}.1\n\
             -6 route add default via fd99:{number}::1\n"
        ),
    )?;
    offloads(BALANCER, at_balancer)?;
    offloads(namespace, "eth0")?;
    steer_by_flow(namespace)
}

/// Lets a host take all packets of a connection on one CPU, as a NIC's RSS does.
///
/// Linux 6.18 was seen to reset about one connection in some hundred thousand, presumably when one CPU takes the request while another one still turns
/// the handshake's last acknowledgement into the connection.
fn steer_by_flow(namespace: &str) -> Result<()> {
    let cpus = thread::available_parallelism().map_or(1, usize::from).min(32);
    let script = format!(
        "for queue in /sys/class/net/eth0/queues/rx-*; do echo {:x} > $queue/rps_cpus; done",
        (1_u64 << cpus) - 1
    );
    // The namespace's own /sys, which only this way of entering it shows.
    read(Command::new("ip").args(["netns", "exec", namespace, "sh", "-e", "-c", &script])).map(drop)
}

/// Checksums complete on the wire, since XDP updates them; GRO on, without which veth takes no redirected frames.
fn offloads(namespace: &str, interface: &str) -> Result<()> {
    read(netns::command(namespace, "ethtool").args(["-K", interface, "tx", "off", "gro", "on"])).map(drop)
}

fn client_addresses() -> Result<()> {
    let mut batch = String::new();
    for n in 1..CLIENTS {
        writeln!(batch, "addr add {}/24 dev eth0", client4(n))?;
    }
    for n in 0..CLIENTS {
        writeln!(batch, "addr add {}/128 dev lo nodad", client6(n))?;
    }
    ip(CLIENT, &batch)?;
    ip(BALANCER, "-6 route add fd99:9::/48 via fd99:9::2 dev client\n")
}

/// Runs lines of `ip` commands in a namespace.
fn ip(namespace: &str, lines: &str) -> Result<()> {
    for line in lines.lines() {
        let mut command = Command::new("ip");
        command.args(["-n", namespace]).args(line.split_whitespace());
        read(&mut command)?;
    }
    Ok(())
}
