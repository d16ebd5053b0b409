//! Attaching: who may, who survives, who is left alone.

use crate::sandbox::{SIZES, Sandbox, Wire, echo, mac, output, reply, run};
use lb_common::abi::{Addr, BindingOp, BindingRecord, BindingWord, RecordResult, Service, ServiceKey};
use lb_control::dataplane::{AttachMode, DataPlane, Sizes, xdp::Xdp};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn vip() -> ServiceKey {
    ServiceKey::vip(Addr::from(Ipv4Addr::new(10, 99, 0, 1)))
}

#[test]
fn attachments_and_tables_outlive_the_process() {
    let sandbox = Sandbox::new();
    sandbox.veth("lb0", "peer0");
    let mut plane = sandbox.open(SIZES);
    let attached = plane.attach("lb0").expect("it attaches");
    assert_eq!(attached.mode, AttachMode::Native);
    plane.put_service(&vip(), &Service::default()).expect("written");
    let record = BindingRecord {
        session: 5,
        service: 9,
        word: BindingWord::new(1, 1, 0).0,
        lifetime: 60_000_000_000,
        op: BindingOp::Put as u8,
        pad: 0,
        home: 0,
    };
    assert_eq!(plane.apply_bindings(&[record]).expect("runs"), [RecordResult::Applied]);
    drop(plane);

    assert!(output("ip link show lb0").contains("prog/xdp"), "still attached without a process");
    let mut plane = sandbox.open(SIZES);
    assert_eq!(plane.attachments().expect("read"), [attached]);
    assert_eq!(plane.services().expect("read"), [(vip(), Service::default())]);
    assert_eq!(plane.usage().expect("read").bindings, 1);
    assert_eq!(crate::sandbox::bindings(&mut plane), [(9, 5, record.word)]);

    plane.detach_all().expect("everything goes");
    drop(plane);
    assert!(!output("ip link show lb0").contains("prog/xdp"));
    assert!(!sandbox.root.exists());
}

#[test]
fn no_echo_is_lost_while_programs_and_tables_are_replaced() {
    let sandbox = Sandbox::new();
    sandbox.veth("lb0", "peer0");
    run("ethtool -K peer0 gro on");
    let mut plane = sandbox.open(SIZES);
    plane.put_service(&vip(), &Service::default()).expect("written");
    plane.attach("lb0").expect("it attaches");
    let mut plane = Some(plane);
    let (wire, to) = (Wire::new("peer0"), mac("lb0"));
    let (stop, echoes) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let pinger = scope.spawn(|| {
            let mut sequence = 0_u16;
            while !stop.load(Ordering::Relaxed) {
                sequence = sequence.wrapping_add(1);
                wire.send(&echo(to, sequence));
                let answer = std::iter::from_fn(|| wire.receive()).find_map(|frame| reply(&frame));
                assert_eq!(answer, Some(sequence), "an echo was lost");
                echoes.fetch_add(1, Ordering::Relaxed);
            }
        });
        // Also when this thread fails.
        let stopping = StopOnDrop(&stop);
        for round in 0..3 {
            // As after `kill -9`: the kernel closes what the process had open, and nobody says good-bye.
            drop(plane.take());
            let running = plane.insert(sandbox.open(sizes(round)));
            running.resize(&sizes(round + 1)).expect("resized");
            assert!(!pinger.is_finished(), "the pinger gave up in round {round}");
        }
        drop(stopping);
        pinger.join().expect("no echo is lost");
    });
    assert!(echoes.load(Ordering::Relaxed) > 1_000, "{echoes:?} echoes");
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn sizes(round: u32) -> Sizes {
    Sizes { bindings: SIZES.bindings << (round % 2), flows: SIZES.flows << (round % 3), ..SIZES }
}

#[test]
fn two_processes_do_not_run_one_data_plane() {
    let sandbox = Sandbox::new();
    let plane = sandbox.open(SIZES);
    let error = Xdp::open(sandbox.options(), SIZES).err().expect("refused").to_string();
    assert!(error.contains("another `lbd`"), "{error}");
    drop(plane);
    sandbox.open(SIZES);
}

