//! What can go wrong with a data plane.

use super::Sizes;
use std::{error::Error as StdError, fmt, io};

/// An operation of a data plane that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A table entry could not be read or written.
    #[error("cannot {operation} {entry} in table {table}: {source}")]
    Table {
        /// What was tried.
        operation: Operation,
        /// Name of the table.
        table: &'static str,
        /// The entry, for people.
        entry: String,
        /// Why.
        source: io::Error,
    },
    /// A file below the pin directory could not be used.
    #[error(
        "cannot {operation} {path}: {source}; is a BPF file system mounted there (`mount -t bpf bpf /sys/fs/bpf`)?"
    )]
    Pin {
        /// What was tried.
        operation: Operation,
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process runs the data plane.
    #[error(
        "another `lbd` runs the data plane pinned below {path}; stop it first, or choose another pin directory"
    )]
    InUse {
        /// The pin directory.
        path: std::path::PathBuf,
    },
    /// The kernel did not take the programs.
    #[error("cannot load {program} into the kernel: {source}")]
    Load {
        /// The program or object.
        program: &'static str,
        /// Why; the verifier's words, where it was the verifier.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The object file lacks something that this build expects.
    #[error("the eBPF object has no {kind} {name}; build it again with `cargo xtask build-ebpf`")]
    Object {
        /// Map or program.
        kind: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// A program could not be run.
    #[error("cannot run program {program}: {source}")]
    Run {
        /// The program.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Pinned maps of a schema that this version cannot read.
    #[error(
        "the maps pinned below {path} have schema version {found}; this version reads {known}. Run the version that made them, \
         or give up their bindings and flows with `lbctl detach`"
    )]
    UnknownSchema {
        /// The pin directory.
        path: std::path::PathBuf,
        /// Version found.
        found: u32,
        /// Versions that can be read.
        known: String,
    },
    /// A pinned map is not what its schema version says.
    #[error(
        "the map {table} pinned below {path} has {found}, expected {expected}; it was not made by this program. Remove it with \
         `lbctl detach`"
    )]
    ForeignMap {
        /// The pin directory.
        path: std::path::PathBuf,
        /// Name of the table.
        table: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// Sizes that no table can have.
    #[error(
        "cannot make tables for {} bindings and {} flows, which must be from {} to {}, and {} holds, which must be from 1 to {}",
        sizes.bindings, sizes.flows, Sizes::SMALLEST, Sizes::LARGEST, sizes.holds, Sizes::MOST_HOLDS
    )]
    Sizes {
        /// The sizes asked for.
        sizes: Sizes,
    },
    /// An interface could not be used.
    #[error("interface {interface}: {source}")]
    Interface {
        /// Its name.
        interface: String,
        /// Why.
        source: InterfaceError,
    },
    /// A service that a switch cannot serve.
    #[error("a switch cannot do {what}, as the service on {} port {port} wants it: {instead}", std::net::IpAddr::from(*address))]
    Unserved {
        /// The service's address.
        address: lb_common::abi::Addr,
        /// Its port.
        port: u16,
        /// What it wants.
        what: &'static str,
        /// What works.
        instead: &'static str,
    },
    /// Two `nat` services have a backend in common.
    #[error(
        "two `nat` services send to {} port {port}, and a switch tells replies apart by that alone; give the backend a port for each",
        std::net::IpAddr::from(*address)
    )]
    SharedBackend {
        /// The backend's address.
        address: lb_common::abi::Addr,
        /// Its port.
        port: u16,
    },
    /// Connection ids that a switch cannot read.
    #[error(
        "a switch cannot read these QUIC connection ids (server id of {server_id} bytes): use plain ones with server ids of at most 8 bytes"
    )]
    UnreadableIds {
        /// Bytes of the server id.
        server_id: u8,
    },
    /// An interface that stands for no port.
    #[error("interface {interface} stands for no port of the switch; add it to `ports` of [dataplane]")]
    NoPort {
        /// Its name.
        interface: String,
    },
    /// The program for switches that this build carries is not whole.
    #[error("{source}")]
    Program {
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// What speaks with the switch could not be started.
    #[error("cannot begin to speak with the switch at {address}: {source}")]
    Switch {
        /// Where it is.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Failed on purpose, by [`super::chaos`].
    #[error("{operation} was made to fail")]
    Injected {
        /// What was tried.
        operation: Operation,
    },
}

/// Name of the program with which libxdp runs several others on one interface.
const DISPATCHER: &str = "xdp_dispatcher";

/// How to get rid of another loader's program.
fn removal(interface: &str, name: &str) -> String {
    if name == DISPATCHER {
        return format!(
            "it is libxdp's dispatcher, beside which this program does not run: see what it is there for (`xdp-loader status {interface}`), remove \
             it (`xdp-loader unload {interface} --all`)"
        );
    }
    format!("remove it (`ip link set dev {interface} xdp off`, or end the program that owns its link)")
}

/// Why an interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// No such interface.
    #[error("there is no such interface in this network namespace; `ip link` shows those there are")]
    Missing,
    /// Its state could not be asked for.
    #[error("cannot ask the kernel about it: {0}")]
    Query(#[source] io::Error),
    /// Somebody else's XDP program is there.
    #[error(
        "XDP program \"{name}\" (id {id}, {mode} mode) of somebody else is attached to it, and it will not be replaced; {} and try again",
        removal(interface, name)
    )]
    Occupied {
        /// The interface.
        interface: String,
        /// Id of the program.
        id: u32,
        /// Its name.
        name: String,
        /// Where it runs.
        mode: &'static str,
    },
    /// Its frames are too large for XDP without fragments.
    #[error(
        "its MTU is {mtu}, and its driver takes XDP programs up to about {limit} only; lower it, or use `--mode skb`"
    )]
    Mtu {
        /// Its MTU.
        mtu: u32,
        /// The most that works with pages of 4 KiB.
        limit: u32,
    },
    /// The driver or kernel refused.
    #[error("the kernel refused to attach in {mode} mode: {source}")]
    Refused {
        /// The mode.
        mode: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The attached program could not be replaced.
    #[error("cannot replace the program on it: {0}")]
    Update(#[source] io::Error),
}

macro_rules! operations {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal;)*) => {
        /// Kinds of operations, for messages and for choosing what should fail.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Operation {
            $($(#[doc = $doc])* $name,)*
        }

        impl Operation {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }

        impl fmt::Display for Operation {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $text,)* })
            }
        }
    };
}

