//! Services, their backends, and the tables that the order function reads.

mod affinity;
mod desired;
pub mod identity;
pub mod layout;
pub mod mark;
pub mod row;
pub mod secret;
pub mod status;
pub mod table;

pub use affinity::{AffinitySpec, CookieSpec, Fallback, PayloadSpec, QuicConfiguration, QuicSpec};
pub use desired::{
    Admin, BackendSpec, Consistency, Desired, Limits, NodeSpec, PathSpec, PoolSpec, Protocol, ServiceSpec,
    Timeouts, Vlan,
};
