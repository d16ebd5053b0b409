//! Every CPU works on one flow, or on one set of bindings, at once: what leaves is always right.
//!
//! The compiled programs run in parallel threads through `BPF_PROG_TEST_RUN`. Needs root.

use anyhow::{Context, Result, bail, ensure};
use lb_common::abi::SweepTarget;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use stickleback_tests::bench::{
    frame::{checksum, flag, tcp},
    product::Product,
    rig::{Rig, Verdict},
};

/// Rounds of each thread.
const ROUNDS: usize = 20_000;
/// `XDP_DROP` and `XDP_TX`.
const DROP: u32 = 1;
const TX: u32 = 3;

/// One NAT connection and the frames of both its sides.
struct Connection {
    client: SocketAddr,
    vip: SocketAddr,
    backend: SocketAddr,
    from_client: Vec<u8>,
    from_backend: Vec<u8>,
}

impl Connection {
    fn open(rig: &Rig, product: &Product, client: SocketAddr) -> Result<Self> {
        let vip = product.plan().service("nat").context("no service nat")?.address;
        let link = rig.link();
        let syn = tcp(link, client, vip, flag::SYN, 0);
        let opened = product.send(rig, &syn)?;
        ensure!(opened.action == TX, "the SYN got verdict {}", opened.action);
        let backend = ends(&opened.frame)?.1;
        let connection = Self {
            client,
            vip,
            backend,
            from_client: tcp(link, client, vip, flag::DATA, 64),
            from_backend: tcp(link, backend, client, flag::DATA, 64),
        };
        for frame in [&tcp(link, backend, client, flag::SYN | flag::ACK, 0), &connection.from_client] {
            let verdict = product.send(rig, frame)?;
            ensure!(verdict.action == TX, "the handshake got verdict {}", verdict.action);
        }
        Ok(connection)
    }

    /// A frame that left must have gone from the client to its backend; answers whether it left.
    fn check_forward(&self, verdict: &Verdict) -> Result<bool> {
        leaves(verdict, (self.client, self.backend))
    }

    /// A reply that left must have gone from the VIP to the client; answers whether it left.
    fn check_reply(&self, verdict: &Verdict) -> Result<bool> {
        leaves(verdict, (self.vip, self.client))
    }
}

fn leaves(verdict: &Verdict, expected: (SocketAddr, SocketAddr)) -> Result<bool> {
    match verdict.action {
        TX => {
            let found = ends(&verdict.frame)?;
            ensure!(found == expected, "a frame went {found:?}, not {expected:?}");
            Ok(true)
        }
        DROP => Ok(false),
        action => bail!("verdict {action} for a packet of an established flow"),
    }
}

/// Source and destination of an IPv4 TCP frame whose checksums are right.
fn ends(frame: &[u8]) -> Result<(SocketAddr, SocketAddr)> {
    ensure!(frame.len() >= 54 && frame[12..14] == [8, 0], "not an IPv4 TCP frame: {frame:02x?}");
    let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let (ip, segment) = (&frame[14..34], &frame[34..14 + total]);
    ensure!(checksum(ip, 0) == 0, "wrong IP checksum in {ip:02x?}");
    let pseudo: u32 = ip[12..20].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u32>()
        + 6
        + segment.len() as u32;
    ensure!(checksum(segment, pseudo) == 0, "wrong TCP checksum in {segment:02x?}");
    let end = |ip: &[u8], port: &[u8]| -> Result<SocketAddr> {
        let octets: [u8; 4] = ip.try_into()?;
        Ok(SocketAddr::from((IpAddr::from(octets), u16::from_be_bytes([port[0], port[1]]))))
    };
    Ok((end(&ip[12..16], &segment[..2])?, end(&ip[16..20], &segment[2..4])?))
}

