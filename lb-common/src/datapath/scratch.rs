//! A packet's parsed form, and what one program leaves for the next.

use crate::abi::{Addr, Be16, Be32, FlowKey, FlowRef, MAX_PAYLOAD_SEGMENT, VlanTags};
use crate::packet::Ethernet;

/// What a packet says of itself; offsets are from the start of the frame.
///
/// Eight-byte aligned, so that it is copied and cleared by words: the kernel's memcpy is a loop over bytes.
#[repr(C, align(8))]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Packet {
    pub(crate) source: Addr,
    pub(crate) destination: Addr,
    pub(crate) source_port: Be16,
    pub(crate) destination_port: Be16,
    /// Offset of the IP header.
    pub(crate) l3: u16,
    /// Offset of the transport header.
    pub(crate) l4: u16,
    /// Length of the IP packet, header included.
    pub(crate) length: u16,
    pub(crate) protocol: u8,
    pub(crate) tcp_flags: u8,
    pub(crate) hop_limit: u8,
    pub(crate) traffic_class: u8,
    /// One of [`part`].
    pub(crate) part: u8,
    /// Protocol that names a train of fragments: IPv6 has only the fragment header's own next header for it.
    pub(crate) train: u8,
    pub(crate) identification: Be32,
    /// Up to two VLAN tags as they came.
    pub(crate) tags: VlanTags,
    /// Of a packet that came by way of another node: the interface that it would have come in on; 0 = it came itself.
    pub(crate) back: u32,
}

/// Which part of a datagram the packet is.
pub(crate) mod part {
    pub(crate) const WHOLE: u8 = 0;
    pub(crate) const FIRST: u8 = 1;
    pub(crate) const LATER: u8 = 2;
    /// None of it: the frame is an answer of another node, about the flow that this is a packet of.
    pub(crate) const NONE: u8 = 3;
}

const _: () = assert!(size_of::<Packet>() == 64);

impl Packet {
    /// Zeroes everything behind the addresses, which every packet sets: by words, where a plain assignment becomes the kernel's memset, a loop over bytes.
    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        let words: *mut u64 = (&raw mut *self).cast();
        let mut i = 2 * size_of::<Addr>() / 8;
        while i < size_of::<Self>() / 8 {
            // SAFETY: inside the packet, which is aligned to eight bytes and made of integers.
            unsafe { words.add(i).write_volatile(0) };
            i += 1;
        }
    }

    #[inline(always)]
    pub(crate) const fn is_v4(&self) -> bool {
        self.source.is_v4()
    }

    /// Number of VLAN tags.
    #[inline(always)]
    pub(crate) const fn tag_count(&self) -> usize {
        (self.l3 as usize).wrapping_sub(Ethernet::LEN) / Ethernet::TAG
    }

    /// The 5-tuple as it stands in the packet.
    #[inline(always)]
    pub(crate) const fn flow_key(&self) -> FlowKey {
        FlowKey::new(&self.source, &self.destination, self.source_port, self.destination_port, self.protocol)
    }

    /// The interface of the packet's sender.
    #[inline(always)]
    pub(crate) fn ingress<E: super::Env>(&self, env: &E) -> u32 {
        if self.back != 0 { self.back } else { env.ingress() }
    }

    /// Bytes of the packet behind the IP header.
    #[inline(always)]
    pub(crate) const fn l4_len(&self) -> usize {
        (self.length as usize).wrapping_sub((self.l4 - self.l3) as usize)
    }
}

