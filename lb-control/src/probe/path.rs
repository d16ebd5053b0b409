//! The way of the traffic for probes: two small programs on the interfaces that lead to backends.
//!
//! A probe's socket is connected to the backend's own address and marked with the place of a [`Path`]. What the programs make of its
//! packets is told in their object's source (`lb-ebpf/src/probes.rs`). A result counts only when the programs have seen the probe.

use super::connection;
use aya::maps::{Array, HashMap as BpfHashMap, MapData};
use aya::programs::tc::{self, SchedClassifierLinkId, TcAttachType};
use aya::programs::{ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfLoader};
use lb_common::abi::{Addr, Be16, PROBE_MARK, PROBE_WAYS, ProbeAnswer, ProbeEnvelope, ProbeKey, ProbeWay};
use lb_core::health::Failure;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probes.bpf.o"));
const OUT: &str = "probe_out";
const BACK: &str = "probe_back";

/// Where the traffic of a service goes, besides the backend's address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PathSpec {
    /// The service's address.
    pub vip: IpAddr,
    /// What is put around packets.
    pub envelope: ProbeEnvelope,
    /// Source of tunnel packets; `None` = the route's.
    pub source: Option<IpAddr>,
    /// This host's address of the service's family, as which it asks, where the backend is of another; else `None`.
    pub inner: Option<IpAddr>,
    /// UDP destination port of GUE.
    pub gue_port: u16,
}

/// Why probes cannot go the way of the traffic.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// The programs or their maps.
    #[error("the programs that lead health checks the way of the traffic cannot be used: {0}")]
    Programs(String),
    /// An interface.
    #[error("interface {name}: health checks cannot be led the way of the traffic there: {source}")]
    Attach {
        /// Its name.
        name: String,
        /// Why.
        source: ProgramError,
    },
    /// All places are taken.
    #[error("health checks cannot go more than {PROBE_WAYS} ways of the traffic")]
    Full,
}

type Answers = BpfHashMap<MapData, ProbeKey, ProbeAnswer>;

/// One backend's way.
#[derive(Debug)]
pub(super) struct Path {
    place: u16,
    vip: Addr,
    answers: Arc<Answers>,
}

/// All ways, and the programs behind them.
#[derive(Debug, Default)]
pub(super) struct Paths {
    loaded: Option<Loaded>,
    taken: HashMap<(PathSpec, IpAddr), Arc<Path>>,
    /// Places that are taken, and where the next free one is looked for.
    used: BTreeSet<u16>,
    next: u16,
    /// Interfaces by index: the names, and what to take away again.
    attached: BTreeMap<u32, (String, [SchedClassifierLinkId; 2])>,
}

struct Loaded {
    object: Ebpf,
    ways: Array<MapData, ProbeWay>,
    answers: Arc<Answers>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").finish_non_exhaustive()
    }
}

impl Path {
    /// The mark of a probe's socket.
    pub(super) fn mark(&self) -> u32 {
        PROBE_MARK | u32::from(self.place)
    }

    /// Whether a probe between these ports was seen by the programs; else its result says nothing.
    pub(super) fn confirm(&self, protocol: i32, own_port: u16, port: u16) -> Result<(), Failure> {
        // Pings change their protocol where they change their family.
        let protocol = match protocol {
            libc::IPPROTO_ICMP | libc::IPPROTO_ICMPV6 if self.vip.is_v4() => libc::IPPROTO_ICMP,
            libc::IPPROTO_ICMP | libc::IPPROTO_ICMPV6 => libc::IPPROTO_ICMPV6,
            other => other,
        };
        let key = ProbeKey {
            vip: self.vip,
            port: Be16::new(port),
            own_port: Be16::new(own_port),
            protocol: protocol as u8,
            pad: [0; 3],
        };
        if self.answers.get(&key, 0).is_ok() {
            return Ok(());
        }
        let why = "its packets do not leave by an interface that leads to backends of the traffic; `way = \"direct\"` \
                   in [service.health] probes the backend's own address";
        Err(Failure::Own(why.into()))
    }
}

/// Whom a probe asks, and which way it goes there.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The backend's own address.
    pub(crate) address: SocketAddr,
    pub(super) path: Option<Arc<Path>>,
}

impl Target {
    /// Sends a socket's packets the right way.
    pub(super) fn mark(&self, socket: &impl AsFd) -> Result<(), Failure> {
        let Some(path) = &self.path else { return Ok(()) };
        socket2::SockRef::from(socket).set_mark(path.mark()).map_err(connection::own)
    }

    /// Whether a result of a probe from that port counts.
    pub(super) fn confirm(&self, protocol: i32, own_port: u16, port: u16) -> Result<(), Failure> {
        self.path.as_ref().map_or(Ok(()), |path| path.confirm(protocol, own_port, port))
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { address, path: None }
    }
}

