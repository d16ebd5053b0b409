//! Whether an interface takes frames that XDP programs send to it, as the kernel's `netdev` family tells.
//!
//! Generic netlink (`linux/genetlink.h`, `linux/netdev.h`), since Linux 6.3. For a veth the kernel's answer depends on the
//! other end: it must have GRO or an XDP program, and no more transmit queues than this end has receive queues.

use std::io;
use std::iter;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

/// The family that knows families.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const GET_DEVICE: u8 = 1;
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_NDO_XMIT`.
const TRANSMITS: u64 = 1 << 2;

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// Bytes of `nlmsghdr` and `genlmsghdr`.
const HEADERS: usize = 20;

/// Whether frames redirected to the interface are sent, in the network namespace of this thread; `None` when the
/// kernel is too old to tell.
///
/// Ask when a program is attached: some drivers take frames only then.
pub fn takes_redirects(ifindex: u32) -> io::Result<Option<bool>> {
    let Some(family) = family("netdev")? else { return Ok(None) };
    let answer = ask(family, GET_DEVICE, &attribute(IFINDEX, &ifindex.to_ne_bytes()))?;
    let features =
        attributes(&answer).find(|(kind, _)| *kind == XDP_FEATURES).and_then(|(_, value)| number(value));
    Ok(features.map(|features| features & TRANSMITS != 0))
}

/// The number of a family; `None` when the kernel does not have it.
fn family(name: &str) -> io::Result<Option<u16>> {
    let mut named = name.as_bytes().to_vec();
    named.push(0);
    match ask(CONTROL, GET_FAMILY, &attribute(FAMILY_NAME, &named)) {
        Ok(answer) => {
            let id =
                attributes(&answer).find(|(kind, _)| *kind == FAMILY_ID).and_then(|(_, value)| number(value));
            Ok(id.and_then(|id| u16::try_from(id).ok()))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// One request, and the attributes of its one answer.
fn ask(family: u16, command: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let length = u32::try_from(HEADERS + attributes.len()).map_err(io::Error::other)?;
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(family.to_ne_bytes());
    request.extend(REQUEST.to_ne_bytes());
    // Sequence, port; command, version, reserved.
    request.extend([0; 8]);
    request.extend([command, 1, 0, 0]);
    request.extend(attributes);
    socket.send(&request, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    payload(&answer)
}

/// Attributes of a message; the kernel's refusal as an error.
fn payload(message: &[u8]) -> io::Result<Vec<u8>> {
    let short = || io::Error::new(io::ErrorKind::UnexpectedEof, "a netlink answer is cut short");
    let length = message.get(..4).and_then(number).and_then(|n| usize::try_from(n).ok()).ok_or_else(short)?;
    let message = message.get(..length).ok_or_else(short)?;
    let kind = message.get(4..6).and_then(number).ok_or_else(short)?;
    if kind == u64::from(ERROR) {
        let code = message.get(16..20).ok_or_else(short)?;
        let code = i32::from_ne_bytes(code.try_into().map_err(|_| short())?);
        return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
    }
    message.get(HEADERS..).map(<[u8]>::to_vec).ok_or_else(short)
}

/// An attribute with its padding.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// Kinds and values; ends at the first one that is cut short.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    iter::from_fn(move || {
        let length = usize::try_from(number(rest.get(..2)?)?).ok()?;
        let kind = u16::try_from(number(rest.get(2..4)?)?).ok()?;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The two upper bits are flags.
        Some((kind & 0x3fff, value))
    })
}

/// A number of two, four or eight bytes.
fn number(bytes: &[u8]) -> Option<u64> {
    match bytes.len() {
        2 => Some(u16::from_ne_bytes(bytes.try_into().ok()?).into()),
        4 => Some(u32::from_ne_bytes(bytes.try_into().ok()?).into()),
        8 => Some(u64::from_ne_bytes(bytes.try_into().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_are_written() {
        let mut bytes = attribute(2, b"abc\0\0");
        bytes.extend(attribute(3, &7_u64.to_ne_bytes()));
        let found: Vec<_> = attributes(&bytes).collect();
        assert_eq!(found, [(2, b"abc\0\0".as_slice()), (3, &7_u64.to_ne_bytes())]);
        assert_eq!(number(found[1].1), Some(7));
    }

    #[test]
    fn what_is_cut_short_ends_the_list() {
        let bytes = attribute(3, &7_u64.to_ne_bytes());
        for length in 0..bytes.len() {
            assert_eq!(attributes(&bytes[..length]).count(), 0);
        }
        assert_eq!(attributes(&[0; 8]).count(), 0);
        assert!(payload(&[0; 3]).is_err() && payload(&[200, 0, 0, 0, 1, 0]).is_err());
    }

    #[test]
    fn a_refusal_is_an_error() {
        let mut message = 20_u32.to_ne_bytes().to_vec();
        message.extend(ERROR.to_ne_bytes());
        message.extend([0; 10]);
        message.extend((-libc::ENODEV).to_ne_bytes());
        assert_eq!(payload(&message).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn loopback_takes_none() {
        assert!(matches!(takes_redirects(1), Ok(None | Some(false))));
        assert!(
            takes_redirects(u32::MAX >> 1).is_err() || family("netdev").is_ok_and(|known| known.is_none())
        );
    }
}