operations! {
    /// Reading a table.
    Read = "read";
    /// Changing table sizes.
    Resize = "resize";
    /// Writing settings.
    PutSettings = "write settings";
    /// Writing a service.
    PutService = "write service";
    /// Deleting a service.
    DeleteService = "delete service";
    /// Writing a backend.
    PutBackend = "write backend";
    /// Writing a status word.
    PutStatus = "write status";
    /// Writing an arena chunk.
    PutArena = "write arena";
    /// Writing the rules of an affinity.
    PutAffinity = "write affinity";
    /// Writing marks of servers.
    PutServers = "write servers";
    /// Writing path rules.
    PutPaths = "write path rules";
    /// Writing a configuration of QUIC connection ids.
    PutQuic = "write QUIC configuration";
    /// Writing keys.
    PutSecrets = "write secrets";
    /// Writing the other nodes.
    PutPeers = "write peers";
    /// Marking a backend's address, or removing its mark.
    PutMark = "mark address";
    /// Allowing an interface.
    PutDevice = "write device";
    /// Forbidding an interface.
    DeleteDevice = "delete device";
    /// Attaching to an interface.
    Attach = "attach";
    /// Leaving an interface.
    Detach = "detach";
    /// Changing bindings.
    ApplyBindings = "apply bindings";
    /// Taking over flows.
    Adopt = "take over flows";
    /// Writing flows.
    PutFlow = "write flow";
    /// Clearing counters.
    ClearCounters = "clear counters";
    /// Sweeping.
    Sweep = "sweep";
    /// Moving sessions.
    Rebind = "rebind";
    /// Taking events.
    Events = "take events";
    /// Making a pinned file.
    Pin = "pin";
    /// Removing a pinned file.
    Unpin = "unpin";
    /// Opening a pinned file.
    Open = "open";
    /// Renaming pinned files.
    Rename = "rename";
}
