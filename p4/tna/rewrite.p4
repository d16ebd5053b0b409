// What is written into a packet that goes on, all of it in one stage: nothing here waits for something else here.
#ifndef STICKLEBACK_REWRITE
#define STICKLEBACK_REWRITE

#include "packet.p4"

// Destination NAT and its reverse. The deparser makes the checksums, of what the parser took off them and what stands there now.
control Translate(inout headers_t headers, inout meta_t meta) {
    action to_v4() {
        headers.ipv4.destination = meta.target[31:0];
    }

    action to_v6() {
        headers.ipv6.destination = meta.target;
    }

    action from_v4() {
        headers.ipv4.source = meta.target[31:0];
    }

    action from_v6() {
        headers.ipv6.source = meta.target;
    }

    table addresses {
        key = {
            meta.is_reply : exact;
            headers.ipv4.isValid() : exact;
        }
        actions = { to_v4; to_v6; from_v4; from_v6; }
        const entries = {
            (0, true) : to_v4();
            (0, false) : to_v6();
            (1, true) : from_v4();
            (1, false) : from_v6();
        }
    }

    action to_tcp() {
        headers.tcp.destination = meta.target_port;
    }

    action to_udp() {
        headers.udp.destination = meta.target_port;
    }

    action from_tcp() {
        headers.tcp.source = meta.target_port;
    }

    action from_udp() {
        headers.udp.source = meta.target_port;
    }

    table ports {
        key = {
            meta.is_reply : ternary;
            headers.tcp.isValid() : ternary;
            headers.udp.isValid() : ternary;
            meta.target_port : ternary;
        }
        actions = { to_tcp; to_udp; from_tcp; from_udp; NoAction; }
        const default_action = NoAction();
        const entries = {
            // The port stays what it is.
            (_, _, _, 0) : NoAction();
            (0, true, _, _) : to_tcp();
            (0, _, true, _) : to_udp();
            (1, true, _, _) : from_tcp();
            (1, _, true, _) : from_udp();
        }
    }

    apply {
        addresses.apply();
        ports.apply();
    }
}

// One IP packet in another.
control Encapsulate(inout headers_t headers, in meta_t meta) {
    action over_v4(bit<8> protocol) {
        headers.outer_ipv4.setValid();
        headers.outer_ipv4.version = 4;
        headers.outer_ipv4.words = 5;
        headers.outer_ipv4.length = meta.ip_length + 20;
        headers.outer_ipv4.identification = 0;
        headers.outer_ipv4.reserved = 0;
        headers.outer_ipv4.dont_fragment = 1;
        headers.outer_ipv4.more_fragments = 0;
        headers.outer_ipv4.offset = 0;
        headers.outer_ipv4.ttl = 64;
        headers.outer_ipv4.protocol = protocol;
        headers.outer_ipv4.destination = meta.target[31:0];
    }

    action v4_over_v4() {
        over_v4(PROTOCOL_IPIP);
    }

    action v6_over_v4() {
        over_v4(PROTOCOL_IPV6);
    }

    action over_v6(bit<8> next) {
        headers.outer_ipv6.setValid();
        headers.outer_ipv6.version = 6;
        headers.outer_ipv6.flow_label = 0;
        headers.outer_ipv6.length = meta.ip_length;
        headers.outer_ipv6.next = next;
        headers.outer_ipv6.hop_limit = 64;
        headers.outer_ipv6.destination = meta.target;
    }

    action v4_over_v6() {
        over_v6(PROTOCOL_IPIP);
    }

    action v6_over_v6() {
        over_v6(PROTOCOL_IPV6);
    }

    table tunnels {
        key = {
            meta.target[127:32] : ternary @name("target");
            headers.ipv4.isValid() : ternary;
        }
        actions = { v4_over_v4; v6_over_v4; v4_over_v6; v6_over_v6; }
        const default_action = v6_over_v6();
        const entries = {
            (0xffff, true) : v4_over_v4();
            (0xffff, false) : v6_over_v4();
            (_, true) : v4_over_v6();
        }
    }

    apply {
        tunnels.apply();
    }
}

// Classes of traffic, for headers that may come around the packet: before it is known whether they do. An action that writes them beside
// constants cannot move them to where the other version has them.
control Classes(inout headers_t headers) {
    action of_v4() {
        headers.outer_ipv4.tos = headers.ipv4.tos;
        headers.outer_ipv6.traffic_class = headers.ipv4.tos;
    }

    action of_v6() {
        headers.outer_ipv4.tos = headers.ipv6.traffic_class;
        headers.outer_ipv6.traffic_class = headers.ipv6.traffic_class;
    }

    apply {
        if (headers.ipv4.isValid()) {
            of_v4();
        } else {
            of_v6();
        }
    }
}

