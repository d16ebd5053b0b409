//! Routable QUIC connection ids (draft-ietf-quic-load-balancers-21): the server's name in a few bytes that the client
//! gives back with every packet.
//!
//! ```text
//! first octet: rotation (3 bits), length or random (5) | server id (1..=15 bytes) | nonce (4..=18)
//! ```
//!
//! What follows the first octet stands as it is, or is one AES-128 block (16 bytes), or went four times through a
//! Feistel network (any other length). Which of them is a matter of configuration, named by the rotation bits.
//! Everything here is total: no bytes make it fail, and what cannot be read has no server.

mod aes;
mod cid;
mod config;
mod encoder;
mod feistel;
mod header;
mod layout;
mod words;

pub use aes::RoundKeys;
pub use cid::{Cid, Decoder, FIRST_OCTET, MAX_CID, ServerId, UNROUTABLE};
pub use encoder::{Encoder, Exhausted, unroutable};
pub use header::destination;
pub use layout::{Form, Layout, LayoutError};

pub(crate) use cid::server_of;

#[cfg(test)]
mod tests;