impl Paths {
    /// The way to a backend; it is free again when nobody has it any more, at the next [`Self::sort_out`].
    pub(super) fn take(&mut self, spec: PathSpec, backend: IpAddr) -> Result<Arc<Path>, PathError> {
        if let Some(path) = self.taken.get(&(spec, backend)) {
            return Ok(Arc::clone(path));
        }
        let loaded = match self.loaded.take() {
            Some(loaded) => self.loaded.insert(loaded),
            None => self.loaded.insert(Loaded::new()?),
        };
        let used = &mut self.used;
        let place = (0..=u16::MAX).map(|n| self.next.wrapping_add(n)).find(|place| !used.contains(place));
        let place = place.ok_or(PathError::Full)?;
        let way = ProbeWay {
            vip: spec.vip.into(),
            backend: backend.into(),
            source: spec.source.map_or(Addr::NONE, Addr::from),
            inner: spec.inner.map_or(Addr::NONE, Addr::from),
            envelope: spec.envelope as u32,
            gue_port: spec.gue_port.into(),
        };
        loaded.ways.set(place.into(), way, 0).map_err(programs)?;
        let path = Path { place, vip: spec.vip.into(), answers: Arc::clone(&loaded.answers) };
        let path = Arc::new(path);
        used.insert(place);
        self.next = place.wrapping_add(1);
        self.taken.insert((spec, backend), Arc::clone(&path));
        Ok(path)
    }

    /// Frees the places of ways that nobody has.
    pub(super) fn sort_out(&mut self) {
        let Some(loaded) = &mut self.loaded else { return };
        let used = &mut self.used;
        self.taken.retain(|_, path| {
            // Late packets of a place that is nobody's are lost.
            let is_kept = Arc::strong_count(path) > 1
                || loaded.ways.set(path.place.into(), ProbeWay::default(), 0).is_err();
            if !is_kept {
                used.remove(&path.place);
            }
            is_kept
        });
    }

    /// Whether any probe goes the way of the traffic.
    pub(super) fn are_used(&self) -> bool {
        !self.taken.is_empty()
    }

    /// Has the programs on these interfaces, given by index and name, and on no others.
    pub(super) fn attach(&mut self, interfaces: &BTreeMap<u32, String>) -> Result<(), PathError> {
        let Some(loaded) = &mut self.loaded else { return Ok(()) };
        let gone: Vec<u32> = self
            .attached
            .iter()
            .filter(|(index, (name, _))| interfaces.get(index) != Some(name))
            .map(|(&index, _)| index)
            .collect();
        for (_, links) in gone.iter().filter_map(|index| self.attached.remove(index)) {
            for (program, link) in [OUT, BACK].into_iter().zip(links) {
                // An interface that is gone took its links along.
                drop(classifier(&mut loaded.object, program).map(|program| program.detach(link)));
            }
        }
        let mut outcome = Ok(());
        for (&index, name) in interfaces {
            if self.attached.contains_key(&index) {
                continue;
            }
            match loaded.attach(name) {
                Ok(links) => drop(self.attached.insert(index, (name.clone(), links))),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }
}

impl Loaded {
    fn new() -> Result<Self, PathError> {
        let mut object = EbpfLoader::new().load(OBJECT).map_err(programs)?;
        for name in [OUT, BACK] {
            classifier(&mut object, name)?.load().map_err(programs)?;
        }
        let mut map = |name: &str| {
            let missing = || PathError::Programs(format!("there is no map {name}"));
            object.take_map(name).ok_or_else(missing)
        };
        let ways = Array::try_from(map("PROBE_WAYS")?).map_err(programs)?;
        let answers = BpfHashMap::try_from(map("PROBE_ANSWERS")?).map_err(programs)?;
        Ok(Self { object, ways, answers: Arc::new(answers) })
    }

    fn attach(&mut self, name: &str) -> Result<[SchedClassifierLinkId; 2], PathError> {
        // Kernels before 6.6 need it; where it is there already, so much the better.
        drop(tc::qdisc_add_clsact(name));
        let failed = |source| PathError::Attach { name: name.to_owned(), source };
        let back = classifier(&mut self.object, BACK)?.attach(name, TcAttachType::Ingress).map_err(failed)?;
        match classifier(&mut self.object, OUT)?.attach(name, TcAttachType::Egress) {
            Ok(out) => Ok([out, back]),
            Err(source) => {
                drop(classifier(&mut self.object, BACK)?.detach(back));
                Err(failed(source))
            }
        }
    }
}

fn classifier<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, PathError> {
    let missing = || PathError::Programs(format!("there is no program {name}"));
    object.program_mut(name).ok_or_else(missing)?.try_into().map_err(programs)
}

fn programs(error: impl std::error::Error) -> PathError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    PathError::Programs(text)
}
