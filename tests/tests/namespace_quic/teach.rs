//! Teaches a running data plane what `lbd` has no configuration for yet.

use super::{Ids, PORT};
use anyhow::{Context, Result};
use aya::maps::{Array, HashMap, Map, MapData, MapInfo};
use lb_common::abi::{Affinity, AffinityRules, Backend, QuicConfig, Server, Service, ServiceKey, Settings};
use lb_common::affinity::quic::{Layout, ServerId};
use stickleback_tests::topology::{Balancer, Site};

pub(crate) fn teach(site: &Site, balancer: &Balancer, ids: Ids) -> Result<()> {
    let maps = balancer.pins().join("maps");
    let pinned = MapInfo::from_pin(maps.join("SERVICES"))?.id();
    let mut services: HashMap<_, ServiceKey, Service> =
        HashMap::try_from(Map::HashMap(MapData::from_pin(maps.join("SERVICES"))?))?;
    let backends: Array<_, Backend> = Array::try_from(Map::Array(MapData::from_pin(maps.join("BACKENDS"))?))?;
    let mut settings: Array<_, Settings> =
        Array::try_from(Map::Array(MapData::from_pin(maps.join("SETTINGS"))?))?;
    let program = aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .find(|p| {
            p.name_as_str() == Some("quic")
                && p.map_ids().ok().flatten().is_some_and(|ids| ids.contains(&pinned))
        })
        .context("no program quic")?;
    let mut by_name = std::collections::HashMap::new();
    for id in program.map_ids()?.context("map ids")? {
        let info = MapInfo::from_id(id)?;
        by_name.insert(info.name_as_str().unwrap_or("").to_owned(), id);
    }
    let open = |name: &str| -> Result<Map> { Ok(Map::Array(MapData::from_id(by_name[name])?)) };
    let mut affinities: Array<_, AffinityRules> = Array::try_from(open("AFFINITIES")?)?;
    let mut servers: Array<_, Server> = Array::try_from(open("SERVERS")?)?;
    let mut quic: Array<_, QuicConfig> = Array::try_from(open("QUIC")?)?;
    let mut place = 0;
    let all: Vec<(ServiceKey, Service)> = services.iter().collect::<Result<_, _>>()?;
    for (key, service) in all {
        if key.port.host() != PORT || service.member_count == 0 {
            continue;
        }
        let v6 = !key.address.is_v4();
        let mut list = Vec::new();
        for (n, site_backend) in site.backends.iter().enumerate() {
            let address =
                if v6 { site_backend.v6.into() } else { lb_common::abi::Addr::from(site_backend.v4) };
            for slot in 0..100_u16 {
                let backend = backends.get(&slot.into(), 0)?;
                if backend.address == address && backend.generation != 0 {
                    let mark = ServerId::new(&ids.server_id(n)).context("id")?.mark();
                    list.push(Server { mark, backend: slot, generation: backend.generation, pad: 0 });
                }
            }
        }
        list.sort_by_key(|s| s.mark);
        anyhow::ensure!(list.len() == site.backends.len(), "{list:?}");
        let rules =
            AffinityRules { servers: place, server_count: list.len() as u32, ..AffinityRules::default() };
        for server in list {
            servers.set(place, server, 0)?;
            place += 1;
        }
        affinities.set(service.slot.into(), rules, 0)?;
        let layout = Layout::new(ids.server, ids.nonce)?;
        let at = QuicConfig::place(service.slot, ids.rotation).context("place")?;
        quic.set(at, QuicConfig::new(layout, ids.key.as_ref()), 0)?;
        services.insert(key, Service { affinity: Affinity::QuicCid as u8, ..service }, 0)?;
    }
    let now = settings.get(&0, 0)?;
    settings.set(0, Settings { version: now.version + 1000, ..now }, 0)?;
    Ok(())
}
