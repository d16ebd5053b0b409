//! Windows (RFC 7323 section 2): the client was promised a scale before its backend was known.

use super::options::SCALE;
use crate::abi::Flow;

/// The shift of a scale.
#[inline(always)]
const fn shift(scale: u8) -> u32 {
    if scale > 14 { 0 } else { scale as u32 }
}

/// A backend's window field as the client has to read it.
///
/// Rounded down, but never to 0, which would be a closed window: the client would probe it where it could send.
#[inline(always)]
pub const fn to_client(window: u16, client_scale: u8, server_scale: u8) -> u16 {
    if client_scale == Flow::NO_SCALE {
        // Nobody scales: the SYN to the backend offered no scale either.
        return window;
    }
    let bytes = (window as u32) << shift(server_scale);
    let scaled = bytes >> SCALE;
    if scaled > 0xffff {
        0xffff
    } else if scaled == 0 && window != 0 {
        1
    } else {
        scaled as u16
    }
}

/// A client's window field as the backend has to read it: it was offered the client's own scale.
#[inline(always)]
pub const fn to_backend(window: u16, client_scale: u8, server_scale: u8) -> u16 {
    if client_scale == Flow::NO_SCALE || server_scale != Flow::NO_SCALE {
        return window;
    }
    let bytes = (window as u32) << shift(client_scale);
    if bytes > 0xffff { 0xffff } else { bytes as u16 }
}

/// The window that a client is offered while its request is collected: two segments of `mss`, rounded up.
///
/// Less would make Linux send smaller segments. In a SYN-ACK it stands unscaled.
#[inline(always)]
pub const fn wanted(mss: u16, scales: bool) -> u16 {
    let bytes = 2 * mss as u32;
    let window = if scales { (bytes + (1 << SCALE) - 1) >> SCALE } else { bytes };
    if window > 0xffff { 0xffff } else { window as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a window field means.
    fn bytes(window: u16, scale: u8) -> u64 {
        u64::from(window) << shift(scale)
    }

    fn scale() -> impl Strategy<Value = u8> {
        prop_oneof![0_u8..=14, Just(Flow::NO_SCALE)]
    }

    proptest! {
        #[test]
        fn a_client_never_sends_more_than_its_backend_takes(window: u16, client in 0_u8..=14, server in scale()) {
            let told = bytes(to_client(window, client, server), SCALE);
            let meant = bytes(window, server);
            prop_assert!(told <= meant || told == 1 << SCALE, "{} of {}", told, meant);
            prop_assert_eq!(told == 0, meant == 0);
            prop_assert!(told + (1 << SCALE) > meant.min(bytes(0xffff, SCALE)));
        }

        #[test]
        fn a_backend_never_sends_more_than_its_client_takes(window: u16, client in scale(), server in scale()) {
            // A backend scales only where the client does.
            let server = if client == Flow::NO_SCALE { client } else { server };
            let read_as = if server == Flow::NO_SCALE { server } else { client };
            let told = bytes(to_backend(window, client, server), read_as);
            let meant = bytes(window, client);
            prop_assert!(told <= meant);
            prop_assert!(told == meant || told == 0xffff);
        }

        #[test]
        fn without_scaling_windows_stay(window: u16) {
            let none = Flow::NO_SCALE;
            prop_assert_eq!(to_client(window, none, none), window);
            prop_assert_eq!(to_backend(window, none, none), window);
        }

        #[test]
        fn two_segments_fit_what_is_offered(mss in 500_u16..9_000) {
            prop_assert_eq!(wanted(mss, false), 2 * mss);
            let offered = bytes(wanted(mss, true), SCALE);
            prop_assert!((2 * u64::from(mss)..2 * u64::from(mss) + (1 << SCALE)).contains(&offered));
        }
    }
}