// What is around the packet: MACs, tags, and the kind of what follows them.
control Frame(inout headers_t headers, in meta_t meta) {
    action untagged(bit<16> kind) {
        headers.ethernet.destination = meta.hop_destination;
        headers.ethernet.source = meta.hop_source;
        headers.ethernet.kind = kind;
        headers.vlan.setInvalid();
        headers.inner_vlan.setInvalid();
    }

    action kept_tag(bit<16> kind) {
        headers.ethernet.destination = meta.hop_destination;
        headers.ethernet.source = meta.hop_source;
        headers.vlan.kind = kind;
    }

    action kept_tags(bit<16> kind) {
        headers.ethernet.destination = meta.hop_destination;
        headers.ethernet.source = meta.hop_source;
        headers.inner_vlan.kind = kind;
    }

    action tagged(bit<16> kind) {
        headers.ethernet.destination = meta.hop_destination;
        headers.ethernet.source = meta.hop_source;
        headers.ethernet.kind = ETHERTYPE_VLAN;
        headers.vlan.setValid();
        headers.vlan.priority = 0;
        headers.vlan.eligible = 0;
        headers.vlan.id = meta.hop_vlan[11:0];
        headers.vlan.kind = kind;
        headers.inner_vlan.setInvalid();
    }

// Tags that stay; none; one.
#define TAGS(mode, target, is_v4, kind) \
    (mode, target, is_v4, VLAN_KEEP, false, _) : untagged(kind); \
    (mode, target, is_v4, VLAN_KEEP, true, false) : kept_tag(kind); \
    (mode, target, is_v4, VLAN_KEEP, true, true) : kept_tags(kind); \
    (mode, target, is_v4, VLAN_NONE, _, _) : untagged(kind); \
    (mode, target, is_v4, _, _, _) : tagged(kind);

    table tags {
        key = {
            meta.mode : ternary;
            meta.target[127:32] : ternary @name("target");
            headers.ipv4.isValid() : ternary;
            meta.hop_vlan : ternary;
            headers.vlan.isValid() : ternary;
            headers.inner_vlan.isValid() : ternary;
        }
        actions = { untagged; kept_tag; kept_tags; tagged; NoAction; }
        const default_action = NoAction();
        const entries = {
            TAGS(MODE_IPIP, 0xffff, _, ETHERTYPE_IPV4)
            TAGS(MODE_IPIP, _, _, ETHERTYPE_IPV6)
            TAGS(_, _, true, ETHERTYPE_IPV4)
            TAGS(_, _, false, ETHERTYPE_IPV6)
        }
    }

    apply {
        tags.apply();
    }
}

// One hop more.
control Age(inout headers_t headers) {
    apply {
        if (headers.ipv4.isValid()) {
            headers.ipv4.ttl = headers.ipv4.ttl - 1;
        } else {
            headers.ipv6.hop_limit = headers.ipv6.hop_limit - 1;
        }
    }
}

// What ingress tells egress of a packet that goes on.
control Bridge(inout headers_t headers, in meta_t meta) {
    action request(bit<1> is_nat, bit<1> opens) {
        headers.bridge.setValid();
        headers.bridge.service_slot = meta.service_slot;
        headers.bridge.backend = meta.backend;
        headers.bridge.is_express = 0;
        headers.bridge.is_reply = 0;
        headers.bridge.is_nat = is_nat;
        headers.bridge.opens = opens;
    }

    action reply(bit<1> is_nat) {
        headers.bridge.setValid();
        headers.bridge.service_slot = meta.service_slot;
        headers.bridge.backend = meta.sender;
        headers.bridge.is_express = 0;
        headers.bridge.is_reply = 1;
        headers.bridge.is_nat = is_nat;
        headers.bridge.opens = 0;
    }

    // The slot is there already.
    action express(bit<1> is_reply) {
        headers.bridge.setValid();
        headers.bridge.is_express = 1;
        headers.bridge.is_reply = is_reply;
        headers.bridge.is_nat = 0;
        headers.bridge.opens = 0;
    }

    table bridges {
        key = {
            meta.is_express : ternary;
            meta.from_backend : ternary;
            meta.is_reply : ternary;
            meta.mode : ternary;
            meta.opens : ternary;
        }
        actions = { request; reply; express; }
        const default_action = request(0, 0);
        const entries = {
            (1, 0, _, _, _) : express(0);
            (1, 1, _, _, _) : express(1);
            (_, _, 0, MODE_NAT, 0) : request(1, 0);
            (_, _, 0, MODE_NAT, 1) : request(1, 1);
            (_, _, 0, _, 1) : request(0, 1);
            (_, _, 1, MODE_NAT, _) : reply(1);
            (_, _, 1, _, _) : reply(0);
        }
    }

    apply {
        bridges.apply();
    }
}

// An answer to an echo request to a VIP.
control Echo(inout headers_t headers, inout meta_t meta) {
    action answer_v4() {
        mac_t mac = headers.ethernet.source;
        headers.ethernet.source = headers.ethernet.destination;
        headers.ethernet.destination = mac;
        bit<32> address = headers.ipv4.source;
        headers.ipv4.source = headers.ipv4.destination;
        headers.ipv4.destination = address;
        headers.ipv4.ttl = 64;
        headers.icmp.kind = 0;
    }

    action answer_v6() {
        mac_t mac = headers.ethernet.source;
        headers.ethernet.source = headers.ethernet.destination;
        headers.ethernet.destination = mac;
        address_t address = headers.ipv6.source;
        headers.ipv6.source = headers.ipv6.destination;
        headers.ipv6.destination = address;
        headers.ipv6.hop_limit = 64;
        headers.icmp.kind = 129;
    }

    table echo {
        key = {
            meta.is_vip : exact;
            meta.quotes : exact;
            meta.protocol : exact;
            headers.icmp.kind : exact;
        }
        actions = { answer_v4; answer_v6; NoAction; }
        const default_action = NoAction();
        const entries = {
            (1, 0, PROTOCOL_ICMP, ECHO_V4) : answer_v4();
            (1, 0, PROTOCOL_ICMPV6, ECHO_V6) : answer_v6();
        }
    }

    apply {
        echo.apply();
    }
}
#endif
