//! The node's desired and actual state, and the way from one to the other.
//!
//! No channels, no clock: the actor calls it, and so do the tests.

use super::{
    ApplyError, ApplyReport, HealthChange, HopChange, Overrides,
    image::{Image, World},
    recovery,
    step::{self, Step},
    transaction::{self, Failure},
};
use crate::dataplane::{self, DataPlane, Migration, Sizes};
use lb_common::abi::FlowKey;
use lb_core::pool::{
    Desired, PoolSpec, ServiceSpec,
    layout::{Layout, LayoutError, MAX_ARENA_CHUNKS, Plan, ServicePlan},
    secret::Clocks,
};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::SystemTime;

/// Desired and actual state of a node.
pub(super) struct Node {
    pub(super) plane: Box<dyn DataPlane>,
    layout: Layout,
    /// What was applied last.
    applied: Option<Applied>,
    pub(super) overrides: Overrides,
    pub(super) world: World,
    /// What the tables hold, as far as is known.
    actual: Image,
    /// What they should hold.
    target: Image,
    is_dirty: bool,
    /// Marks that may stand though nothing else tells of them, since a change was not taken back in full.
    suspects: HashSet<FlowKey>,
}

/// A desired state and where its parts lie.
#[derive(Clone, Debug)]
pub(super) struct Applied {
    /// As configured.
    pub(super) desired: Desired,
    /// With overrides.
    pub(super) effective: Desired,
    /// Its pools.
    pub(super) pools: Vec<PoolSpec>,
    /// Where they lie, in their order.
    pub(super) places: Vec<ServicePlan>,
}

impl Node {
    /// Takes over what stands in the tables.
    pub(super) fn recover(mut plane: Box<dyn DataPlane>, overrides: Overrides) -> dataplane::Result<Self> {
        let actual = recovery::image(&mut *plane, &HashSet::new())?;
        let layout = recovery::layout(&mut *plane, &actual)?;
        let world = recovery::world(&mut *plane, &actual)?;
        Ok(Self {
            plane,
            layout,
            applied: None,
            overrides,
            world,
            target: actual.clone(),
            actual,
            is_dirty: false,
            suspects: HashSet::new(),
        })
    }

    /// What was applied last; `None` before the first time.
    pub(super) const fn applied(&self) -> Option<&Applied> {
        self.applied.as_ref()
    }

    /// Whether the tables may hold something else than they should.
    pub(super) const fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// What the tables should hold.
    pub(super) const fn target(&self) -> &Image {
        &self.target
    }

    /// What the tables hold, as far as is known.
    pub(super) const fn actual(&self) -> &Image {
        &self.actual
    }

    /// Where everything lies.
    pub(super) const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The status words as the tables hold them.
    pub(super) const fn statuses(&self) -> &BTreeMap<u32, u64> {
        &self.actual.statuses
    }

    /// A status word as the tables hold it.
    pub(super) fn actual_status(&self, word: u32) -> u64 {
        self.actual.status_word(word)
    }

