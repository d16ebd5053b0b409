// Packets as their receiver is to see them: translated in both directions, what ICMP errors quote, too, or put into another packet.
#ifndef STICKLEBACK_REWRITE
#define STICKLEBACK_REWRITE

#include "packet.p4"
#include "checksum.p4"

// Destination NAT and its reverse: addresses, ports and checksums.
control Translate(inout headers_t headers, inout meta_t meta) {
    Adjust() adjust_ip;
    Adjust() adjust_tcp;
    Adjust() adjust_udp;

    apply {
        bit<32> addresses = 0;
        bit<32> ports = 0;
        bit<16> port = meta.destination_port;
        if (meta.is_reply == 1) {
            port = meta.source_port;
        }
        if (meta.target_port == 0) {
            meta.target_port = port;
        }
        REPLACE16(ports, port, meta.target_port);
        if (headers.ipv4.isValid()) {
            bit<32> now = meta.target[31:0];
            if (meta.is_reply == 1) {
                REPLACE32(addresses, headers.ipv4.source, now);
                headers.ipv4.source = now;
            } else {
                REPLACE32(addresses, headers.ipv4.destination, now);
                headers.ipv4.destination = now;
            }
            adjust_ip.apply(headers.ipv4.checksum, addresses);
        } else {
            if (meta.is_reply == 1) {
                REPLACE128(addresses, headers.ipv6.source, meta.target);
                headers.ipv6.source = meta.target;
            } else {
                REPLACE128(addresses, headers.ipv6.destination, meta.target);
                headers.ipv6.destination = meta.target;
            }
        }
        ports = ports + addresses;
        if (headers.tcp.isValid()) {
            if (meta.is_reply == 1) {
                headers.tcp.source = meta.target_port;
            } else {
                headers.tcp.destination = meta.target_port;
            }
            adjust_tcp.apply(headers.tcp.checksum, ports);
        } else if (headers.udp.isValid()) {
            if (meta.is_reply == 1) {
                headers.udp.source = meta.target_port;
            } else {
                headers.udp.destination = meta.target_port;
            }
            // 0 = the sender made none.
            if (headers.udp.checksum != 0) {
                adjust_udp.apply(headers.udp.checksum, ports);
                if (headers.udp.checksum == 0) {
                    headers.udp.checksum = 0xffff;
                }
            }
        }
    }
}

