// Stickleback's fast path for bmv2 (v1model): what docs/datapath.md says, as far as p4/README.md says so.
#include <core.p4>
#include <v1model.p4>

#define IDLE_TIMEOUT support_timeout = true;
#define IN_TCAM
#define TUNNELS(v4, v6) meta.tunnel_v4 = v4; meta.tunnel_v6 = v6
#define ROOM(mtu) meta.hop_mtu = mtu

#include "packet.p4"
#include "parser.p4"
#include "steps.p4"
#include "checksum.p4"
#include "timestamps.p4"
#include "memory.p4"
#include "express.p4"
#include "rewrite.p4"

parser Reading(packet_in packet, out headers_t headers, inout meta_t meta, inout standard_metadata_t standard) {
    Frame() frame;

    state start {
        frame.apply(packet, headers, meta);
        transition accept;
    }
}

control NothingVerified(inout headers_t headers, inout meta_t meta) {
    apply {}
}

// Answers an echo request to a VIP.
control Echo(inout headers_t headers, inout meta_t meta, inout standard_metadata_t standard) {
    Adjust() adjust_ip;
    Adjust() adjust_icmp;

    apply {
        bit<32> difference = 0;
        bit<16> before = headers.icmp.kind ++ headers.icmp.code;
        mac_t mac = headers.ethernet.source;
        headers.ethernet.source = headers.ethernet.destination;
        headers.ethernet.destination = mac;
        if (headers.ipv4.isValid()) {
            headers.icmp.kind = 0;
            bit<32> address = headers.ipv4.source;
            headers.ipv4.source = headers.ipv4.destination;
            headers.ipv4.destination = address;
            REPLACE16(difference, headers.ipv4.ttl ++ headers.ipv4.protocol, 8w64 ++ headers.ipv4.protocol);
            headers.ipv4.ttl = 64;
            adjust_ip.apply(headers.ipv4.checksum, difference);
        } else {
            headers.icmp.kind = 129;
            bit<128> address = headers.ipv6.source;
            headers.ipv6.source = headers.ipv6.destination;
            headers.ipv6.destination = address;
            headers.ipv6.hop_limit = 64;
        }
        difference = 0;
        REPLACE16(difference, before, headers.icmp.kind ++ headers.icmp.code);
        adjust_icmp.apply(headers.icmp.checksum, difference);
        if (headers.icmp.checksum == 0) {
            headers.icmp.checksum = 0xffff;
        }
        standard.egress_spec = standard.ingress_port;
    }
}

