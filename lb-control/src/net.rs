//! What the kernel knows about the network: ways to backends, interfaces, settings.
//!
//! Everything here reads and follows; the only things written are neighbour requests ("please resolve
//! this address and keep it fresh") and, when an XDP program is about to be attached, two receive
//! offloads of that interface.

pub mod hints;
pub mod hops;
pub mod interface;