    /// Addresses of all backends and of the other nodes.
    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        let pools = self.applied.iter().flat_map(|applied| &applied.pools);
        let backends = pools.flat_map(|pool| pool.service.backends.iter().map(|backend| backend.address));
        let nodes = self.world.ring.iter().flat_map(|ring| ring.nodes.iter().map(|node| node.address));
        backends.chain(nodes).collect()
    }

    /// Makes the tables hold what is desired, or leaves them as they were.
    pub(super) fn apply(&mut self, desired: Desired) -> Result<ApplyReport, ApplyError> {
        // Where new tables may go is only known when the tables hold what they should.
        self.repair().map_err(ApplyError::Unsettled)?;
        let effective = self.overrides.apply_to(&desired);
        let plan = self.plan(&self.world.ramps.applied_to(&effective))?;

        let pools = effective.pools();
        if self.applied.is_none() {
            self.inherit_health(&pools, &plan);
        }
        let target = Image::build(&effective, &pools, &plan.services, &self.world);
        let mut steps = step::places(&plan.services);
        let difference = step::difference(&self.actual, &target);
        // An interface that was lost meanwhile is no reason to refuse every change: `audit` goes on trying.
        let is_lost = |interface: String| self.target.attached.contains(&interface);
        steps.extend(difference.into_iter().filter(|step| !step.attached().is_some_and(is_lost)));
        let sizes = Sizes {
            bindings: effective.node.bindings,
            flows: effective.node.flows,
            arena: self.plane.sizes().arena,
            holds: effective.node.held,
        };
        let mut report = self.report(&effective, &steps);
        if let Err(error) = self.transact(steps, sizes, &mut report) {
            self.layout.abandon(&plan);
            return Err(error);
        }

        let places =
            plan.services.iter().map(|place| ServicePlan { contents: None, ..place.clone() }).collect();
        self.layout = plan.into_layout();
        self.applied = Some(Applied { desired, effective, pools, places });
        self.target = target;
        self.note_ingress();
        Ok(report)
    }

    /// Takes note of the way to an address.
    pub(super) fn hop(&mut self, change: HopChange) {
        match change.hop {
            Some(way) => self.world.hops.insert(change.address, way),
            None => self.world.hops.remove(&change.address),
        };
    }

    /// Takes note of news of a backend's health.
    pub(super) fn note_health(&mut self, change: HealthChange) {
        let before = self.world.health.of(&change.service, &change.backend);
        let was_down = before.is_some_and(|health| !health.state.is_healthy());
        self.world.ramps.note(was_down, &change);
        self.world.health.note(change);
    }

    /// Lets shares of backends that have come back grow, and the tables with them; whether that was needed.
    pub(super) fn ramp(&mut self, now: SystemTime) -> bool {
        let Some(applied) = &self.applied else { return false };
        if !self.world.ramps.advance(&applied.pools, now) {
            return false;
        }
        let desired = applied.desired.clone();
        if let Err(error) = self.apply(desired) {
            // The next step tries again; the last one leaves the weights as they are configured.
            tracing::warn!(%error, "a backend's share of sessions does not grow as it should");
        }
        true
    }

    /// Takes note of what the clocks say; whether it makes a difference to the tables.
    pub(super) fn tick(&mut self, clocks: Clocks) -> bool {
        let before = self.world.clocks;
        self.world.clocks = clocks.after(before);
        before != self.world.clocks
    }

    /// Lets what the world says show in the tables; a failure leaves them to [`repair`](Self::repair).
    pub(super) fn follow_world(&mut self) {
        let Some(applied) = &self.applied else { return };
        self.target = Image::build(&applied.effective, &applied.pools, &applied.places, &self.world);
        self.world.tunnel = [self.target.settings.tunnel_v4, self.target.settings.tunnel_v6];
        if self.is_dirty {
            return;
        }
        let steps = self.steps_beside_attaching();
        if let Err(error) = transaction::run_forward(&mut *self.plane, &mut self.actual, &steps) {
            tracing::warn!(%error, "the data plane refused a change; trying again");
            self.is_dirty = true;
        }
    }

    /// Reads what the tables hold and makes them hold what they should, if they may not.
    pub(super) fn repair(&mut self) -> dataplane::Result<()> {
        if !self.is_dirty {
            return Ok(());
        }
        self.suspects.extend(self.actual.marks.union(&self.target.marks).copied());
        self.actual = recovery::image(&mut *self.plane, &self.suspects)?;
        let steps = self.steps_beside_attaching();
        transaction::run_forward(&mut *self.plane, &mut self.actual, &steps)?;
        self.is_dirty = false;
        self.suspects.clear();
        self.note_ingress();
        tracing::info!(writes = steps.len(), "the data plane holds again what it should");
        Ok(())
    }

    /// Compares the attachments with what they should be, since interfaces come and go by themselves, and attaches
    /// where it can; every interface is tried, the first failure is told.
    pub(super) fn audit(&mut self) -> dataplane::Result<()> {
        self.repair()?;
        let attached = self.plane.attachments()?.into_iter().map(|attachment| attachment.interface);
        self.actual.attached = attached.collect();
        let lost: Vec<String> = self.target.attached.difference(&self.actual.attached).cloned().collect();
        let mut result = Ok(());
        for interface in lost {
            let step = Step::Attach(interface);
            match step.run(&mut *self.plane) {
                Ok(_) => {
                    step.note(&mut self.actual);
                    self.note_ingress();
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    fn steps_beside_attaching(&self) -> Vec<Step> {
        let steps = step::difference(&self.actual, &self.target).into_iter();
        steps.filter(|step| step.attached().is_none()).collect()
    }

    /// A plan, in a larger arena where it needs one.
    fn plan(&mut self, effective: &Desired) -> Result<Plan, ApplyError> {
        let needed = match self.layout.plan(effective) {
            Err(LayoutError::ArenaFull { needed, .. }) => needed,
            other => return other.map_err(ApplyError::Layout),
        };
        // Tables keep their places, so all new ones must find room behind them.
        let sizes = self.plane.sizes();
        let larger = sizes.arena.saturating_add(needed).next_power_of_two().min(MAX_ARENA_CHUNKS);
        self.plane
            .resize(&Sizes { arena: larger, ..sizes })
            .and_then(|_| recovery::layout(&mut *self.plane, &self.actual))
            .map(|layout| self.layout = layout)
            .map_err(|source| ApplyError::RolledBack { source })?;
        self.layout.plan(effective).map_err(ApplyError::Layout)
    }

    fn transact(
        &mut self,
        mut steps: Vec<Step>,
        sizes: Sizes,
        report: &mut ApplyReport,
    ) -> Result<(), ApplyError> {
        let resizes = sizes != self.plane.sizes();
        if resizes {
            steps.push(Step::Resize(sizes));
        }
        let marks: Vec<FlowKey> = steps.iter().filter_map(Step::mark).collect();
        match transaction::run(&mut *self.plane, &mut self.actual, steps) {
            Ok(migration) => {
                report.migration = resizes.then_some(migration);
                Ok(())
            }
            Err(Failure { source, rollback: None }) => Err(ApplyError::RolledBack { source }),
            Err(Failure { source, rollback: Some(rollback) }) => {
                self.is_dirty = true;
                self.suspects.extend(marks);
                Err(ApplyError::Repairing { source, rollback })
            }
        }
    }

    /// Devices that packets come in on are devices to send to as well.
    fn note_ingress(&mut self) {
        let attachments = match self.plane.attachments() {
            Ok(attachments) => attachments,
            Err(error) => {
                tracing::warn!(%error, "cannot read the attachments; trying again");
                self.is_dirty = true;
                return;
            }
        };
        let ingress =
            attachments.into_iter().map(|attachment| (attachment.ifindex, attachment.mtu)).collect();
        if self.world.ingress != ingress {
            self.world.ingress = ingress;
        }
        self.follow_world();
    }

    fn report(&self, effective: &Desired, steps: &[Step]) -> ApplyReport {
        fn specs(desired: &Desired) -> BTreeMap<&str, &ServiceSpec> {
            desired.services.iter().map(|service| (service.name.as_str(), service)).collect()
        }
        let old = self.applied.as_ref().map(|applied| specs(&applied.effective)).unwrap_or_default();
        let new = specs(effective);
        let names = |wanted: &dyn Fn(&str) -> bool, of: &BTreeMap<&str, _>| -> Vec<String> {
            of.keys().filter(|name| wanted(name)).map(|&name| name.to_owned()).collect()
        };
        ApplyReport {
            writes: steps.len(),
            services_added: names(&|name| !old.contains_key(name), &new),
            services_changed: names(
                &|name| old.get(name).is_some_and(|old| new.get(name) != Some(old)),
                &new,
            ),
            services_removed: names(&|name| !new.contains_key(name), &old),
            attached: steps.iter().filter_map(Step::attached).collect(),
            detached: steps.iter().filter_map(Step::detached).collect(),
            migration: None::<Migration>,
        }
    }
}

#[cfg(test)]
mod tests;