/// Hand-over between programs; one for each CPU. The entry program parses the packet right into it.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Scratch {
    pub(crate) packet: Packet,
    /// For `answer`: an [`super::answer::kind`].
    pub(crate) answer: u32,
    /// For `answer`: the MTU to tell.
    pub(crate) mtu: u32,
    /// For `nat`: one of [`to_service`].
    pub(crate) to_service: u32,
    /// For `connect`: the hold with the request, plus 1; a CPU's own when no other was free.
    pub(crate) hold: u32,
    /// For `establish`, the programs of delayed binding, and `nat` when it is left one: the flow; zero = none.
    pub(crate) flow: FlowRef,
    /// For `bind`, `open`, `pick` and `inquire`: the session key of a service whose affinity reads more than headers.
    pub(crate) session: u64,
    /// For `nat`, `open` and `connect`: the backend slot, plus 1, that the packet itself or its session names, or that was
    /// picked; 0 = none.
    pub(crate) wanted: u32,
    /// For `open`: the backend slot, plus 1, whose flow stands beside another one of the same 5-tuple; 0 = it is the only one.
    pub(crate) aside: u32,
    /// For `connect`: one of [`again`].
    pub(crate) again: u32,
    /// For `pick`: the path rule whose pool it is, plus 2; 1 = the service's own pool; 0 = a flow is to be opened.
    pub(crate) path: u32,
    /// Where this CPU looks for a hold next, among those that it takes in turn; stays from packet to packet.
    pub(crate) next_hold: u32,
    /// For `inquire`: the id of the pool whose session is asked about.
    pub(crate) pool: u32,
    /// For `pick`: the session's key under the other secret, where a binding under it is to be carried over.
    pub(crate) other: u64,
    /// For `pick`: the id of the pool that it is of.
    pub(crate) carried: u32,
    /// For `pick`: one of [`after`].
    pub(crate) after: u32,
    /// For `greet`: place of the service's affinity rules.
    pub(crate) service_slot: u16,
    /// For `quic`: bytes of the payload.
    pub(crate) segment: [u64; MAX_PAYLOAD_SEGMENT / 8],
}

/// What a packet's destination is.
pub(crate) mod to_service {
    use crate::abi::{Service, ServiceFlags};

    /// No service.
    pub(crate) const NONE: u32 = 0;
    /// A service that takes any packet's connection for what it is.
    pub(crate) const PLAIN: u32 = 1;
    /// A service with delayed binding.
    pub(crate) const SPLICED: u32 = 2;
    /// The packet is of a flow with delayed binding, whose programs have seen it.
    pub(crate) const SETTLED: u32 = 3;
    /// No service, and the packet is a reply of the flow in the scratch.
    pub(crate) const REPLY: u32 = 4;
    /// A service with delayed binding, of whose connections the packet began a new one, but not all that it takes was to be had.
    pub(crate) const TAKEN: u32 = 5;

    /// Which kind a service is.
    #[inline(always)]
    pub(crate) const fn of(service: &Service) -> u32 {
        if service.flags & ServiceFlags::SPLICE != 0 { SPLICED } else { PLAIN }
    }
}

/// Why a SYN to a backend is due.
pub(crate) mod again {
    /// The request has just been read.
    pub(crate) const FIRST: u32 = 0;
    /// The client sent it again.
    pub(crate) const RETRANSMITTED: u32 = 1;
    /// A backend refused the SYN before.
    pub(crate) const REFUSED: u32 = 2;
    /// The request has just been read, and a backend was picked by load.
    pub(crate) const PICKED: u32 = 3;
    /// The request was read before, and the other nodes have answered whether they know its session.
    pub(crate) const TOLD: u32 = 4;
}

/// What comes after a session's binding was carried over to its key.
pub(crate) mod after {
    /// Nothing is to be carried over; a backend is to be picked.
    pub(crate) const PICK: u32 = 0;
    /// The backend of a request is looked for.
    pub(crate) const CONNECT: u32 = 1;
    /// The datagram goes on as what is not translated.
    pub(crate) const BIND: u32 = 2;
    /// The datagram's connection is looked for.
    pub(crate) const NAT: u32 = 3;
    /// The same, and it says itself which backend it is for: its session's.
    pub(crate) const NAT_OF_SESSION: u32 = 4;
}
