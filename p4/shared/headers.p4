// Headers, the same on every target.
#ifndef STICKLEBACK_HEADERS
#define STICKLEBACK_HEADERS

#include "abi.p4"

typedef bit<48> mac_t;
// An IPv4 address stands mapped (::ffff:a.b.c.d), as in the maps of the XDP programs.
typedef bit<128> address_t;

const bit<16> ETHERTYPE_VLAN = 0x8100;
const bit<16> ETHERTYPE_QINQ = 0x88a8;
const bit<16> ETHERTYPE_IPV4 = 0x0800;
const bit<16> ETHERTYPE_IPV6 = 0x86dd;

const bit<8> PROTOCOL_ICMP = 1;
const bit<8> PROTOCOL_IPIP = 4;
const bit<8> PROTOCOL_TCP = 6;
const bit<8> PROTOCOL_UDP = 17;
const bit<8> PROTOCOL_IPV6 = 41;
const bit<8> PROTOCOL_ICMPV6 = 58;

// What follows an IPv6 header and may be followed by more of the kind.
const bit<8> EXTENSION_HOP_BY_HOP = 0;
const bit<8> EXTENSION_ROUTING = 43;
const bit<8> EXTENSION_FRAGMENT = 44;
const bit<8> EXTENSION_DESTINATION = 60;

const bit<8> TCP_SYN = 0x02;
const bit<8> TCP_RST = 0x04;
const bit<8> TCP_ACK = 0x10;

const bit<8> OPTION_END = 0;
const bit<8> OPTION_NONE = 1;
const bit<8> OPTION_TIMESTAMPS = 8;

header ethernet_h {
    mac_t destination;
    mac_t source;
    bit<16> kind;
}

header vlan_h {
    bit<3> priority;
    bit<1> eligible;
    bit<12> id;
    bit<16> kind;
}

header ipv4_h {
    bit<4> version;
    bit<4> words;
    bit<8> tos;
    bit<16> length;
    bit<16> identification;
    bit<1> reserved;
    bit<1> dont_fragment;
    bit<1> more_fragments;
    bit<13> offset;
    bit<8> ttl;
    bit<8> protocol;
    bit<16> checksum;
    bit<32> source;
    bit<32> destination;
}

header ipv6_h {
    bit<4> version;
    bit<8> traffic_class;
    bit<20> flow_label;
    bit<16> length;
    bit<8> next;
    bit<8> hop_limit;
    bit<128> source;
    bit<128> destination;
}

header tcp_h {
    bit<16> source;
    bit<16> destination;
    bit<32> sequence;
    bit<32> acknowledgement;
    bit<4> words;
    bit<4> reserved;
    bit<8> flags;
    bit<16> window;
    bit<16> checksum;
    bit<16> urgent;
}

// RFC 7323, section 3.2.
header timestamps_h {
    bit<8> kind;
    bit<8> length;
    bit<32> value;
    bit<32> echo;
}

header udp_h {
    bit<16> source;
    bit<16> destination;
    bit<16> length;
    bit<16> checksum;
}

header icmp_h {
    bit<8> kind;
    bit<8> code;
    bit<16> checksum;
}

// What an ICMP error says beside its kind.
header icmp_word_h {
    bit<32> value;
}

// Of a packet that an ICMP error quotes: it may end anywhere behind its ports.
header ports_h {
    bit<16> source;
    bit<16> destination;
}

header quoted_tcp_h {
    bit<96> middle;
    bit<16> checksum;
}

header quoted_udp_h {
    bit<16> length;
    bit<16> checksum;
}

// What the session of a packet should be bound to.
struct binding_t {
    bit<32> service;
    bit<64> session;
    bit<16> backend;
    bit<16> generation;
}
#endif
