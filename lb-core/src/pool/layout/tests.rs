mod model;

use super::slots::BackendSlots;
use super::{
    FoundBackend, FoundService, Layout, LayoutError, MIN_ARENA_CHUNKS, NO_TABLE, Stretch, arena_chunks,
};
use crate::pool::Desired;
use crate::pool::table::TableError;
use lb_common::abi::MAX_BACKENDS;
use model::{Maps, configuration, desired, service};
use proptest::prelude::*;

fn committed(layout: &Layout, desired: &Desired) -> Layout {
    layout.plan(desired).unwrap().into_layout()
}

#[test]
fn a_new_node_gets_slots_from_zero_and_tables_from_the_start() {
    let desired = desired([service(7, &[(1, 1), (2, 3)]), service(8, &[(1, 1)])]);
    let plan = Layout::new(256).plan(&desired).unwrap();
    let (first, second) = (&plan.services[0], &plan.services[1]);
    assert_eq!((first.slot, first.table, first.mask, first.members), (0, 0, 16_383, 16_384));
    assert_eq!((second.slot, second.table, second.members), (1, 65 * 256, 65 * 256 + 16_384));
    assert_eq!(first.contents.as_ref().unwrap()[16_384..], [0, 1]);
    let slots: Vec<_> = first.backends.iter().map(|b| (b.number, b.slot, b.generation, b.fresh)).collect();
    assert_eq!(slots, [(1, 0, 1, true), (2, 1, 1, true)]);
    assert_eq!(first.chunks().count(), 65);
    let (index, chunk) = second.chunks().last().unwrap();
    assert_eq!((index, chunk.0[0]), (129, 2));
}

#[test]
fn the_same_configuration_asks_for_nothing() {
    let desired = desired([service(7, &[(1, 1), (2, 3)]), service(8, &[])]);
    let layout = committed(&Layout::new(256), &desired);
    let plan = layout.plan(&desired).unwrap();
    assert!(plan.services.iter().all(|service| service.contents.is_none() && !service.fresh));
    assert!(plan.freed_backends.is_empty() && plan.freed_services.is_empty());
    assert_eq!(plan.into_layout(), layout);
}

#[test]
fn a_service_without_backends_has_no_table() {
    let plan = Layout::new(256).plan(&desired([service(8, &[])])).unwrap();
    let service = &plan.services[0];
    assert_eq!(
        (service.table, service.mask, service.members, service.member_count),
        (NO_TABLE, 0, NO_TABLE, 0)
    );
    assert_eq!(service.contents, None);
}

#[test]
fn a_changed_table_lies_elsewhere_and_the_next_one_where_the_first_was() {
    let at = |plan: &super::Plan| plan.services[0].table;
    let one = Layout::new(256).plan(&desired([service(1, &[(1, 1)])])).unwrap();
    assert_eq!(at(&one), 0);
    let two = one.into_layout().plan(&desired([service(1, &[(1, 1), (2, 1)])])).unwrap();
    assert_eq!(at(&two), 65 * 256);
    let three = two.into_layout().plan(&desired([service(1, &[(1, 2), (2, 1)])])).unwrap();
    assert_eq!(at(&three), 0);
}

#[test]
fn a_freed_backend_slot_rests_and_comes_back_with_a_higher_generation() {
    let mut layout = committed(&Layout::new(256), &desired([service(1, &[(1, 1)])]));
    let plan = layout.plan(&desired([service(1, &[(2, 1)])])).unwrap();
    assert_eq!(plan.freed_backends.len(), 1);
    assert_eq!((plan.freed_backends[0].slot, plan.services[0].backends[0].slot), (0, 1));
    layout = plan.into_layout();
    for number in 3..MAX_BACKENDS as u64 + 1 {
        // Without plans, which would take long: the turn of the queue is what matters here.
        layout.backends.free(1, number - 1).unwrap();
        layout.backends.take(1, number).unwrap();
    }
    assert_eq!(layout.backend(1, u64::from(MAX_BACKENDS)), Some((u16::MAX, 1)));
    layout.backends.free(1, u64::from(MAX_BACKENDS)).unwrap();
    assert_eq!(layout.backends.take(1, 9), Some((0, 2)));
}

#[test]
fn an_abandoned_plan_leaves_its_generations_behind() {
    let wanted = desired([service(1, &[(1, 1)])]);
    let mut layout = Layout::new(256);
    let plan = layout.plan(&wanted).unwrap();
    layout.abandon(&plan);
    let again = layout.plan(&wanted).unwrap();
    assert_eq!(again.services[0].backends[0].slot, 1);
    let slots = BackendSlots::recover([], 1);
    let mut layout = Layout::recover_slots(slots, [], 256);
    let plan = layout.plan(&wanted).unwrap();
    layout.abandon(&plan);
    assert_eq!(layout.plan(&wanted).unwrap().services[0].backends[0].generation, 2);
}

#[test]
fn generations_wrap_past_zero() {
    let found = (0..=u16::MAX).map(|slot| FoundBackend {
        slot,
        generation: u16::MAX,
        owner: (slot > 0).then_some((1, u64::from(slot))),
    });
    let mut layout = Layout::recover(found, [], 256);
    assert_eq!(layout.backends.take(2, 2), Some((0, 1)));
}

