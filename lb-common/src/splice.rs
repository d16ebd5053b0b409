//! Delayed binding without packets and maps: the SYN cookie, options of SYN segments, windows.
//!
//! The balancer answers a client's SYN itself and connects to a backend once the client has said whose session it is.
//! What it has to know of the handshake by then stands in the sequence number of its own SYN-ACK.

mod attempt;
mod options;
mod syncookie;
mod window;

pub use attempt::Attempt;
pub use options::{OPTIONS, Offer, SCALE, option};
pub use syncookie::{Proof, SynCookie, epoch};
pub use window::{to_backend as window_to_backend, to_client as window_to_client, wanted};
