// Stickleback's fast path for Tofino (TNA): what v1model/stickleback.p4 does, as far as p4/README.md says so, in twelve stages.
#include <core.p4>
#include <tna.p4>

#include "sizes.p4"
#include "packet.p4"
#include "parser.p4"
#include "shape.p4"
#include "steps.p4"
#include "memory.p4"
#include "timestamps.p4"
#include "express.p4"
#include "fate.p4"
#include "rewrite.p4"

// What is written waits for the way to the backend, that for the backend, that for its binding, and that for the session and the service: the
// numbers are the stages in which each of them stands. What is not waited for stands beside it.
@pa_container_size("ingress", "meta.target", 32, 32, 16, 16, 16, 16)
@pa_container_size("ingress", "meta.session", 32)
@pa_container_size("ingress", "meta.key_mask", 32)
@pa_container_size("ingress", "headers.ipv6.source", 32, 32, 16, 16, 16, 16)
@pa_container_size("ingress", "headers.ipv6.destination", 32, 32, 16, 16, 16, 16)
@pa_container_size("ingress", "headers.ipv4.source", 32)
@pa_container_size("ingress", "headers.ipv4.destination", 32)
@pa_container_size("ingress", "headers.outer_ipv6.destination", 32, 32, 16, 16, 16, 16)
@pa_container_size("ingress", "headers.outer_ipv4.destination", 32)
@pa_container_size("ingress", "headers.payload[0].value", 32)
@pa_container_size("ingress", "headers.payload[1].value", 32)
@pa_container_size("ingress", "headers.payload[2].value", 32)
@pa_container_size("ingress", "headers.payload[3].value", 32)
@pa_container_size("ingress", "headers.payload[4].value", 32)
@pa_container_size("ingress", "headers.payload[5].value", 32)
@pa_container_size("ingress", "headers.udp.source", 16)
@pa_container_size("ingress", "headers.udp.destination", 16)
@pa_container_size("ingress", "headers.udp.length", 16)
@pa_container_size("ingress", "headers.udp.checksum", 16)
@pa_container_size("ingress", "meta.source_port", 16)
@pa_container_size("ingress", "meta.destination_port", 16)
control Forwarding(inout headers_t headers, inout meta_t meta, in ingress_intrinsic_metadata_t intrinsic,
                   in ingress_intrinsic_metadata_from_parser_t parsed, inout ingress_intrinsic_metadata_for_deparser_t deparsed,
                   inout ingress_intrinsic_metadata_for_tm_t traffic) {
    Shape() shape;
    Cut() cut;
    Whose() whose;
    Client() client;
    Datagram() datagram;
    Doorkeeper() doorkeeper;
    Ahead() ahead;
    Offloaded() offloaded;
    Turn() turn;
    Shift() shift;
    Stamp() stamp;
    Bound() bound;
    Slot() slot;
    News() news;
    Chosen() chosen;
    Way() way;
    Node() node;
    Fate() fate;
    Translate() translate;
    Classes() classes;
    Encapsulate() encapsulate;
    Frame() frame;
    Age() age;
    Echo() echo;
    Bridge() bridge;

    apply {
        // 0 to 6
        ahead.apply(headers, meta, parsed);
        // 0 to 4
        node.apply(headers, meta);
        shape.apply(headers, meta);
        classes.apply(headers);
        // 2 to 4
        cut.apply(headers, meta);
        // 1, 2
        if (headers.ethernet.destination[40:40] == 0) {
            whose.apply(meta);
        }
        // 2, 3
        meta.sender = meta.backend;
        client.apply(headers, meta);
        // 3 to 5
        datagram.apply(headers, meta);
        // 2 to 6
        doorkeeper.apply(parsed, meta);
        // 2 to 5, 7 to 9
        offloaded.apply(headers, meta, parsed);
        turn.apply(headers, meta);
        // 5 to 7
        slot.apply(meta);
        // 5 to 8: as much of the bindings as two stages have room for
        bound.apply(headers, meta);
        stamp.apply(headers, meta);
        // 9, 10
        news.apply(headers, meta);
        // 9
        chosen.apply(meta);
        // 10
        shift.apply(headers, meta);
        if (meta.is_express == 0) {
            way.apply(meta);
        }
        // 11
        fate.apply(headers, meta, intrinsic, parsed, deparsed, traffic);
        if (meta.is_express == 0 && meta.has_hop == 0) {
            echo.apply(headers, meta);
        } else {
            if (meta.mode == MODE_NAT && meta.is_express == 0) {
                translate.apply(headers, meta);
            } else if (meta.mode == MODE_IPIP && meta.is_express == 0) {
                encapsulate.apply(headers, meta);
            }
            frame.apply(headers, meta);
            age.apply(headers);
            bridge.apply(headers, meta);
        }
    }
}

