//! How fast `lbd` writes entries.

use anyhow::{Result, ensure};
use lb_common::abi::{
    Addr, Affinity, Backend, Be16, BindingOp, BindingRecord, BindingWord, Mode, Service, ServiceKey, Settings,
};
use lb_control::dataplane::p4::{P4, Standing, SwitchSpec};
use lb_control::dataplane::{DataPlane as _, Sizes};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use stickleback_tests::topology::{Arms, Bmv2, Site};

const SESSIONS: u64 = 20_000;
const SERVICE: u32 = 77;
const LIFETIME: u64 = 3_600_000_000_000;
/// Far below what the slowest machine was seen to do.
const LEAST: f64 = 200.0;

fn settle(plane: &mut P4) -> Result<()> {
    let begun = Instant::now();
    loop {
        plane.events(100)?;
        if plane.standing() == Standing::Settled {
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(120), "the switch is {:?}", plane.standing());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Writes the entries of many sessions, moves all of them to another backend and takes them away again.
fn write(plane: &mut P4) -> Result<()> {
    plane.put_settings(&Settings::default())?;
    for slot in 1..=2_u16 {
        let address = Addr::from(IpAddr::from([10, 2, 0, slot as u8]));
        let backend =
            Backend { address, service: SERVICE, number: slot.into(), weight: 1, ..Backend::default() };
        plane.put_backend(slot, &backend)?;
    }
    let key = ServiceKey::service(Addr::from(IpAddr::from([10, 99, 0, 1])), Be16::new(80), 6);
    let service = Service {
        id: SERVICE,
        mode: Mode::L2 as u8,
        affinity: Affinity::SourceIp as u8,
        prefix_v4: 32,
        prefix_v6: 64,
        binding_rate: 1_000,
        lifetime: LIFETIME,
        ..Service::default()
    };
    plane.put_service(&key, &service)?;
    settle(plane)?;
    for (what, op, slot) in
        [("new", BindingOp::Copy, 1), ("moved", BindingOp::Settle, 2), ("removed", BindingOp::Clear, 2)]
    {
        let record = |session| BindingRecord {
            session,
            word: BindingWord::new(slot, 0, 0).0,
            lifetime: LIFETIME,
            service: SERVICE,
            op: op as u8,
            pad: 0,
            home: 0,
        };
        let records: Vec<BindingRecord> = (0..SESSIONS).map(record).collect();
        let begun = Instant::now();
        plane.apply_bindings(&records)?;
        settle(plane)?;
        let rate = SESSIONS as f64 / begun.elapsed().as_secs_f64();
        eprintln!("{SESSIONS} sessions {what}: {rate:.0} entries a second");
        ensure!(rate > LEAST, "{what}: {rate:.0} entries a second");
    }
    Ok(())
}

#[test]
#[ignore = "needs bmv2: `cargo xtask test --p4`"]
fn namespace_p4_write_rate() -> Result<()> {
    let site = Site::new(Arms::Two, 1)?;
    let _switch = Bmv2::start(&site)?;
    site.lb.inside(|| {
        let spec = SwitchSpec {
            address: "127.0.0.1:9559".to_owned(),
            device: 0,
            election: 1,
            ports: (1..).zip(["l0", "l1"]).map(|(number, name)| (name.to_owned(), number)).collect(),
            cpu_port: None,
            routes: Vec::new(),
            offload: false,
        };
        let sizes = Sizes { bindings: 2 * SESSIONS as u32, flows: 16, arena: 1, holds: 1 };
        write(&mut P4::open(&spec, sizes)?)
    })
}
