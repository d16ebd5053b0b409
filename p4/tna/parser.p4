// From a frame to headers. A parser of TNA copies and compares, and does no arithmetic: what must be subtracted or shifted is left to the
// stages, what has a length that varies is a loop or is not followed.
#ifndef STICKLEBACK_PARSER
#define STICKLEBACK_PARSER

#include "packet.p4"

// Options of TCP, four bytes at a time: two of nothing, or "selective acknowledgements permitted", and what timestamps begin with; the size of
// segments; one of nothing, and how windows are scaled.
const bit<32> PADDED_TIMESTAMPS = 0x0101080a;
const bit<32> SELECTIVE_TIMESTAMPS = 0x0402080a;
const bit<32> SEGMENT_SIZE = 0x02040000;
const bit<32> WINDOW_SCALE = 0x01030300;
const bit<32> OF_TWO_BYTES = 0xffff0000;
const bit<32> OF_THREE_BYTES = 0xffffff00;

parser Reading(packet_in packet, out headers_t headers, out meta_t meta, out ingress_intrinsic_metadata_t intrinsic) {
    Checksum() ip_sum;
    Checksum() transport_sum;

    state start {
        packet.extract(intrinsic);
        packet.advance(PORT_METADATA_SIZE);
        transition ethernet;
    }

    state ethernet {
        packet.extract(headers.ethernet);
        transition select(headers.ethernet.kind) {
            ETHERTYPE_VLAN: tag;
            ETHERTYPE_QINQ: tag;
            ETHERTYPE_IPV4: any_ipv4;
            ETHERTYPE_IPV6: any_ipv6;
            default: accept;
        }
    }

    state tag {
        packet.extract(headers.vlan);
        transition select(headers.vlan.kind) {
            ETHERTYPE_VLAN: second_tag;
            ETHERTYPE_QINQ: second_tag;
            ETHERTYPE_IPV4: any_ipv4;
            ETHERTYPE_IPV6: any_ipv6;
            default: accept;
        }
    }

    state second_tag {
        packet.extract(headers.inner_vlan);
        transition select(headers.inner_vlan.kind) {
            ETHERTYPE_VLAN: too_deep;
            ETHERTYPE_QINQ: too_deep;
            ETHERTYPE_IPV4: any_ipv4;
            ETHERTYPE_IPV6: any_ipv6;
            default: accept;
        }
    }

    state too_deep {
        meta.is_too_deep = 1;
        transition accept;
    }

    state malformed {
        meta.is_malformed = 1;
        transition accept;
    }

    state any_ipv4 {
        transition select(packet.lookahead<bit<8>>(), intrinsic.resubmit_flag) {
            (0x45, 0): ipv4;
            (0x45, 1): error_v4;
            (0x46 .. 0x4f, _): options;
            default: no_ipv4;
        }
    }

    state no_ipv4 {
        meta.is_ip = 1;
        transition malformed;
    }

    // Nothing behind options is looked at.
    state options {
        packet.extract(headers.optioned_ipv4);
        meta.source[31:0] = headers.optioned_ipv4.source;
        meta.destination[31:0] = headers.optioned_ipv4.destination;
        meta.is_ip = 1;
        meta.has_options = 1;
        transition accept;
    }

    state any_ipv6 {
        transition select(intrinsic.resubmit_flag) {
            0: ipv6;
            default: error_v6;
        }
    }

    state ipv4 {
        packet.extract(headers.ipv4);
        meta.protocol = headers.ipv4.protocol;
        meta.source[31:0] = headers.ipv4.source;
        meta.destination[31:0] = headers.ipv4.destination;
        meta.is_ip = 1;
        ip_sum.add(headers.ipv4);
        transport_sum.subtract({ headers.ipv4.source, headers.ipv4.destination });
        meta.is_wrong = ip_sum.verify();
        transition select(headers.ipv4.more_fragments, headers.ipv4.offset, headers.ipv4.protocol) {
            (0, 0, PROTOCOL_TCP): tcp;
            (0, 0, PROTOCOL_UDP): udp;
            (0, 0, PROTOCOL_ICMP): icmp_v4;
            (0, 0, _): accept;
            (1, 0, PROTOCOL_TCP): first_tcp;
            (1, 0, PROTOCOL_UDP): first_udp;
            (1, 0, _): first;
            default: later;
        }
    }

    state later {
        meta.is_later = 1;
        transition accept;
    }

    state ipv6 {
        packet.extract(headers.ipv6);
        meta.source = headers.ipv6.source;
        meta.destination = headers.ipv6.destination;
        meta.is_ip = 1;
        transport_sum.subtract({ headers.ipv6.source, headers.ipv6.destination });
        transition select(headers.ipv6.version, headers.ipv6.next) {
            (6, EXTENSION_HOP_BY_HOP): extension;
            (6, EXTENSION_ROUTING): extension;
            (6, EXTENSION_DESTINATION): extension;
            (6, EXTENSION_FRAGMENT): fragment;
            (6, PROTOCOL_TCP): tcp_v6;
            (6, PROTOCOL_UDP): udp_v6;
            (6, PROTOCOL_ICMPV6): whole_icmp_v6;
            (6, _): accept;
            default: malformed;
        }
    }

    state extension {
        packet.extract(headers.extension);
        transition select(headers.extension.words, headers.extension.next) {
            (0, EXTENSION_HOP_BY_HOP): second_extension;
            (0, EXTENSION_ROUTING): second_extension;
            (0, EXTENSION_DESTINATION): second_extension;
            (0, EXTENSION_FRAGMENT): fragment;
            (0, PROTOCOL_TCP): tcp_v6;
            (0, PROTOCOL_UDP): udp_v6;
            (0, PROTOCOL_ICMPV6): whole_icmp_v6;
            (0, _): accept;
            default: too_deep;
        }
    }

    state second_extension {
        packet.extract(headers.second_extension);
        transition select(headers.second_extension.words, headers.second_extension.next) {
            (0, EXTENSION_HOP_BY_HOP): too_deep;
            (0, EXTENSION_ROUTING): too_deep;
            (0, EXTENSION_DESTINATION): too_deep;
            (0, EXTENSION_FRAGMENT): fragment;
            (0, PROTOCOL_TCP): tcp_v6;
            (0, PROTOCOL_UDP): udp_v6;
            (0, PROTOCOL_ICMPV6): whole_icmp_v6;
            (0, _): accept;
            default: too_deep;
        }
    }

    state tcp_v6 {
        meta.protocol = PROTOCOL_TCP;
        transition tcp;
    }

    state udp_v6 {
        meta.protocol = PROTOCOL_UDP;
        transition udp;
    }

    state whole_icmp_v6 {
        meta.protocol = PROTOCOL_ICMPV6;
        transition icmp_v6;
    }

    state fragment {
        packet.extract(headers.fragment);
        meta.protocol = headers.fragment.next;
        transition select(headers.fragment.offset, headers.fragment.more_fragments, headers.fragment.next) {
            (0, 0, PROTOCOL_TCP): tcp;
            (0, 0, PROTOCOL_UDP): udp;
            (0, 0, PROTOCOL_ICMPV6): icmp_v6;
            (0, 1, PROTOCOL_TCP): first_tcp;
            (0, 1, PROTOCOL_UDP): first_udp;
            (0, 1, _): first;
            (0, 0, _): accept;
            default: later;
        }
    }

    state first {
        meta.is_first = 1;
        transition accept;
    }

    state first_tcp {
        meta.is_first = 1;
        transition tcp;
    }

    state first_udp {
        meta.is_first = 1;
        transition udp;
    }

    state tcp {
        packet.extract(headers.tcp);
        transport_sum.subtract({ headers.tcp.source, headers.tcp.destination, headers.tcp.sequence, headers.tcp.acknowledgement,
                                 headers.tcp.window, headers.tcp.checksum });
        meta.has_ports = 1;
        meta.source_port = headers.tcp.source;
        meta.destination_port = headers.tcp.destination;
        transition select(headers.tcp.words) {
            8: three_words_of_options;
            9: four_words_of_options;
            10 .. 15: more_words_of_options;
            default: rest;
        }
    }

    // Where timestamps stand: at a multiple of four bytes, with two bytes in front that say what they are. First, as in all segments of
    // established connections; behind the segment size; or behind the window scale, too, as BSDs have it.
    state three_words_of_options {
        transition select(packet.lookahead<bit<32>>()) {
            PADDED_TIMESTAMPS: timestamps;
            default: rest;
        }
    }

    state four_words_of_options {
        transition select(packet.lookahead<bit<32>>()) {
            PADDED_TIMESTAMPS: timestamps;
            SEGMENT_SIZE &&& OF_TWO_BYTES: behind_segment_size;
            default: rest;
        }
    }

    state more_words_of_options {
        transition select(packet.lookahead<bit<32>>()) {
            PADDED_TIMESTAMPS: timestamps;
            SEGMENT_SIZE &&& OF_TWO_BYTES: behind_segment_size_or_scale;
            default: rest;
        }
    }

    state behind_segment_size {
        transition select(packet.lookahead<bit<64>>()[31:0]) {
            PADDED_TIMESTAMPS: second_timestamps;
            SELECTIVE_TIMESTAMPS: second_timestamps;
            default: rest;
        }
    }

    state behind_segment_size_or_scale {
        transition select(packet.lookahead<bit<64>>()[31:0]) {
            PADDED_TIMESTAMPS: second_timestamps;
            SELECTIVE_TIMESTAMPS: second_timestamps;
            WINDOW_SCALE &&& OF_THREE_BYTES: behind_scale;
            default: rest;
        }
    }

    state behind_scale {
        transition select(packet.lookahead<bit<96>>()[31:0]) {
            PADDED_TIMESTAMPS: third_timestamps;
            SELECTIVE_TIMESTAMPS: third_timestamps;
            default: rest;
        }
    }

    state third_timestamps {
        packet.extract(headers.first_option);
        transition second_timestamps;
    }

    state second_timestamps {
        packet.extract(headers.second_option);
        transition timestamps;
    }

    state timestamps {
        packet.extract(headers.last_option);
        packet.extract(headers.stamps);
        transport_sum.subtract({ headers.stamps.value, headers.stamps.echo });
        transition rest;
    }

    state udp {
        packet.extract(headers.udp);
        transport_sum.subtract({ headers.udp.source, headers.udp.destination, headers.udp.checksum });
        meta.has_ports = 1;
        meta.source_port = headers.udp.source;
        meta.destination_port = headers.udp.destination;
        transition select(headers.udp.length) {
            0 .. 11: rest;
            12 .. 31: word_0;
            default: connection_id;
        }
    }

    // Where a connection id would stand (RFC 8999): a long header tells its length, a short one does not.
    state connection_id {
        transition select(packet.lookahead<bit<1>>()) {
            0: short_header;
            default: long_header;
        }
    }

    state short_header {
        meta.server_id = packet.lookahead<bit<128>>()[119:0];
        meta.available = WINDOW - 1;
        transition word_0;
    }

    state long_header {
        meta.server_id = packet.lookahead<bit<168>>()[119:0];
        meta.available = packet.lookahead<bit<48>>()[7:0];
        transition word_0;
    }

    // Six words of a payload, as far as they are whole.
    state word_0 {
        packet.extract(headers.payload[0]);
        transition select(headers.udp.length) {
            12 .. 15: one_word;
            default: word_1;
        }
    }

    state word_1 {
        packet.extract(headers.payload[1]);
        transition select(headers.udp.length) {
            16 .. 19: two_words;
            default: word_2;
        }
    }

    state word_2 {
        packet.extract(headers.payload[2]);
        transition select(headers.udp.length) {
            20 .. 23: three_words;
            default: word_3;
        }
    }

    state word_3 {
        packet.extract(headers.payload[3]);
        transition select(headers.udp.length) {
            24 .. 27: four_words;
            default: word_4;
        }
    }

    state word_4 {
        packet.extract(headers.payload[4]);
        transition select(headers.udp.length) {
            28 .. 31: five_words;
            default: word_5;
        }
    }

    state word_5 {
        packet.extract(headers.payload[5]);
        meta.bytes = 24;
        transition rest;
    }

    state one_word {
        meta.bytes = 4;
        transition rest;
    }

    state two_words {
        meta.bytes = 8;
        transition rest;
    }

    state three_words {
        meta.bytes = 12;
        transition rest;
    }

    state four_words {
        meta.bytes = 16;
        transition rest;
    }

    state five_words {
        meta.bytes = 20;
        transition rest;
    }

    state icmp_v4 {
        packet.extract(headers.icmp);
        transport_sum.subtract({ headers.icmp.kind, headers.icmp.code, headers.icmp.checksum });
        transition select(headers.icmp.kind) {
            3: error_first;
            11: error_first;
            12: error_first;
            default: rest;
        }
    }

    state icmp_v6 {
        packet.extract(headers.icmp);
        transport_sum.subtract({ headers.icmp.kind, headers.icmp.code, headers.icmp.checksum });
        transition select(headers.icmp.kind) {
            1 .. 4: error_first;
            default: rest;
        }
    }

    state error_first {
        meta.is_error = 1;
        transition rest;
    }

    // What stands behind the last header is in the sum from here on.
    state rest {
        transport_sum.subtract_all_and_deposit(meta.transport_sum);
        transition accept;
    }

    // An error, the second time: its addresses are those of the packet that it quotes, turned round. Who would send that is whom the error is
    // about. There are no fragments and no malformed ones among these any more.
    state error_v4 {
        packet.extract(headers.ipv4);
        packet.extract(headers.icmp);
        packet.extract(headers.icmp_word);
        meta.is_ip = 1;
        transport_sum.subtract({ headers.ipv4.source, headers.ipv4.destination });
        transport_sum.subtract({ headers.icmp.kind, headers.icmp.code, headers.icmp.checksum });
        transition quoting_v4;
    }

    state quoting_v4 {
        packet.extract(headers.quoted_ipv4);
        meta.source[31:0] = headers.quoted_ipv4.destination;
        meta.destination[31:0] = headers.quoted_ipv4.source;
        transition select(headers.quoted_ipv4.version, headers.quoted_ipv4.words, headers.quoted_ipv4.offset, headers.quoted_ipv4.protocol) {
            (4, 5, 0, PROTOCOL_TCP): quoted_tcp;
            (4, 5, 0, PROTOCOL_UDP): quoted_udp;
            default: rest;
        }
    }

    // Behind extension headers it is not looked for a second time.
    state error_v6 {
        packet.extract(headers.ipv6);
        meta.is_ip = 1;
        transport_sum.subtract({ headers.ipv6.source, headers.ipv6.destination });
        transition select(headers.ipv6.next) {
            PROTOCOL_ICMPV6: error_icmp_v6;
            default: accept;
        }
    }

    state error_icmp_v6 {
        packet.extract(headers.icmp);
        packet.extract(headers.icmp_word);
        transport_sum.subtract({ headers.icmp.kind, headers.icmp.code, headers.icmp.checksum });
        transition quoting_v6;
    }

    state quoting_v6 {
        packet.extract(headers.quoted_ipv6);
        meta.source = headers.quoted_ipv6.destination;
        meta.destination = headers.quoted_ipv6.source;
        transition select(headers.quoted_ipv6.version, headers.quoted_ipv6.next) {
            (6, PROTOCOL_TCP): quoted_tcp;
            (6, PROTOCOL_UDP): quoted_udp;
            default: rest;
        }
    }

    state quoted_tcp {
        meta.protocol = PROTOCOL_TCP;
        transition quoted;
    }

    state quoted_udp {
        meta.protocol = PROTOCOL_UDP;
        transition quoted;
    }

    state quoted {
        packet.extract(headers.quoted_ports);
        meta.source_port = headers.quoted_ports.destination;
        meta.destination_port = headers.quoted_ports.source;
        meta.quotes = 1;
        transition rest;
    }
}
#endif
