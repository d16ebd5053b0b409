// From a frame to headers: Ethernet, two VLAN tags, IPv4, IPv6 with extension headers, TCP, UDP, ICMP, and what begins a UDP payload or is
// quoted by an ICMP error.
#ifndef STICKLEBACK_PARSER
#define STICKLEBACK_PARSER

#include "packet.p4"
#include "timestamps.p4"

parser Frame(packet_in packet, out headers_t headers, inout meta_t meta) {
    Options() options;

    state start {
        packet.extract(headers.ethernet);
        transition select(headers.ethernet.kind) {
            ETHERTYPE_VLAN: tag;
            ETHERTYPE_QINQ: tag;
            ETHERTYPE_IPV4: ipv4;
            ETHERTYPE_IPV6: ipv6;
            default: accept;
        }
    }

    state tag {
        packet.extract(headers.vlan);
        transition select(headers.vlan.kind) {
            ETHERTYPE_VLAN: second_tag;
            ETHERTYPE_QINQ: second_tag;
            ETHERTYPE_IPV4: ipv4;
            ETHERTYPE_IPV6: ipv6;
            default: accept;
        }
    }

    state second_tag {
        packet.extract(headers.inner_vlan);
        transition select(headers.inner_vlan.kind) {
            ETHERTYPE_VLAN: too_deep;
            ETHERTYPE_QINQ: too_deep;
            ETHERTYPE_IPV4: ipv4;
            ETHERTYPE_IPV6: ipv6;
            default: accept;
        }
    }

    state too_deep {
        meta.is_too_deep = 1;
        transition accept;
    }

    state ipv4 {
        packet.extract(headers.ipv4);
        meta.is_ip = 1;
        meta.source = MAPPED | (bit<128>)headers.ipv4.source;
        meta.destination = MAPPED | (bit<128>)headers.ipv4.destination;
        meta.protocol = headers.ipv4.protocol;
        meta.ttl = headers.ipv4.ttl;
        meta.ip_length = headers.ipv4.length;
        meta.before = (bit<16>)headers.ipv4.words << 2;
        meta.identification = (bit<32>)headers.ipv4.identification;
        meta.train = headers.ipv4.protocol;
        transition select(headers.ipv4.version, headers.ipv4.words) {
            (4, 5): ipv4_payload;
            (4, 6 .. 15): ipv4_with_options;
            default: malformed;
        }
    }

    state ipv4_with_options {
        packet.extract(headers.ipv4_options, ((bit<32>)headers.ipv4.words - 5) << 5);
        transition ipv4_payload;
    }

    state ipv4_payload {
        transition select(headers.ipv4.more_fragments, headers.ipv4.offset, headers.ipv4.protocol) {
            (0, 0, PROTOCOL_TCP): tcp;
            (0, 0, PROTOCOL_UDP): udp;
            (0, 0, PROTOCOL_ICMP): icmp_v4;
            (0, 0, _): accept;
            (1, 0, _): first_fragment;
            (_, _, _): later_fragment;
        }
    }

    state first_fragment {
        meta.is_first = 1;
        transition select(headers.ipv4.protocol) {
            PROTOCOL_TCP: tcp;
            PROTOCOL_UDP: udp;
            default: accept;
        }
    }

    state ipv6 {
        packet.extract(headers.ipv6);
        meta.is_ip = 1;
        meta.source = headers.ipv6.source;
        meta.destination = headers.ipv6.destination;
        meta.protocol = headers.ipv6.next;
        meta.ttl = headers.ipv6.hop_limit;
        meta.ip_length = headers.ipv6.length + 40;
        meta.before = 40;
        transition select(headers.ipv6.version) {
            6: ipv6_payload;
            default: malformed;
        }
    }

    state ipv6_payload {
        transition select(meta.is_first, meta.protocol) {
            (_, EXTENSION_HOP_BY_HOP): another;
            (_, EXTENSION_ROUTING): another;
            (_, EXTENSION_DESTINATION): another;
            (_, EXTENSION_FRAGMENT): another;
            (_, PROTOCOL_TCP): tcp;
            (_, PROTOCOL_UDP): udp;
            (0, PROTOCOL_ICMPV6): icmp_v6;
            (_, _): accept;
        }
    }

    state another {
        transition select(meta.extensions, meta.protocol) {
            (MAX_EXTENSIONS, _): too_deep;
            (_, EXTENSION_FRAGMENT): fragment;
            (_, _): extension;
        }
    }

    state extension {
        bit<16> begun = packet.lookahead<bit<16>>();
        packet.extract(headers.extensions.next, ((bit<32>)begun[7:0] << 6) + 48);
        meta.protocol = begun[15:8];
        meta.before = meta.before + (((bit<16>)begun[7:0] + 1) << 3);
        meta.extensions = meta.extensions + 1;
        transition ipv6_payload;
    }

    state fragment {
        bit<64> whole = packet.lookahead<bit<64>>();
        packet.extract(headers.extensions.next, 48);
        meta.protocol = whole[63:56];
        meta.train = whole[63:56];
        meta.identification = whole[31:0];
        meta.before = meta.before + 8;
        meta.extensions = meta.extensions + 1;
        meta.is_first = whole[32:32];
        transition select(whole[47:35]) {
            0: ipv6_payload;
            default: later_fragment;
        }
    }

    state later_fragment {
        meta.is_first = 0;
        meta.is_later = 1;
        transition accept;
    }

    state malformed {
        meta.is_malformed = 1;
        transition accept;
    }

    state tcp {
        // The ports first: they say whose a packet is whose header is cut behind them.
        bit<32> ports = packet.lookahead<bit<32>>();
        meta.has_ports = 1;
        meta.source_port = ports[31:16];
        meta.destination_port = ports[15:0];
        packet.extract(headers.tcp);
        meta.flags = headers.tcp.flags;
        transition select(headers.tcp.words) {
            6 .. 15: tcp_options;
            default: accept;
        }
    }

    state tcp_options {
        options.apply(packet, headers, meta);
        transition accept;
    }

    state udp {
        bit<32> ports = packet.lookahead<bit<32>>();
        meta.has_ports = 1;
        meta.source_port = ports[31:16];
        meta.destination_port = ports[15:0];
        packet.extract(headers.udp);
        transition select(headers.udp.length) {
            0 .. 7: accept;
            8 .. 31: short_payload;
            default: long_payload;
        }
    }

    state short_payload {
        meta.bytes_left = (bit<8>)(headers.udp.length - 8);
        transition payload;
    }

    state long_payload {
        meta.bytes_left = WINDOW;
        transition payload;
    }

    state payload {
        transition select(meta.bytes_left) {
            0: accept;
            default: payload_byte;
        }
    }

    state payload_byte {
        packet.extract(headers.payload.next);
        meta.bytes_left = meta.bytes_left - 1;
        meta.bytes = meta.bytes + 1;
        transition payload;
    }

    state icmp_v4 {
        packet.extract(headers.icmp);
        transition select(headers.icmp.kind) {
            3: error_v4;
            11: error_v4;
            12: error_v4;
            default: accept;
        }
    }

    state error_v4 {
        packet.extract(headers.icmp_word);
        packet.extract(headers.quoted_ipv4);
        meta.quoted_left = meta.ip_length - meta.before - ICMP_HEADER - ((bit<16>)headers.quoted_ipv4.words << 2);
        meta.quoted_protocol = headers.quoted_ipv4.protocol;
        transition select(headers.quoted_ipv4.version, headers.quoted_ipv4.words) {
            (4, 5): quoted_v4;
            (4, 6 .. 15): quoted_v4_with_options;
            default: accept;
        }
    }

    state quoted_v4_with_options {
        packet.extract(headers.quoted_options, ((bit<32>)headers.quoted_ipv4.words - 5) << 5);
        transition quoted_v4;
    }

    state quoted_v4 {
        transition select(headers.quoted_ipv4.offset, headers.quoted_ipv4.protocol) {
            (0, PROTOCOL_TCP): quoted_tcp;
            (0, PROTOCOL_UDP): quoted_udp;
            (_, _): accept;
        }
    }

    state icmp_v6 {
        packet.extract(headers.icmp);
        transition select(headers.icmp.kind) {
            1 .. 4: error_v6;
            default: accept;
        }
    }

    state error_v6 {
        packet.extract(headers.icmp_word);
        packet.extract(headers.quoted_ipv6);
        meta.quoted_left = meta.ip_length - meta.before - ICMP_HEADER - 40;
        meta.quoted_protocol = headers.quoted_ipv6.next;
        transition select(headers.quoted_ipv6.version) {
            6: quoted_v6;
            default: accept;
        }
    }

    state quoted_v6 {
        transition select(meta.quoted_protocol) {
            EXTENSION_HOP_BY_HOP: quoted_another;
            EXTENSION_ROUTING: quoted_another;
            EXTENSION_DESTINATION: quoted_another;
            EXTENSION_FRAGMENT: quoted_another;
            PROTOCOL_TCP: quoted_tcp;
            PROTOCOL_UDP: quoted_udp;
            default: accept;
        }
    }

    state quoted_another {
        transition select(meta.quoted_extensions, meta.quoted_protocol) {
            (MAX_EXTENSIONS, _): accept;
            (_, EXTENSION_FRAGMENT): quoted_fragment;
            (_, _): quoted_extension;
        }
    }

    state quoted_extension {
        bit<16> begun = packet.lookahead<bit<16>>();
        packet.extract(headers.quoted_extensions.next, ((bit<32>)begun[7:0] << 6) + 48);
        meta.quoted_protocol = begun[15:8];
        meta.quoted_left = meta.quoted_left - (((bit<16>)begun[7:0] + 1) << 3);
        meta.quoted_extensions = meta.quoted_extensions + 1;
        transition quoted_v6;
    }

    state quoted_fragment {
        bit<64> whole = packet.lookahead<bit<64>>();
        packet.extract(headers.quoted_extensions.next, 48);
        meta.quoted_protocol = whole[63:56];
        meta.quoted_left = meta.quoted_left - 8;
        meta.quoted_extensions = meta.quoted_extensions + 1;
        transition select(whole[47:35]) {
            0: quoted_v6;
            default: accept;
        }
    }

    state quoted_tcp {
        packet.extract(headers.quoted_ports);
        transition select(meta.quoted_left) {
            0 .. 17: accept;
            default: quoted_tcp_rest;
        }
    }

    state quoted_tcp_rest {
        packet.extract(headers.quoted_tcp);
        transition accept;
    }

    state quoted_udp {
        packet.extract(headers.quoted_ports);
        transition select(meta.quoted_left) {
            0 .. 7: accept;
            default: quoted_udp_rest;
        }
    }

    state quoted_udp_rest {
        packet.extract(headers.quoted_udp);
        transition accept;
    }
}
#endif
