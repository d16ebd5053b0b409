//! Several nodes as one: what a node is, how nodes talk, and what each must not forget.

pub mod announce;
pub mod authority;
pub mod bindings;
pub mod error;
pub mod home;
pub mod identity;
pub mod join;
pub mod journal;
pub mod replica;
pub mod roster;
pub mod token;
pub mod transport;
