//! Loopback addresses for tests.
//!
//! On 127.0.0.1 the port of a socket that is gone may belong to another process a moment later: every connection takes one. Nobody but
//! this process takes ports of its own address, and connections to it come from 127.0.0.1, so that none meets itself.

use std::net::{Ipv4Addr, SocketAddr};

/// The address of this process.
pub(crate) fn own() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    // Process ids have 22 bits at most.
    Ipv4Addr::new(127, 0x40 | high, middle, low)
}

/// Any free port of it.
pub(crate) fn any_port() -> SocketAddr {
    (own(), 0).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_loopback_address_that_others_do_not_use() {
        let address = own();
        assert!(address.is_loopback() && address != Ipv4Addr::LOCALHOST);
        std::net::UdpSocket::bind(any_port()).expect("a port");
    }
}
