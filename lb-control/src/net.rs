//! What the kernel knows about the network: ways to backends, interfaces, settings.
//!
//! Nearly everything here reads and follows; the only things written are announcements of addresses that other machines had before, neighbour requests ("please resolve
//! this address and keep it fresh") and, when an XDP program is about to be attached, two receive
//! offloads of that interface.

pub mod addresses;
pub mod claim;
pub mod hints;
pub mod hops;
pub mod interface;