// An ICMP error goes to whom it is about, and quotes what that one sent: addresses, ports and every checksum that is there.
control TranslateQuoted(inout headers_t headers, inout meta_t meta) {
    Adjust() adjust_ip;
    Adjust() adjust_quoted_ip;
    Adjust() adjust_tcp;
    Adjust() adjust_udp;
    Adjust() adjust_icmp;

    apply {
        // What changes in the quoted addresses, in what its transport covers, and in the whole message.
        bit<32> addresses = 0;
        bit<32> covered = 0;
        bit<32> message = 0;
        bit<16> before = 0;
        if (headers.ipv4.isValid()) {
            bit<32> now = meta.target[31:0];
            bit<32> outer = 0;
            if (meta.is_reply == 1) {
                REPLACE32(outer, headers.ipv4.destination, headers.quoted_ipv4.source);
                headers.ipv4.destination = headers.quoted_ipv4.source;
                REPLACE32(addresses, headers.quoted_ipv4.destination, now);
                headers.quoted_ipv4.destination = now;
            } else {
                REPLACE32(outer, headers.ipv4.destination, now);
                headers.ipv4.destination = now;
                REPLACE32(addresses, headers.quoted_ipv4.source, now);
                headers.quoted_ipv4.source = now;
            }
            adjust_ip.apply(headers.ipv4.checksum, outer);
            before = headers.quoted_ipv4.checksum;
            adjust_quoted_ip.apply(headers.quoted_ipv4.checksum, addresses);
            REPLACE16(message, before, headers.quoted_ipv4.checksum);
        } else {
            if (meta.is_reply == 1) {
                REPLACE128(message, headers.ipv6.destination, headers.quoted_ipv6.source);
                headers.ipv6.destination = headers.quoted_ipv6.source;
                REPLACE128(addresses, headers.quoted_ipv6.destination, meta.target);
                headers.quoted_ipv6.destination = meta.target;
            } else {
                REPLACE128(message, headers.ipv6.destination, meta.target);
                headers.ipv6.destination = meta.target;
                REPLACE128(addresses, headers.quoted_ipv6.source, meta.target);
                headers.quoted_ipv6.source = meta.target;
            }
        }
        covered = addresses;
        if (meta.is_reply == 1) {
            REPLACE16(covered, headers.quoted_ports.destination, meta.target_port);
            headers.quoted_ports.destination = meta.target_port;
        } else if (meta.target_port != 0) {
            REPLACE16(covered, headers.quoted_ports.source, meta.target_port);
            headers.quoted_ports.source = meta.target_port;
        }
        message = message + covered;
        if (headers.quoted_tcp.isValid()) {
            before = headers.quoted_tcp.checksum;
            adjust_tcp.apply(headers.quoted_tcp.checksum, covered);
            REPLACE16(message, before, headers.quoted_tcp.checksum);
        } else if (headers.quoted_udp.isValid() && headers.quoted_udp.checksum != 0) {
            before = headers.quoted_udp.checksum;
            adjust_udp.apply(headers.quoted_udp.checksum, covered);
            if (headers.quoted_udp.checksum == 0) {
                headers.quoted_udp.checksum = 0xffff;
            }
            REPLACE16(message, before, headers.quoted_udp.checksum);
        }
        adjust_icmp.apply(headers.icmp.checksum, message);
        if (headers.icmp.checksum == 0) {
            headers.icmp.checksum = 0xffff;
        }
    }
}

// One IP packet in another.
control Encapsulate(inout headers_t headers, inout meta_t meta) {
    apply {
        bit<8> inner = PROTOCOL_IPV6;
        bit<8> tos = headers.ipv6.traffic_class;
        if (headers.ipv4.isValid()) {
            inner = PROTOCOL_IPIP;
            tos = headers.ipv4.tos;
        }
        bit<16> kind = ETHERTYPE_IPV6;
        if (meta.target[127:32] == 96w0xffff) {
            kind = ETHERTYPE_IPV4;
            headers.outer_ipv4.setValid();
            headers.outer_ipv4.version = 4;
            headers.outer_ipv4.words = 5;
            headers.outer_ipv4.tos = tos;
            headers.outer_ipv4.length = meta.ip_length + 20;
            headers.outer_ipv4.identification = 0;
            headers.outer_ipv4.reserved = 0;
            headers.outer_ipv4.dont_fragment = 1;
            headers.outer_ipv4.more_fragments = 0;
            headers.outer_ipv4.offset = 0;
            headers.outer_ipv4.ttl = 64;
            headers.outer_ipv4.protocol = inner;
            headers.outer_ipv4.checksum = 0;
            headers.outer_ipv4.source = meta.tunnel_v4[31:0];
            headers.outer_ipv4.destination = meta.target[31:0];
        } else {
            headers.outer_ipv6.setValid();
            headers.outer_ipv6.version = 6;
            headers.outer_ipv6.traffic_class = tos;
            headers.outer_ipv6.flow_label = 0;
            headers.outer_ipv6.length = meta.ip_length;
            headers.outer_ipv6.next = inner;
            headers.outer_ipv6.hop_limit = 64;
            headers.outer_ipv6.source = meta.tunnel_v6;
            headers.outer_ipv6.destination = meta.target;
        }
        if (headers.inner_vlan.isValid()) {
            headers.inner_vlan.kind = kind;
        } else if (headers.vlan.isValid()) {
            headers.vlan.kind = kind;
        } else {
            headers.ethernet.kind = kind;
        }
    }
}
#endif
