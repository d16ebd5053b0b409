//! Logic without I/O: time and randomness are arguments, nothing here opens a socket or reads a clock.

pub mod binding;
pub mod health;
pub mod mirror;
pub mod pool;
pub mod stamp;
pub mod sync;