#[test]
fn programs_of_others_are_named_and_left_alone() {
    let sandbox = Sandbox::new();
    let other = Sandbox {
        root: sandbox
            .root
            .with_extension("")
            .with_file_name(format!("t-dataplane-other-{}", std::process::id())),
    };
    sandbox.veth("lb0", "peer0");
    let mut theirs = other.open(SIZES);
    theirs.attach("lb0").expect("it attaches");
    let before = output("ip -d link show lb0");
    let mut ours = sandbox.open(SIZES);
    let error = ours.attach("lb0").expect_err("refused").to_string();
    assert!(error.contains("lb0") && error.contains("\"stickleback\"") && error.contains("id "), "{error}");
    assert_eq!(output("ip -d link show lb0"), before);
    assert_eq!(ours.attachments().expect("read"), []);
}

#[test]
fn programs_of_other_loaders_are_named_with_the_cure() {
    let sandbox = Sandbox::new();
    sandbox.veth("lb0", "peer0");
    let mut plane = sandbox.open(SIZES);
    // As iproute2 attaches: by netlink, without a link that somebody owns.
    for (name, cure) in
        [("t_foreign", "ip link set dev lb0 xdp off"), ("xdp_dispatcher", "xdp-loader unload lb0 --all")]
    {
        let theirs = crate::program::pass_program(name);
        for (option, mode) in [("xdpdrv", "native mode"), ("xdpgeneric", "skb mode")] {
            run(&format!("ip link set dev lb0 {option} pinned {}", theirs.path()));
            let shown = output("ip -d link show lb0");
            let error = plane.attach("lb0").expect_err("refused").to_string();
            let id =
                shown.split("prog/xdp id ").nth(1).and_then(|rest| rest.split(' ').next()).expect("an id");
            for part in ["lb0", &format!("\"{name}\" (id {id}, {mode})"), cure] {
                assert!(error.contains(part), "no {part} in: {error}");
            }
            assert_eq!(output("ip -d link show lb0"), shown, "it was left alone");
            run(&format!("ip link set dev lb0 {option} off"));
        }
    }
    plane.attach("lb0").expect("it attaches once they are gone");
}

#[test]
fn what_cannot_be_attached_to_is_said_with_the_reason() {
    let sandbox = Sandbox::new();
    sandbox.veth("lb0", "peer0");
    run("ip link set peer0 mtu 9000");
    run("ip link set lb0 mtu 9000");
    let mut options = sandbox.options();
    options.attach = lb_control::dataplane::xdp::AttachPolicy::Native;
    let mut plane = Xdp::open(options, SIZES).expect("opens").0;
    let error = plane.attach("lb0").expect_err("refused").to_string();
    assert!(error.contains("MTU is 9000"), "{error}");
    let error = plane.attach("nosuch0").expect_err("refused").to_string();
    assert!(error.contains("no such interface"), "{error}");
    run("ip link set lb0 mtu 1500");
    let error = plane.attach("lb0").expect_err("the other end's frames are too large").to_string();
    assert!(error.contains("MTU"), "{error}");
    drop(plane);
    let error =
        Xdp::open(sandbox.options(), Sizes { bindings: 0, ..SIZES }).err().expect("refused").to_string();
    assert!(error.contains("from 64 to"), "{error}");
}

#[test]
fn interfaces_that_are_made_anew_can_be_attached_to_again() {
    let sandbox = Sandbox::new();
    sandbox.veth("lb.7", "peer0");
    let mut plane = sandbox.open(SIZES);
    plane.attach("lb.7").expect("it attaches");
    run("ip link del lb.7");
    sandbox.veth("lb.7", "peer0");
    assert_eq!(plane.attachments().expect("read"), []);
    let attached = plane.attach("lb.7").expect("it attaches again");
    assert_eq!(plane.attachments().expect("read"), [attached]);
    plane.put_device(987_654).expect("an interface that is gone needs no entry");
    plane.detach("lb.7").expect("it leaves");
    assert!(!output("ip link show lb.7").contains("prog/xdp"));
}