#[test]
fn contradictions_in_pinned_maps_are_cleaned_up() {
    let owner = Some((1, 5));
    let backends = [3, 4, 3].map(|slot| FoundBackend { slot, generation: 9, owner });
    let found = FoundService {
        id: 1,
        slot: Some(2),
        table: 256 * 250,
        mask: 8_191,
        members: 256 * 250 + 8_192,
        member_count: 1,
        contents: Vec::new(),
        servers: Stretch::default(),
        paths: Stretch::default(),
    };
    let services = [
        found.clone(),
        FoundService { id: 2, ..found.clone() },
        FoundService { id: 3, slot: Some(u16::MAX), ..found },
    ];
    let layout = Layout::recover(backends, services, 256);
    assert_eq!((layout.service(1), layout.service(2), layout.service(3)), (Some(2), None, None));
    let plan = layout.plan(&desired([service(1, &[(5, 1)])])).unwrap();
    assert_eq!(plan.freed_backends.iter().map(|freed| freed.slot).collect::<Vec<_>>(), [4]);
    let service = &plan.services[0];
    assert_eq!((service.slot, service.table, service.backends[0].slot), (2, 0, 3));
    assert!(service.contents.is_some() && !service.fresh && !service.backends[0].fresh);
}

#[test]
fn errors_name_the_service() {
    let plan = |desired: &Desired| Layout::new(256).plan(desired).unwrap_err();
    let twice = desired([service(1, &[(5, 1), (5, 2)])]);
    assert_eq!(
        plan(&twice),
        LayoutError::Pool { service: "service-1".into(), source: TableError::SameNumber { number: 5 } }
    );
    let mut same = desired([service(1, &[]), service(1, &[])]);
    same.services[1].name = "other".into();
    assert_eq!(
        plan(&same).to_string(),
        r#"services "service-1" and "other" have the same id 0x00000001; give one of them another id"#
    );
    let many: Vec<(u64, u32)> = (0..4_096).map(|number| (number, 1)).collect();
    let crowd = desired((0..17).map(|id| service(id, &many)));
    assert_eq!(
        plan(&crowd),
        LayoutError::TooManyBackends { service: "service-16".into(), configured: 17 * 4_096 }
    );
    let services = desired((0..4_097).map(|id| service(id, &[])));
    assert_eq!(plan(&services), LayoutError::TooManyServices { configured: 4_097 });
    let full = desired([service(1, &[(1, 1)]), service(2, &[(1, 1), (2, 100_000)])]);
    assert_eq!(
        plan(&full),
        LayoutError::ArenaFull { service: "service-2".into(), run: 4_097, chunks: 256, needed: 10_240 }
    );
}

#[test]
fn busy_slots_are_told_apart_from_too_many() {
    let full: Vec<_> =
        (0..16).map(|id| service(id, &(0..4_096).map(|number| (number, 1)).collect::<Vec<_>>())).collect();
    let found = (0..=u16::MAX).map(|slot| FoundBackend {
        slot,
        generation: 1,
        owner: Some((u32::from(slot) / 4_096, u64::from(slot) % 4_096)),
    });
    let layout = Layout::recover(found, [], 1 << 16);
    let mut other = desired(full);
    other.services[3].backends[0].number = 1 << 40;
    assert_eq!(
        layout.plan(&other).unwrap_err(),
        LayoutError::SlotsBusy { service: "service-3".into(), what: "backend" }
    );
}

#[test]
fn arenas_hold_every_table_twice() {
    assert_eq!(arena_chunks(&desired([])), Ok(MIN_ARENA_CHUNKS));
    assert_eq!(arena_chunks(&desired([service(1, &[(1, 1), (2, 1_000_000)])])), Ok(10_240));
    let large = desired((0..200).map(|id| service(id, &[(1, 1), (2, 1_000_000)])));
    assert_eq!(arena_chunks(&large), Err(LayoutError::ArenaTooLarge { needed: 200 * 2 * 4_097 }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Any sequence of configurations, given-up changes and restarts keeps the maps sound.
    #[test]
    fn maps_stay_sound(steps in proptest::collection::vec((configuration(), 0..5_u8), 1..12)) {
        let mut maps = Maps::new(1_024);
        // Few backend slots, so that they are used again.
        let recover = |maps: &Maps| {
            let slots = BackendSlots::recover(maps.found_backends(), 64);
            Layout::recover_slots(slots, maps.found_services(), 1_024)
        };
        let mut layout = recover(&maps);
        for (desired, event) in steps {
            let plan = layout.plan(&desired).unwrap();
            maps.write(&plan);
            if event == 0 {
                maps.roll_back();
                layout.abandon(&plan);
                continue;
            }
            if event == 2 {
                // Killed between writing and freeing; the next plan frees.
                layout = recover(&maps);
                continue;
            }
            maps.free(&plan);
            layout = plan.into_layout();
            maps.check(&desired, &layout);
            if event == 1 {
                layout = recover(&maps);
                let plan = layout.plan(&desired).unwrap();
                prop_assert!(plan.services.iter().all(|s| s.contents.is_none() && !s.fresh));
                prop_assert!(plan.services.iter().flat_map(|s| &s.backends).all(|b| !b.fresh));
                prop_assert!(plan.freed_backends.is_empty() && plan.freed_services.is_empty());
                layout = plan.into_layout();
            }
        }
    }
}