control Forwarding(inout headers_t headers, inout meta_t meta, inout standard_metadata_t standard) {
    Node() node;
    Now() now;
    Marked() marked;
    Stamp() stamp;
    Express() express;
    Whose() whose;
    Session() session;
    Bound() bound;
    Chosen() chosen;
    Way() way;
    Echo() echo;
    Doorkeeper() doorkeeper;
    Trains() trains;
    Translate() translate;
    TranslateQuoted() translate_quoted;
    Encapsulate() encapsulate;
    Adjust() adjust_ttl;

    @name(NAME_SERVICE_PACKETS) counter(SIZE_SERVICE_COUNTERS, CounterType.packets_and_bytes) service_packets;
    @name(NAME_SERVICE_REPLIES) counter(SIZE_SERVICE_COUNTERS, CounterType.packets_and_bytes) service_replies;
    @name(NAME_SERVICE_CONNECTIONS) counter(SIZE_SERVICE_COUNTERS, CounterType.packets) service_connections;
    @name(NAME_BACKEND_PACKETS) counter(SIZE_BACKENDS, CounterType.packets_and_bytes) backend_packets;
    @name(NAME_BACKEND_REPLIES) counter(SIZE_BACKENDS, CounterType.packets_and_bytes) backend_replies;
    @name(NAME_BACKEND_CONNECTIONS) counter(SIZE_BACKENDS, CounterType.packets) backend_connections;
    @name(NAME_OUTCOMES) counter(SIZE_OUTCOMES, CounterType.packets) outcomes;
    // New bindings that are told of, a second, by service.
    @name(NAME_RATES) meter(SIZE_SERVICE_COUNTERS, MeterType.packets) rates;
    apply {
        bit<1> opens = 0;
        bit<1> is_known = 0;
        node.apply(meta);
        now.apply(meta, standard.ingress_global_timestamp);
        if (headers.ethernet.destination[40:40] == 1) {
            END(OUTCOME_NOT_OURS);
        } else if (meta.is_ip == 0 && meta.is_too_deep == 1) {
            END(OUTCOME_TOO_DEEP);
            meta.is_lost = 1;
        } else if (meta.is_ip == 0 && standard.parser_error != error.NoError
                && ((headers.inner_vlan.isValid() && (headers.inner_vlan.kind == ETHERTYPE_IPV4 || headers.inner_vlan.kind == ETHERTYPE_IPV6))
                    || (headers.vlan.isValid() && (headers.vlan.kind == ETHERTYPE_IPV4 || headers.vlan.kind == ETHERTYPE_IPV6))
                    || headers.ethernet.kind == ETHERTYPE_IPV4 || headers.ethernet.kind == ETHERTYPE_IPV6)) {
            END(OUTCOME_MALFORMED);
            meta.is_lost = 1;
        } else if (meta.is_ip == 0) {
            END(OUTCOME_NOT_IP);
        } else {
            bit<32> around = 14;
            if (headers.vlan.isValid()) {
                around = 18;
            }
            if (headers.inner_vlan.isValid()) {
                around = 22;
            }
            bit<16> rest = meta.ip_length - meta.before;
            if (headers.icmp.isValid()) {
                if (rest < ICMP_HEADER) {
                    meta.is_cut = 1;
                } else if (headers.quoted_ports.isValid()) {
                    bit<16> quoted = rest - meta.quoted_left;
                    if (rest >= quoted + 4
                            && (headers.quoted_ipv4.isValid()
                                || (headers.quoted_ipv6.source[127:32] != MAPPED[127:32]
                                    && headers.quoted_ipv6.destination[127:32] != MAPPED[127:32]))) {
                        meta.quotes = 1;
                    }
                }
            } else if (headers.tcp.isValid()) {
                bit<16> own = (bit<16>)headers.tcp.words << 2;
                if (rest < 20 || own < 20 || own > rest) {
                    meta.is_cut = 1;
                }
            } else if (headers.udp.isValid()) {
                if (rest < 8 || headers.udp.length < 8 || (headers.udp.length > rest && meta.is_first == 0)) {
                    meta.is_cut = 1;
                } else if ((bit<16>)meta.bytes > rest - 8) {
                    // Of a first fragment: what is behind it pads the frame.
                    meta.bytes = (bit<8>)(rest - 8);
                }
            } else if (standard.parser_error != error.NoError) {
                meta.is_cut = 1;
            }
            if (meta.is_malformed == 1
                    || ((meta.protocol == PROTOCOL_TCP || meta.protocol == PROTOCOL_UDP) && meta.is_later == 0 && (meta.has_ports == 0 || rest < 4))
                    || (headers.ipv6.isValid() && (meta.before > meta.ip_length
                        || (standard.parser_error != error.NoError
                            && (meta.protocol == EXTENSION_HOP_BY_HOP || meta.protocol == EXTENSION_ROUTING
                                || meta.protocol == EXTENSION_FRAGMENT || meta.protocol == EXTENSION_DESTINATION))))
                    || (headers.ipv4.isValid() && headers.ipv4.words > 5 && !headers.ipv4_options.isValid())
                    || (headers.ipv6.isValid() && (meta.source[127:32] == MAPPED[127:32] || meta.destination[127:32] == MAPPED[127:32]))
                    || (bit<32>)meta.ip_length + around > standard.packet_length
                    || (headers.ipv4.isValid() && headers.ipv4.length < meta.before)) {
                END(OUTCOME_MALFORMED);
                meta.is_lost = 1;
            } else if (meta.is_too_deep == 1) {
                END(OUTCOME_TOO_DEEP);
                meta.is_lost = 1;
            }
        }
        if (meta.is_decided == 0 && meta.is_later == 1) {
            trains.apply(meta);
        }

        if (meta.is_decided == 0 && headers.tcp.isValid() && meta.is_first == 0 && meta.is_cut == 0) {
            express.apply(headers, meta, standard.ingress_global_timestamp);
        }
        if (meta.is_decided == 0 && meta.is_express == 0) {
            whose.apply(headers, meta);
            if (meta.is_decided == 0 && meta.is_cut == 1) {
                END(OUTCOME_MALFORMED);
                meta.is_lost = 1;
            }
            if (meta.outcome == OUTCOME_ICMP_IGNORED && meta.is_decided == 1) {
                if ((headers.ipv4.isValid() && headers.icmp.isValid() && headers.icmp.kind == 8)
                        || (headers.ipv6.isValid() && headers.icmp.isValid() && headers.icmp.kind == 128)) {
                    if (meta.source[127:32] == MAPPED[127:32]
                            && (meta.source[31:24] == 0 || meta.source[31:24] == 127 || meta.source[31:24] >= 224)
                            || meta.source[127:1] == 0 || meta.source[127:120] == 0xff) {
                        // Nobody to answer.
                        meta.outcome = OUTCOME_MALFORMED;
                        meta.is_lost = 1;
                    } else {
                        meta.outcome = OUTCOME_ECHO_ANSWERED;
                        echo.apply(headers, meta, standard);
                    }
                } else if (headers.ipv6.isValid() && headers.icmp.isValid() && headers.icmp.kind >= 133 && headers.icmp.kind <= 137) {
                    meta.outcome = OUTCOME_NOT_OURS;
                } else {
                    meta.is_lost = 1;
                }
            } else if (meta.outcome == OUTCOME_FRAGMENT && meta.is_decided == 1) {
                meta.is_lost = 1;
            }
        }

        if (meta.is_decided == 0 && meta.is_express == 0) {
            if (meta.is_guided == 0) {
                session.apply(headers, meta);
            }
            marked.apply(headers, meta);
            bound.apply(meta);
            if (meta.has_note == 1) {
                outcomes.count((bit<32>)meta.note);
            }
            if (meta.is_decided == 0 && meta.is_reply == 0 && meta.serves == 0) {
                if (meta.is_bound == 0) {
                    meta.binds = meta.has_session;
                }
                if (meta.has_session == 1) {
                    hash(meta.crc, HashAlgorithm.crc32, 32w0, { meta.session, 8w0 }, 64w0x1_0000_0000);
                } else {
                    hash(meta.crc, HashAlgorithm.crc32, 32w0,
                        { meta.source, meta.destination, meta.source_port, meta.destination_port, meta.protocol }, 64w0x1_0000_0000);
                }
                meta.place = (meta.table_mask + 1) | (meta.crc & meta.table_mask);
                chosen.apply(meta);
            } else if (meta.is_reply == 1 && meta.is_bound == 0) {
                meta.binds = meta.has_session;
            }
        }

        if (meta.is_decided == 0 && meta.is_first == 1) {
            trains.apply(meta);
        }
        if (meta.is_decided == 0 && meta.ttl <= 1) {
            END(OUTCOME_HOP_LIMIT);
            meta.is_lost = 1;
        }
        if (meta.is_decided == 0 && meta.is_express == 0) {
            way.apply(meta);
        }
        if (meta.is_decided == 0) {
            bit<16> added = 0;
            if (meta.mode == MODE_IPIP) {
                added = 40;
                if (meta.target[127:32] == 96w0xffff) {
                    added = 20;
                }
            }
            if (meta.ip_length + added > meta.hop_mtu) {
                END(OUTCOME_NO_ROOM);
                meta.is_lost = 1;
            }
        }

        if (meta.is_decided == 0) {
            // A session is bound when its client is known to be there: by what the backend answers in `nat`, else by going on.
            if (meta.is_error == 1 || meta.is_later == 1) {
                meta.binds = 0;
            } else if (meta.protocol == PROTOCOL_TCP) {
                if ((meta.flags & (TCP_SYN | TCP_RST)) != 0 || (meta.mode == MODE_NAT && meta.is_reply == 0)) {
                    meta.binds = 0;
                }
                if (meta.is_reply == 0 && (meta.flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN) {
                    opens = 1;
                }
            } else if (meta.is_named == 0) {
                // In `nat` a reply makes the flow known, and the client's next packet binds; elsewhere the client's own packet does.
                address_t client = meta.source;
                address_t server = meta.destination;
                bit<16> client_port = meta.source_port;
                bit<16> server_port = meta.destination_port;
                bit<1> meets = 1;
                if (meta.is_reply == 1) {
                    client = meta.destination;
                    server = meta.target;
                    client_port = meta.destination_port;
                    server_port = meta.target_port;
                } else if (meta.mode == MODE_NAT) {
                    meets = 0;
                }
                doorkeeper.apply(client, server, client_port, server_port, meta.protocol, standard.ingress_global_timestamp, meets, is_known);
                if (meta.is_reply == 1) {
                    meta.binds = 0;
                } else {
                    opens = ~is_known & ~meta.is_bound;
                    meta.binds = meta.binds & is_known;
                }
            }
            if (meta.binds == 1) {
                bit<2> colour = 0;
                rates.execute_meter((bit<32>)meta.service_slot, colour);
                if (colour == 0) {
                    binding_t news = { meta.service, meta.session, meta.backend, meta.generation };
                    digest<binding_t>(1, news);
                } else {
                    outcomes.count(OUTCOME_BINDING_RATE);
                }
            }

            // From here on the packet is changed.
            if (meta.mode == MODE_NAT) {
                if (meta.is_error == 1) {
                    translate_quoted.apply(headers, meta);
                } else {
                    translate.apply(headers, meta);
                    stamp.apply(headers, meta);
                }
            }
            if (headers.ipv4.isValid()) {
                bit<32> difference = 0;
                REPLACE16(difference, headers.ipv4.ttl ++ headers.ipv4.protocol, (headers.ipv4.ttl - 1) ++ headers.ipv4.protocol);
                headers.ipv4.ttl = headers.ipv4.ttl - 1;
                adjust_ttl.apply(headers.ipv4.checksum, difference);
            } else {
                headers.ipv6.hop_limit = headers.ipv6.hop_limit - 1;
            }
            headers.ethernet.destination = meta.hop_destination;
            headers.ethernet.source = meta.hop_source;
            if (meta.hop_vlan != VLAN_KEEP && headers.inner_vlan.isValid()) {
                headers.vlan.kind = headers.inner_vlan.kind;
                headers.inner_vlan.setInvalid();
            }
            if (meta.hop_vlan == VLAN_NONE && headers.vlan.isValid()) {
                headers.ethernet.kind = headers.vlan.kind;
                headers.vlan.setInvalid();
            } else if (meta.hop_vlan != VLAN_NONE && meta.hop_vlan != VLAN_KEEP) {
                if (!headers.vlan.isValid()) {
                    headers.vlan.setValid();
                    headers.vlan.kind = headers.ethernet.kind;
                }
                headers.ethernet.kind = ETHERTYPE_VLAN;
                headers.vlan.priority = 0;
                headers.vlan.eligible = 0;
                headers.vlan.id = meta.hop_vlan[11:0];
            }
            if (meta.mode == MODE_IPIP) {
                encapsulate.apply(headers, meta);
            }
            standard.egress_spec = meta.hop_port;

            if (meta.is_reply == 1) {
                service_replies.count((bit<32>)meta.service_slot);
                if (meta.mode == MODE_NAT) {
                    backend_replies.count((bit<32>)meta.backend);
                }
            } else {
                service_packets.count((bit<32>)meta.service_slot);
                if (meta.is_express == 0) {
                    backend_packets.count((bit<32>)meta.backend);
                }
                if (opens == 1) {
                    service_connections.count((bit<32>)meta.service_slot);
                    backend_connections.count((bit<32>)meta.backend);
                }
            }
        } else {
            outcomes.count((bit<32>)meta.outcome);
            if (meta.outcome != OUTCOME_ECHO_ANSWERED) {
                if (meta.is_lost == 1 || meta.cpu_port == NO_CPU_PORT) {
                    mark_to_drop(standard);
                } else {
                    standard.egress_spec = meta.cpu_port;
                }
            }
        }
    }
}

control Cutting(inout headers_t headers, inout meta_t meta, inout standard_metadata_t standard) {
    apply {
        // What a frame is padded with is no part of the packet that goes into a tunnel.
        if (headers.outer_ipv4.isValid() || headers.outer_ipv6.isValid()) {
            bit<32> length = 14 + (bit<32>)meta.ip_length;
            if (headers.vlan.isValid()) {
                length = length + 4;
            }
            if (headers.inner_vlan.isValid()) {
                length = length + 4;
            }
            if (headers.outer_ipv4.isValid()) {
                length = length + 20;
            } else {
                length = length + 40;
            }
            truncate(length);
        }
    }
}

// The outer header is the switch's own; every other checksum is changed, not made.
control Sum(inout headers_t headers, inout meta_t meta) {
    apply {
        update_checksum(headers.outer_ipv4.isValid(),
            { headers.outer_ipv4.version, headers.outer_ipv4.words, headers.outer_ipv4.tos, headers.outer_ipv4.length,
              headers.outer_ipv4.identification, headers.outer_ipv4.reserved, headers.outer_ipv4.dont_fragment,
              headers.outer_ipv4.more_fragments, headers.outer_ipv4.offset, headers.outer_ipv4.ttl,
              headers.outer_ipv4.protocol, headers.outer_ipv4.source, headers.outer_ipv4.destination },
            headers.outer_ipv4.checksum, HashAlgorithm.csum16);
    }
}

control Writing(packet_out packet, in headers_t headers) {
    apply {
        packet.emit(headers.ethernet);
        packet.emit(headers.vlan);
        packet.emit(headers.inner_vlan);
        packet.emit(headers.outer_ipv4);
        packet.emit(headers.outer_ipv6);
        packet.emit(headers.ipv4);
        packet.emit(headers.ipv4_options);
        packet.emit(headers.ipv6);
        packet.emit(headers.extensions);
        packet.emit(headers.tcp);
        packet.emit(headers.options);
        packet.emit(headers.timestamps);
        packet.emit(headers.udp);
        packet.emit(headers.icmp);
        packet.emit(headers.icmp_word);
        packet.emit(headers.quoted_ipv4);
        packet.emit(headers.quoted_options);
        packet.emit(headers.quoted_ipv6);
        packet.emit(headers.quoted_extensions);
        packet.emit(headers.quoted_ports);
        packet.emit(headers.quoted_tcp);
        packet.emit(headers.quoted_udp);
        packet.emit(headers.payload);
    }
}

V1Switch(Reading(), NothingVerified(), Forwarding(), Cutting(), Sum(), Writing()) main;
