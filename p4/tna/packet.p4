// A packet, and what is known of it.
#ifndef STICKLEBACK_PACKET
#define STICKLEBACK_PACKET

#include "../shared/headers.p4"

// Four bytes of TCP options, or of a UDP payload.
header word_h {
    bit<32> value;
}

// An IPv6 extension header that has nothing behind its first eight bytes.
header extension_h {
    bit<8> next;
    bit<8> words;
    bit<48> content;
}

header fragment_h {
    bit<8> next;
    bit<8> reserved;
    bit<13> offset;
    bit<2> unused;
    bit<1> more_fragments;
    bit<32> identification;
}


// What timestamps (RFC 7323) say, of which kind and length stand in the word in front.
header stamps_h {
    bit<32> value;
    bit<32> echo;
}

const bit<8> ECHO_V4 = 8;
const bit<8> ECHO_V6 = 128;

#define WORDS (WINDOW / 4)

// What ingress tells egress, which counts.
header bridge_h {
    bit<16> service_slot;
    bit<16> backend;
    @padding bit<4> unused;
    bit<1> is_express;
    bit<1> is_reply;
    bit<1> is_nat;
    bit<1> opens;
}

struct headers_t {
    bridge_h bridge;
    ethernet_h ethernet;
    vlan_h vlan;
    vlan_h inner_vlan;
    ipv4_h outer_ipv4;
    ipv6_h outer_ipv6;
    ipv4_h ipv4;
    ipv4_h optioned_ipv4;
    ipv6_h ipv6;
    extension_h extension;
    extension_h second_extension;
    fragment_h fragment;
    tcp_h tcp;
    word_h first_option;
    word_h second_option;
    word_h last_option;
    stamps_h stamps;
    udp_h udp;
    icmp_h icmp;
    icmp_word_h icmp_word;
    ipv4_h quoted_ipv4;
    ipv6_h quoted_ipv6;
    ports_h quoted_ports;
    word_h[WORDS] payload;
}

struct meta_t {
    // The packet, or the one that an ICMP error quotes, turned round.
    address_t source;
    address_t destination;
    bit<16> source_port;
    bit<16> destination_port;
    bit<8> protocol;
    bit<8> ttl;
    bit<16> ip_length;
    // Of what the length in the IP header counts: in front of the transport header, and from there on.
    bit<16> before;
    bit<16> rest;
    // Bytes that what is behind the IP header should have, and has not.
    bit<16> lack;
    bit<1> is_ip;
    bit<1> has_ports;
    bit<1> is_first;
    bit<1> is_later;
    bit<1> is_too_deep;
    bit<1> has_options;
    bit<1> is_malformed;
    bit<1> is_cut;
    // An ICMP error; and one whose quoted packet stands above in place of its own addresses: the second time that it comes (`AGAIN`).
    bit<1> is_error;
    bit<1> quotes;
    // Nobody has its source address, so nobody can be answered.
    bit<1> is_nobodys;
    // The checksum of an IPv4 header is wrong.
    bool is_wrong;
    // That of what is behind the IP header, with its addresses, without what changes; and whether a datagram has one.
    bit<16> transport_sum;
    bool sums_udp;

    // The service.
    bit<1> is_ours;
    bit<1> is_reply;
    bit<1> is_vip;
    bit<32> service;
    bit<16> service_slot;
    bit<8> mode;
    bit<8> affinity;
    bit<8> fallback;
    bit<64> key_mask;
    bit<32> table_mask;

    // The session.
    bit<64> session;
    bit<1> has_session;
    bit<1> is_bound;
    bit<1> is_named;
    bit<1> serves;
    // Bytes of the payload that are there to be looked at, and of a connection id.
    bit<8> bytes;
    bit<8> available;
    // Bytes of either that should be there, and are not.
    bit<8> missing;
    bit<120> server_id;
    bit<8> segment_shift;
    bit<1> asks;
    bit<1> has_segment;
    bit<1> has_layout;
    bit<32> crc;
    bit<32> place;
    bit<16> flow;
    bit<16> now;
    // How long ago a packet of the flow was seen, in units of 2^32 nanoseconds.
    bit<16> age;
    bit<1> opens;
    bit<1> binds;
    bit<8> colour;

    // The clock of timestamps: what was written, this switch's, what that was; and how far an echo is ahead, with the number above it.
    bit<32> wall;
    bit<32> here;
    bit<32> since;
    bit<32> ahead;
    bit<1> echoes;
    // The express lane: may the segment take it, whose it is, what the connection's state is, and whether it does.
    bit<1> may_pass;
    bit<1> ends;
    bit<1> is_offloaded;
    bit<1> from_backend;
    bit<1> has_data;
    bit<1> has_ended;
    bit<1> is_due;
    bit<1> is_express;
    bit<16> moment;
    bit<16> answering;

    // Whom it names, whether that one serves, and what timestamps change by.
    bit<16> marked_backend;
    bit<16> marked_generation;
    bit<1> leads;
    bit<32> stamp;

    // The backend and the way to it, or the way back; and whose reply it is.
    bit<16> backend;
    bit<16> generation;
    bit<16> sender;
    address_t target;
    bit<16> target_port;
    bit<1> has_hop;
    mac_t hop_destination;
    mac_t hop_source;
    bit<16> hop_vlan;
    bit<9> hop_port;
    // One byte less than the packet will have, and than it will have in a tunnel over IPv4.
    bit<16> needed;
    bit<16> needed_v4;
    // 0: the packet has no room.
    bit<16> room;
    bit<16> room_v4;

    // The node.
    bit<9> cpu_port;

    // Something is counted of a packet that goes on.
    bit<8> note;
}
#endif
