//! Services, their backends, and the tables that the order function reads.

mod desired;
pub mod identity;
pub mod layout;
pub mod status;
pub mod table;

pub use desired::{
    Admin, AffinitySpec, BackendSpec, Desired, Limits, NodeSpec, Protocol, ServiceSpec, Timeouts, Vlan,
};
