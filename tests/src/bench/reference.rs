//! Cases of the reference programs, so that ratios hold on other machines.

use super::case::{Case, Subject};
use super::frame::{flag, tcp};
use super::rig::Rig;
use super::template::{REFERENCE_RING, ReferenceKey, ReferenceReal, SOURCE_V4, Template};
use anyhow::{Context, Result};
use aya::maps::{Array, HashMap};
use std::net::{Ipv4Addr, SocketAddr};

/// The reference case that ratios are given to.
pub const NAME: &str = "reference/ipip-1-lookup";
/// The same packets through a program that does the steps of a connection-tracking balancer.
pub const FULL: &str = "reference/ipip-connection-table";

/// The names that choose them.
pub const NAMES: [&str; 3] = ["floor/drop", NAME, FULL];

const CLIENT: &str = "10.64.0.0:40000";
const VIP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const REALS: u32 = 100;
/// Connections of the case with many: half of what its table holds, so that none is forgotten.
const CONNECTIONS: u32 = 1 << 19;

/// Fills the reference programs' maps and lists their cases, a program that drops first.
pub fn cases(rig: &mut Rig) -> Result<Vec<Case>> {
    let link = rig.link();
    let word = |address: Ipv4Addr| u32::from_ne_bytes(address.octets());
    let key = ReferenceKey { address: word(VIP), port: 80_u16.to_be(), protocol: 6 };
    let real = |i: u32| ReferenceReal {
        address: word(Ipv4Addr::from(0x0a01_0001 + i)),
        source: word(Ipv4Addr::new(10, 0, 0, 1)),
        destination_mac: link.source,
        source_mac: link.destination,
        pad: 0,
    };
    let testbed = rig.testbed();
    let missing = |name: &'static str| move || format!("testbed has no map {name}");
    {
        let map = testbed.map_mut("REFERENCE_ONE").with_context(missing("REFERENCE_ONE"))?;
        HashMap::<_, ReferenceKey, ReferenceReal>::try_from(map)?.insert(key, real(0), 0)?;
    }
    {
        let map = testbed.map_mut("REFERENCE_SERVICES").with_context(missing("REFERENCE_SERVICES"))?;
        HashMap::<_, ReferenceKey, u32>::try_from(map)?.insert(key, 0, 0)?;
    }
    {
        let map = testbed.map_mut("REFERENCE_REALS").with_context(missing("REFERENCE_REALS"))?;
        let mut reals = Array::<_, ReferenceReal>::try_from(map)?;
        (0..REALS).try_for_each(|i| reals.set(i, real(i), 0))?;
    }
    {
        let map = testbed.map_mut("REFERENCE_SELECTION").with_context(missing("REFERENCE_SELECTION"))?;
        let mut ring = Array::<_, u32>::try_from(map)?;
        (0..REFERENCE_RING).try_for_each(|i| ring.set(i, i.wrapping_mul(7_919) % REALS, 0))?;
    }
    let client: SocketAddr = CLIENT.parse()?;
    let vip = SocketAddr::from((VIP, 80));
    let data = Template::single(&tcp(link, client, vip, flag::DATA, 64));
    let full = rig.testbed_program("reference_full")?;
    rig.measure(&full, data.in_turn(SOURCE_V4, CONNECTIONS), CONNECTIONS)?;
    Ok(vec![
        Case::new("floor/drop", Subject::Drop, data),
        Case::new(NAME, Subject::ReferenceOne, data),
        Case::new(FULL, Subject::ReferenceFull, data),
        Case::new(format!("{FULL}/512k-flows"), Subject::ReferenceFull, data.random(SOURCE_V4, CONNECTIONS)),
    ])
}
