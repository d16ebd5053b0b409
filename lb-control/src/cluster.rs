//! Several nodes as one: what a node is, how nodes talk, and what each must not forget.

mod addresses;
pub mod announce;
pub mod authority;
pub mod bindings;
pub mod error;
pub mod hearing;
pub(crate) mod heir;
pub mod home;
pub mod identity;
pub mod join;
pub mod journal;
pub mod keyring;
pub mod membership;
pub mod mirror;
pub mod replica;
pub mod roster;
pub mod signed;
pub mod token;
pub mod transport;

/// The UDP port that nodes meet on unless they are told otherwise.
pub const PORT: u16 = 7117;
