//! Connections that a switch can go on with packet by packet: what it does with their segments never changes.

use super::record::{Record, Splice};
use core::net::IpAddr;
use lb_common::abi::Flow;
use lb_common::splice::SCALE;

/// A spliced connection whose segments need new addresses and ports, one number added to those of the other side, and the backend's
/// windows shifted.
///
/// No FIN was seen, all addresses are of one family, and frames have no tags.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Express {
    /// The node that told of it, and what that one knows it by.
    pub id: (u64, u64),
    /// The client.
    pub client: (IpAddr, u16),
    /// What the client talks to.
    pub service: (IpAddr, u16),
    /// The backend.
    pub backend: (IpAddr, u16),
    /// What the backend talks to.
    pub source: (IpAddr, u16),
    /// What the backend's sequence numbers are ahead of those that the client counts in.
    pub offset: u32,
    /// By how many bits the backend's windows are shifted to the left, and to the right, for its client: 65,535 at most, and 0 only
    /// when they are 0.
    pub windows: (u8, u8),
}

impl Express {
    /// A connection that the node `owner` tells of; `None` = its segments need more, or it ends.
    pub fn of(owner: u64, record: &Record) -> Option<Self> {
        let splice = record.splice?;
        let windows = splice.windows()?;
        let ends = [record.client, record.service_address, record.backend, record.source];
        let is_one_family = ends.iter().all(|(address, _)| address.is_ipv4() == record.client.0.is_ipv4());
        (is_one_family && !record.is_closing && !record.has_tags).then_some(Self {
            id: (owner, record.id),
            client: record.client,
            service: record.service_address,
            backend: record.backend,
            source: record.source,
            offset: splice.answer.wrapping_sub(splice.isn),
            windows,
        })
    }
}

impl Splice {
    /// By how much the backend's windows are shifted; `None` = the client's would have to be, too, since it alone scales.
    fn windows(&self) -> Option<(u8, u8)> {
        match (self.client_scale, self.server_scale) {
            (Flow::NO_SCALE, _) => Some((0, 0)),
            (_, Flow::NO_SCALE) => None,
            (_, scale) => Some((scale.saturating_sub(SCALE), SCALE.saturating_sub(scale))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::tests::record;
    use core::net::Ipv6Addr;
    use lb_common::splice::{window_to_backend, window_to_client};
    use proptest::prelude::*;

    fn splice() -> Splice {
        Splice { answer: 5, isn: 9, start: 1, client_scale: 3, server_scale: SCALE, readers: 0 }
    }

    fn spliced() -> Record {
        Record { flags: 8, splice: Some(splice()), ..record(3) }
    }

    #[test]
    fn what_needs_more_than_numbers_stays_with_its_node() {
        let express = Express::of(1, &spliced()).expect("a spliced connection");
        assert_eq!((express.id, express.offset), ((1, 3), 5_u32.wrapping_sub(9)));
        assert_eq!((express.client.1, express.source.1), (4_003, 3));
        let with = |change: fn(&mut Record)| {
            let mut record = spliced();
            change(&mut record);
            Express::of(1, &record)
        };
        assert_eq!(with(|record| record.splice = None), None);
        assert_eq!(with(|record| record.is_closing = true), None);
        assert_eq!(with(|record| record.has_tags = true), None);
        assert_eq!(with(|record| record.source.0 = Ipv6Addr::LOCALHOST.into()), None);
        let alone =
            |record: &mut Record| record.splice = Some(Splice { server_scale: Flow::NO_SCALE, ..splice() });
        assert_eq!(with(alone), None);
    }

    proptest! {
        #[test]
        fn windows_are_what_the_node_makes_of_them(window: u16, client in 0_u8..=15, server in 0_u8..=15) {
            // A backend scales only where the client does.
            let server_scale = if client == Flow::NO_SCALE { client } else { server };
            let splice = Splice { client_scale: client, server_scale, ..splice() };
            if let Some((left, right)) = splice.windows() {
                let shifted = u32::from(window) << left >> right;
                let shifted = shifted.clamp(u32::from(window != 0), 0xffff);
                prop_assert_eq!(u32::from(window_to_client(window, client, server_scale)), shifted);
                prop_assert_eq!(window_to_backend(window, client, server_scale), window);
            }
        }
    }
}
