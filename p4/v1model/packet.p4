// A packet, and what is known of it.
#ifndef STICKLEBACK_PACKET
#define STICKLEBACK_PACKET

#include "../shared/headers.p4"

const bit<16> ICMP_HEADER = 8;

const address_t MAPPED = 128w0xffff_0000_0000;

header ipv4_options_h {
    varbit<320> content;
}

header extension_h {
    bit<8> next;
    // Behind the first eight bytes, in units of eight; a fragment header has none.
    bit<8> words;
    varbit<16368> content;
}

// A TCP option.
header option_h {
    varbit<320> content;
}

// A byte of a UDP payload that is looked at.
header byte_h {
    bit<8> value;
}

#define MAX_EXTENSIONS 6
// In front of the timestamps.
#define MAX_OPTIONS 16

struct headers_t {
    ethernet_h ethernet;
    vlan_h vlan;
    vlan_h inner_vlan;
    ipv4_h outer_ipv4;
    ipv6_h outer_ipv6;
    ipv4_h ipv4;
    ipv4_options_h ipv4_options;
    ipv6_h ipv6;
    extension_h[MAX_EXTENSIONS] extensions;
    tcp_h tcp;
    option_h[MAX_OPTIONS] options;
    timestamps_h timestamps;
    udp_h udp;
    icmp_h icmp;
    icmp_word_h icmp_word;
    ipv4_h quoted_ipv4;
    ipv4_options_h quoted_options;
    ipv6_h quoted_ipv6;
    extension_h[MAX_EXTENSIONS] quoted_extensions;
    ports_h quoted_ports;
    quoted_tcp_h quoted_tcp;
    quoted_udp_h quoted_udp;
    byte_h[WINDOW] payload;
}

struct meta_t {
    // The packet.
    address_t source;
    address_t destination;
    bit<16> source_port;
    bit<16> destination_port;
    bit<8> protocol;
    bit<8> flags;
    bit<8> ttl;
    bit<16> ip_length;
    bit<16> frame_ip_length;
    bit<1> is_ip;
    bit<1> has_ports;
    // The first of a train of fragments has ports, a later one has none.
    bit<1> is_first;
    bit<1> is_later;
    // What the fragments of a packet have in common beside its addresses.
    bit<32> identification;
    bit<8> train;
    // A later fragment whose first one was seen.
    bit<1> is_guided;
    // Bytes of the IP header, with options or extension headers.
    bit<16> before;
    bit<8> extensions;
    bit<1> is_malformed;
    // What is behind the IP header is cut short or contradicts itself.
    bit<1> is_cut;
    // Of tags or extension headers.
    bit<1> is_too_deep;
    bit<8> bytes_left;
    bit<8> bytes;
    // Of TCP options: bytes from the timestamps, or from what ended the search for them, on; and options in front.
    bit<8> options_left;
    bit<8> options;
    // Of what an ICMP error quotes: its transport header, and the bytes from there to the end.
    bit<8> quoted_protocol;
    bit<8> quoted_extensions;
    bit<16> quoted_left;
    bit<1> quotes;
    // An ICMP error that is about a packet of ours: from here on source, destination, ports and protocol are those of the
    // packet that would have come the same way.
    bit<1> is_error;

    // The service.
    bit<1> is_ours;
    bit<1> is_reply;
    bit<32> service;
    bit<16> service_slot;
    bit<8> mode;
    bit<8> affinity;
    bit<8> fallback;
    bit<64> key_mask;
    bit<32> table_mask;

    // The session.
    bit<120> server_id;
    bit<64> session;
    bit<1> has_session;
    bit<1> is_bound;
    bit<1> is_named;
    bit<1> serves;
    bit<1> binds;
    bit<32> crc;
    bit<32> place;

    // The backend and the way to it, or the way back.
    bit<16> backend;
    bit<16> generation;
    address_t target;
    bit<16> target_port;
    bit<1> has_hop;
    mac_t hop_destination;
    mac_t hop_source;
    bit<16> hop_vlan;
    bit<16> hop_mtu;
    bit<9> hop_port;

    // What timestamps say: the wall clock, as it was written and as it is; which backend comes back; and what a backend's are more by.
    bit<32> wall;
    bit<32> now;
    bit<8> number;
    bit<32> stamp;
    bit<16> marked_backend;
    bit<16> marked_generation;
    bit<1> leads;
    // The switch goes on with its connection by itself: it is changed, and its way known.
    bit<1> is_express;

    // The node.
    bit<9> cpu_port;
    address_t tunnel_v4;
    address_t tunnel_v6;

    // What becomes of it.
    bit<1> is_decided;
    // Something is counted of a packet that goes on.
    bit<1> has_note;
    bit<8> note;
    bit<1> is_lost;
    bit<8> outcome;
}
#endif
