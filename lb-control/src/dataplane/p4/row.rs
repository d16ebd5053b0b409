//! Entries of the switch's tables, without ids and bytes.

use lb_common::abi::{map, switch};

/// A table; in the order in which entries are made, so that what an entry leads to is there first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Table {
    /// What holds for the whole switch; one entry, the default one.
    Settings,
    /// The wall clock, for backends' timestamps; one entry, the default one.
    Clock,
    /// Ways to clients.
    Routes,
    /// Backends and the ways to them.
    Backends,
    /// What is added to the timestamps of backends.
    Stamps,
    /// Backends by the numbers that timestamps carry.
    Marks,
    /// Backends that serve.
    Status,
    /// Owners of the slots of selection tables.
    Arena,
    /// Where the segment of a payload is.
    Affinities,
    /// Shapes of connection ids.
    Quic,
    /// Servers by their ids.
    Servers,
    /// Rates of new bindings; an array, not a table.
    Rates,
    /// Sessions.
    Bindings,
    /// Connections of XDP nodes that the switch goes on with by itself.
    Offloaded,
    /// Whose replies come from where.
    Replies,
    /// Whose backends reply from where themselves.
    Returns,
    /// Addresses with services.
    Vips,
    /// Services that are the only ones of their address and protocol.
    Alone,
    /// Services that take any port.
    AnyPort,
    /// Services.
    Services,
}

impl Table {
    /// Every one but [`Table::Rates`], which is none.
    pub const ALL: [Self; 19] = [
        Self::Settings,
        Self::Clock,
        Self::Routes,
        Self::Backends,
        Self::Stamps,
        Self::Marks,
        Self::Status,
        Self::Arena,
        Self::Affinities,
        Self::Quic,
        Self::Servers,
        Self::Bindings,
        Self::Offloaded,
        Self::Replies,
        Self::Returns,
        Self::Vips,
        Self::Alone,
        Self::AnyPort,
        Self::Services,
    ];

    /// Whether its only entry is its default one, which is always there and cannot be read back.
    pub const fn is_default(self) -> bool {
        matches!(self, Self::Settings | Self::Clock)
    }

    /// Whether its entries come with the traffic; those of all others with the configuration.
    pub const fn follows_traffic(self) -> bool {
        matches!(self, Self::Bindings | Self::Offloaded)
    }

    /// Its name in the program.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Settings => map::SETTINGS,
            Self::Clock => switch::CLOCK,
            Self::Routes => switch::ROUTES,
            Self::Backends => map::BACKENDS,
            Self::Stamps => switch::STAMPS,
            Self::Marks => switch::MARKS,
            Self::Status => map::STATUS,
            Self::Arena => map::ARENA,
            Self::Affinities => map::AFFINITIES,
            Self::Quic => map::QUIC,
            Self::Servers => map::SERVERS,
            Self::Rates => map::RATES,
            Self::Bindings => map::BINDINGS,
            Self::Offloaded => switch::OFFLOADED,
            Self::Replies => switch::REPLIES,
            Self::Returns => switch::RETURNS,
            Self::Vips => switch::VIPS,
            Self::Alone => switch::ALONE,
            Self::AnyPort => switch::ANY_PORT,
            Self::Services => map::SERVICES,
        }
    }

    /// The action of its entries; each table has one.
    pub const fn action(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Clock => "clock",
            Self::Routes => "route",
            Self::Backends => "backend",
            Self::Stamps => "stamped",
            Self::Marks => "marked",
            Self::Status => "serves",
            Self::Arena => "owner",
            Self::Affinities => "segment",
            Self::Quic => "layout",
            Self::Servers => "named",
            Self::Rates => "",
            Self::Bindings => "bound",
            Self::Offloaded => "express",
            Self::Replies => "reply",
            Self::Returns => "back",
            Self::Vips => "is_vip",
            Self::Alone | Self::AnyPort | Self::Services => "service",
        }
    }
}

/// What an entry is found by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key {
    /// The table.
    pub table: Table,
    /// Its fields, in the program's order.
    pub fields: Vec<u128>,
    /// Bits of the last one, in a table of prefixes; else 0.
    pub prefix: u8,
}

impl Key {
    /// The key of an entry that is found by just these values.
    pub fn exact(table: Table, fields: impl Into<Vec<u128>>) -> Self {
        Self { table, fields: fields.into(), prefix: 0 }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.table.name())?;
        for (place, field) in self.fields.iter().enumerate() {
            write!(f, "{}{field:#x}", if place == 0 { " " } else { "," })?;
        }
        if self.prefix == 0 { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// What an entry says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Content {
    /// Parameters of its action, in the program's order.
    pub values: Vec<u128>,
    /// After so long without a packet the switch tells of it, in nanoseconds; 0 = never.
    pub idle: u64,
}

impl Content {
    /// Parameters of an entry that stays.
    pub fn of(values: impl Into<Vec<u128>>) -> Self {
        Self { values: values.into(), idle: 0 }
    }
}
