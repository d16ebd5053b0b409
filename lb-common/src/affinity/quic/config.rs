//! A configuration as the data plane has it.

use super::aes;
use super::cid::UNROUTABLE;
use super::layout::{Form, Layout};
use crate::abi::QuicConfig;

impl QuicConfig {
    /// The configuration of ids with these lengths; without a key they are plain.
    pub fn new(layout: Layout, key: Option<&[u8; 16]>) -> Self {
        let round_keys = key.map_or([0; _], aes::expand);
        let single = layout.form(key.is_some()) == Form::SinglePass;
        Self {
            valid: 1,
            server_id_len: layout.server(),
            nonce_len: layout.nonce(),
            encrypted: u8::from(key.is_some()),
            pad: 0,
            round_keys,
            inverse_round_keys: if single { aes::inverse(&round_keys) } else { [0; _] },
        }
    }

    /// Its place in the map, by service slot and rotation; [`UNROUTABLE`] and above have none.
    pub const fn place(service_slot: u16, rotation: u8) -> Option<u32> {
        if rotation >= UNROUTABLE { None } else { Some((service_slot as u32) << 3 | rotation as u32) }
    }
}
