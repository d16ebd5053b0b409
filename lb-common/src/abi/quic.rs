//! Configurations of routable QUIC connection ids (draft-ietf-quic-load-balancers-21).

/// Configurations of one service: rotation 0..=6, as three bits say; 7 means unroutable.
pub const QUIC_ROTATIONS: u32 = 7;
/// Entries of the map: eight a service, by `slot * 8 + rotation`.
pub const QUIC_ENTRIES: u32 = super::MAX_SERVICES * 8;
/// Bytes of the AES-128 round keys.
pub const AES_ROUND_KEYS: usize = 176;

/// One configuration.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuicConfig {
    /// 1 = in use.
    pub valid: u8,
    /// Bytes of the server id, 1..=15.
    pub server_id_len: u8,
    /// Bytes of the nonce, 4..=18.
    pub nonce_len: u8,
    /// 1 = encrypted with `round_keys`, 0 = plaintext.
    pub encrypted: u8,
    /// Zero.
    pub pad: u32,
    /// AES-128 round keys for encryption, the first being the key, each word in memory order.
    pub round_keys: [u32; AES_ROUND_KEYS / 4],
    /// The same for decryption, as the equivalent inverse cipher has them (FIPS 197 section 5.3.5).
    pub inverse_round_keys: [u32; AES_ROUND_KEYS / 4],
}

impl Default for QuicConfig {
    fn default() -> Self {
        // SAFETY: integers and arrays of them.
        unsafe { core::mem::zeroed() }
    }
}

super::pod!(QuicConfig: 360);