// Sums of what stands there now and of what the parser left; each field counts if its header is there.
control Writing(packet_out packet, inout headers_t headers, in meta_t meta,
                in ingress_intrinsic_metadata_for_deparser_t deparsed) {
    Checksum() ip;
    Checksum() outer_ip;
    Checksum() tcp;
    Checksum() udp;
    Checksum() icmp;
    Resubmit(AGAIN) errors;
    @name(".binding_t") Digest<binding_t>(TELLS) bindings;

    apply {
        if (deparsed.resubmit_type == AGAIN) {
            errors.emit();
        }
        if (deparsed.digest_type == TELLS) {
            bindings.pack({ meta.service, meta.session, meta.backend, meta.generation });
        }
        headers.ipv4.checksum = ip.update({
            headers.ipv4.version, headers.ipv4.words, headers.ipv4.tos, headers.ipv4.length, headers.ipv4.identification,
            headers.ipv4.reserved, headers.ipv4.dont_fragment, headers.ipv4.more_fragments, headers.ipv4.offset, headers.ipv4.ttl,
            headers.ipv4.protocol, headers.ipv4.source, headers.ipv4.destination });
        headers.tcp.checksum = tcp.update({ headers.ipv4.source, headers.ipv4.destination, headers.ipv6.source, headers.ipv6.destination,
                                            headers.tcp.source, headers.tcp.destination,
                                            headers.tcp.sequence, headers.tcp.acknowledgement, headers.tcp.window,
                                            headers.stamps.value, headers.stamps.echo, meta.transport_sum });
        if (meta.sums_udp) {
            headers.udp.checksum = udp.update({ headers.ipv4.source, headers.ipv4.destination, headers.ipv6.source, headers.ipv6.destination,
                                                headers.udp.source, headers.udp.destination, meta.transport_sum }, true);
        }
        headers.icmp.checksum = icmp.update({ headers.ipv4.source, headers.ipv4.destination, headers.ipv6.source, headers.ipv6.destination,
                                              headers.icmp.kind, headers.icmp.code, meta.transport_sum }, true);
        headers.outer_ipv4.checksum = outer_ip.update({
            headers.outer_ipv4.version, headers.outer_ipv4.words, headers.outer_ipv4.tos, headers.outer_ipv4.length,
            headers.outer_ipv4.identification, headers.outer_ipv4.reserved, headers.outer_ipv4.dont_fragment,
            headers.outer_ipv4.more_fragments, headers.outer_ipv4.offset, headers.outer_ipv4.ttl, headers.outer_ipv4.protocol,
            headers.outer_ipv4.source, headers.outer_ipv4.destination });
        packet.emit(headers);
    }
}

struct counted_t {
    bridge_h bridge;
}

struct nothing_t {}

parser Leaving(packet_in packet, out counted_t headers, out nothing_t meta, out egress_intrinsic_metadata_t intrinsic) {
    state start {
        packet.extract(intrinsic);
        packet.extract(headers.bridge);
        transition accept;
    }
}

// Packets that go on are counted here, where they come as they leave, so that ingress has its counters' stages for itself.
control Counting(inout counted_t headers, inout nothing_t meta, in egress_intrinsic_metadata_t intrinsic,
                 in egress_intrinsic_metadata_from_parser_t parsed, inout egress_intrinsic_metadata_for_deparser_t deparsed,
                 inout egress_intrinsic_metadata_for_output_port_t port) {
    @name(NAME_SERVICE_PACKETS) Counter<bit<64>, bit<16>>(SIZE_SERVICE_COUNTERS, CounterType_t.PACKETS_AND_BYTES) service_packets;
    @name(NAME_SERVICE_REPLIES) Counter<bit<64>, bit<16>>(SIZE_SERVICE_COUNTERS, CounterType_t.PACKETS_AND_BYTES) service_replies;
    @name(NAME_SERVICE_CONNECTIONS) Counter<bit<32>, bit<16>>(SIZE_SERVICE_COUNTERS, CounterType_t.PACKETS) service_connections;
    @name(NAME_EXPRESS) Counter<bit<64>, bit<16>>(SIZE_SERVICE_COUNTERS, CounterType_t.PACKETS_AND_BYTES) went;
    @name(NAME_BACKEND_PACKETS) Counter<bit<64>, bit<16>>(SIZE_BACKEND_COUNTERS, CounterType_t.PACKETS_AND_BYTES) backend_packets;
    @name(NAME_BACKEND_REPLIES) Counter<bit<64>, bit<16>>(SIZE_BACKEND_COUNTERS, CounterType_t.PACKETS_AND_BYTES) backend_replies;
    @name(NAME_BACKEND_CONNECTIONS) Counter<bit<32>, bit<16>>(SIZE_BACKEND_COUNTERS, CounterType_t.PACKETS) backend_connections;

    apply {
        if (headers.bridge.is_express == 1) {
            went.count(headers.bridge.service_slot, sizeInBytes(headers.bridge));
        }
        if (headers.bridge.is_reply == 1) {
            service_replies.count(headers.bridge.service_slot, sizeInBytes(headers.bridge));
            if (headers.bridge.is_nat == 1) {
                backend_replies.count(headers.bridge.backend, sizeInBytes(headers.bridge));
            }
        } else {
            service_packets.count(headers.bridge.service_slot, sizeInBytes(headers.bridge));
            if (headers.bridge.is_express == 0) {
                backend_packets.count(headers.bridge.backend, sizeInBytes(headers.bridge));
            }
            if (headers.bridge.opens == 1) {
                service_connections.count(headers.bridge.service_slot);
                backend_connections.count(headers.bridge.backend);
            }
        }
    }
}

control Sending(packet_out packet, inout counted_t headers, in nothing_t meta,
                in egress_intrinsic_metadata_for_deparser_t deparsed) {
    apply {}
}

@pa_auto_init_metadata
Pipeline(Reading(), Forwarding(), Writing(), Leaving(), Counting(), Sending()) pipe;
Switch(pipe) main;
