//! What forwards packets, and how a switch is wired.

use super::Text;
use core::net::IpAddr;
use schemars::JsonSchema;

/// The kinds of data planes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in super::super) enum PlaneWord {
    /// The kernel of this host.
    Xdp,
    /// A switch that speaks P4Runtime.
    P4,
}

/// Addresses that begin alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) struct Prefix(pub(in super::super) IpAddr, pub(in super::super) u8);

impl Text for Prefix {
    const EXPECTED: &'static str = "a prefix, such as \"192.0.2.0/24\" or \"::/0\", with zeros behind it";
    const PATTERN: Option<&'static str> = Some("^[0-9A-Fa-f:.]+/[0-9]{1,3}$");

    fn from_text(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let (address, bits): (IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
        let is_clear = match address {
            IpAddr::V4(ip) => bits <= 32 && u32::from(ip).checked_shl(bits.into()).unwrap_or(0) == 0,
            IpAddr::V6(ip) => bits <= 128 && u128::from(ip).checked_shl(bits.into()).unwrap_or(0) == 0,
        };
        is_clear.then_some(Self(address, bits))
    }
}

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) struct MacText(pub(in super::super) [u8; 6]);

impl Text for MacText {
    const EXPECTED: &'static str = "a MAC address of one station, such as \"02:00:00:00:00:01\"";
    const PATTERN: Option<&'static str> = Some("^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$");

    fn from_text(text: &str) -> Option<Self> {
        let mac = crate::dataplane::p4::parse_mac(text)?;
        (mac != [0; 6] && mac[0] & 1 == 0).then_some(Self(mac))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_have_nothing_behind_them() {
        assert_eq!(Prefix::from_text("10.0.0.0/8"), Some(Prefix([10, 0, 0, 0].into(), 8)));
        assert!(Prefix::from_text("0.0.0.0/0").is_some() && Prefix::from_text("::/0").is_some());
        assert!(Prefix::from_text("10.1.2.3/32").is_some());
        for wrong in ["10.0.0.1/8", "10.0.0.0", "10.0.0.0/33", "fd00::1/64", "x/8"] {
            assert_eq!(Prefix::from_text(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn macs_are_of_one_station() {
        assert_eq!(MacText::from_text("02:00:00:00:00:0a"), Some(MacText([2, 0, 0, 0, 0, 10])));
        for wrong in ["ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "2:0:0:0:0:1", "02:00:00:00:00:01:02"] {
            assert_eq!(MacText::from_text(wrong), None, "{wrong}");
        }
    }
}