/// Pins the calling thread to a CPU.
fn pin(cpu: usize) -> Result<()> {
    // SAFETY: a zeroed set is valid, and the kernel checks the rest.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    ensure!(result == 0, "pinning to CPU {cpu}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Runs every job on every CPU at once, and sweeps both rings meanwhile.
fn everywhere(product: &Product, jobs: &[&(dyn Fn(usize) -> Result<()> + Sync)]) -> Result<()> {
    let cpus = thread::available_parallelism()?.get();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let sweeper = scope.spawn(|| -> Result<()> {
            while !over.load(Ordering::Relaxed) {
                product.sweep(SweepTarget::Flows)?;
                product.sweep(SweepTarget::Bindings)?;
            }
            Ok(())
        });
        let workers: Vec<_> = (0..cpus)
            .flat_map(|cpu| jobs.iter().map(move |job| (cpu, *job)))
            .map(|(cpu, job)| {
                scope.spawn(move || -> Result<()> {
                    pin(cpu)?;
                    (0..ROUNDS).try_for_each(job)
                })
            })
            .collect();
        let results: Vec<Result<()>> =
            workers.into_iter().map(|worker| worker.join().expect("a worker panicked")).collect();
        over.store(true, Ordering::Relaxed);
        sweeper.join().expect("the sweeper panicked")?;
        results.into_iter().collect()
    })
}

fn set_up() -> Result<(Rig, Product)> {
    // SAFETY: a call without arguments.
    ensure!(unsafe { libc::geteuid() } == 0, "running programs needs root: run the tests as root");
    let rig = Rig::new()?;
    let product = Product::load(&rig, true)?;
    Ok((rig, product))
}

#[test]
fn both_directions_of_one_flow_from_all_cpus() -> Result<()> {
    let (rig, product) = set_up()?;
    let connection = Connection::open(&rig, &product, "10.64.7.1:40001".parse()?)?;
    let lost = AtomicU64::new(0);
    let note = |left: bool| {
        lost.fetch_add(u64::from(!left), Ordering::Relaxed);
        Ok(())
    };
    everywhere(
        &product,
        &[&|_| note(connection.check_forward(&product.send(&rig, &connection.from_client)?)?), &|_| {
            note(connection.check_reply(&product.send(&rig, &connection.from_backend)?)?)
        }],
    )?;
    let lost = lost.into_inner();
    ensure!(lost == 0, "{lost} packets of a settled flow were lost; outcomes: {}", product.outcomes()?);
    Ok(())
}

#[test]
fn sessions_bound_by_all_cpus_at_once_have_one_backend_each() -> Result<()> {
    let (rig, product) = set_up()?;
    let vip = product.plan().service("ipip").context("no service ipip")?.address;
    let clients = 512_usize;
    let frames: Vec<Vec<u8>> = (0..clients)
        .map(|n| {
            let client = SocketAddr::from(([10, 70, (n >> 8) as u8, n as u8], 40_000));
            tcp(rig.link(), client, vip, flag::DATA, 16)
        })
        .collect();
    // The backend is the destination of the outer header.
    let seen: Vec<AtomicU64> = (0..clients).map(|_| AtomicU64::new(0)).collect();
    everywhere(
        &product,
        &[&|round| {
            let n = round.wrapping_mul(7_919) % clients;
            let verdict = product.send(&rig, &frames[n])?;
            ensure!(verdict.action == TX, "verdict {}; outcomes: {}", verdict.action, product.outcomes()?);
            let outer: [u8; 4] = verdict.frame[30..34].try_into()?;
            let backend = u64::from(u32::from_be_bytes(outer));
            let before = seen[n].swap(backend, Ordering::Relaxed);
            ensure!(before == 0 || before == backend, "client {n} moved from {before:x} to {backend:x}");
            Ok(())
        }],
    )?;
    let backends: std::collections::BTreeSet<u64> =
        seen.iter().map(|backend| backend.load(Ordering::Relaxed)).collect();
    ensure!(backends.len() > 50, "512 clients met only {} of 100 backends", backends.len());
    let slot = product.plan().service("ipip").context("no service ipip")?.service.slot;
    let bound = product.service_counters(slot)?.bindings;
    ensure!(bound == clients as u64, "{bound} bindings were made for {clients} clients");
    Ok(())
}
