// What becomes of a packet, and how it is counted: once, in one table, whose entries stand in the order in which XDP asks the same.
#ifndef STICKLEBACK_FATE
#define STICKLEBACK_FATE

#include "packet.p4"

// The digest of ingress.
const DigestType_t TELLS = 1;
const bit<3> DROPPED = 1;
// An ICMP error is parsed twice: for itself, and for what it quotes.
const ResubmitType_t AGAIN = 1;

const bit<8> GREEN = 0;
const bit<96> MAPPED_BEGIN = 0xffff;

// Columns of the table, by what they are about.
#define READ(parser_err, is_multicast, is_ip, is_too_deep, is_malformed, is_wrong) \
    parser_err, is_multicast, is_ip, is_too_deep, is_malformed, is_wrong
#define SPECIAL(is_ours, is_vip, has_options, is_error, comes_again) \
    is_ours, _, is_vip, _, _, _, _, _, _, _, has_options, is_error, comes_again, _
#define KIND(is_ours, is_reply, is_vip, quotes, is_first, is_later, is_cut, protocol, kind, is_nobodys) \
    is_ours, is_reply, is_vip, quotes, is_first, is_later, is_cut, protocol, kind, is_nobodys, _, _, _, _
#define SERVICE(mode, affinity, serves, ttl) mode, affinity, serves, ttl
#define WAY(has_hop, target, room, room_v4) has_hop, target, room, room_v4
#define NEWS(binds, colour, note) binds, colour, note
#define ANY_READ _, _, _, _, _, _
#define ANY_KIND _, _, _, _, _, _, _, _, _, _, _, _, _, _
#define EXPRESS _, _, _, _, _, _, 0, _, _, _, _, _, _, 1
#define ANY_SERVICE _, _, _, _
#define ANY_WAY _, _, _, _
#define ANY_NEWS _, _, _

// What is told of a packet that goes on, and what is counted.
#define GOES(service, way) \
    (ANY_READ, ANY_KIND, service, way, NEWS(1, GREEN, OUTCOME_PAYLOAD_SHORT)) : tell_noted(OUTCOME_PAYLOAD_SHORT); \
    (ANY_READ, ANY_KIND, service, way, NEWS(1, GREEN, OUTCOME_QUIC_UNROUTABLE)) : tell_noted(OUTCOME_QUIC_UNROUTABLE); \
    (ANY_READ, ANY_KIND, service, way, NEWS(1, GREEN, _)) : tell(); \
    (ANY_READ, ANY_KIND, service, way, NEWS(1, _, _)) : go_noted(OUTCOME_BINDING_RATE); \
    (ANY_READ, ANY_KIND, service, way, NEWS(_, _, OUTCOME_PAYLOAD_SHORT)) : go_noted(OUTCOME_PAYLOAD_SHORT); \
    (ANY_READ, ANY_KIND, service, way, NEWS(_, _, OUTCOME_QUIC_UNROUTABLE)) : go_noted(OUTCOME_QUIC_UNROUTABLE); \
    (ANY_READ, ANY_KIND, service, way, NEWS(_, _, OUTCOME_SERVER_DOWN)) : go_noted(OUTCOME_SERVER_DOWN); \
    (ANY_READ, ANY_KIND, service, way, ANY_NEWS) : go();

control Fate(in headers_t headers, inout meta_t meta, in ingress_intrinsic_metadata_t intrinsic,
             in ingress_intrinsic_metadata_from_parser_t parsed, inout ingress_intrinsic_metadata_for_deparser_t deparsed, inout ingress_intrinsic_metadata_for_tm_t traffic) {
    @name(NAME_OUTCOMES) Counter<bit<32>, bit<8>>(SIZE_OUTCOMES, CounterType_t.PACKETS) outcomes;

    // To whoever listens at the CPU port, as it came; that of nobody drops it.
    action pass(bit<8> outcome) {
        outcomes.count(outcome);
        traffic.ucast_egress_port = meta.cpu_port;
        traffic.bypass_egress = 1;
    }

    action lose(bit<8> outcome) {
        outcomes.count(outcome);
        deparsed.drop_ctl = DROPPED;
    }

    action answer(bit<8> outcome) {
        outcomes.count(outcome);
        traffic.ucast_egress_port = intrinsic.ingress_port;
        traffic.bypass_egress = 1;
    }

    action again() {
        deparsed.resubmit_type = AGAIN;
    }

    action go() {
        traffic.ucast_egress_port = meta.hop_port;
    }

    action go_noted(bit<8> outcome) {
        outcomes.count(outcome);
        traffic.ucast_egress_port = meta.hop_port;
    }

    action tell() {
        deparsed.digest_type = TELLS;
        traffic.ucast_egress_port = meta.hop_port;
    }

    action tell_noted(bit<8> outcome) {
        outcomes.count(outcome);
        deparsed.digest_type = TELLS;
        traffic.ucast_egress_port = meta.hop_port;
    }

    table fate {
        key = {
            // What was read.
            parsed.parser_err : ternary;
            headers.ethernet.destination[40:40] : ternary @name("multicast");
            meta.is_ip : ternary;
            meta.is_too_deep : ternary;
            meta.is_malformed : ternary;
            meta.is_wrong : ternary;
            // What it is.
            meta.is_ours : ternary;
            meta.is_reply : ternary;
            meta.is_vip : ternary;
            meta.quotes : ternary;
            meta.is_first : ternary;
            meta.is_later : ternary;
            meta.is_cut : ternary;
            meta.protocol : ternary;
            headers.icmp.kind : ternary;
            meta.is_nobodys : ternary;
            meta.has_options : ternary;
            meta.is_error : ternary;
            intrinsic.resubmit_flag : ternary @name("comes_again");
            meta.is_express : ternary;
            // Whose it is.
            meta.mode : ternary;
            meta.affinity : ternary;
            meta.serves : ternary;
            meta.ttl : ternary;
            // Where it would go.
            meta.has_hop : ternary;
            meta.target[127:32] : ternary @name("target");
            meta.room : ternary;
            meta.room_v4 : ternary;
            // What is told of it.
            meta.binds : ternary;
            meta.colour : ternary;
            meta.note : ternary;
        }
        actions = { pass; lose; answer; again; go; go_noted; tell; tell_noted; }
        const default_action = lose(OUTCOME_MALFORMED);
        const entries = {
            // An error that is read again because of what it quotes goes where that is served, or nowhere.
            (ANY_READ, SPECIAL(0, _, _, _, 1), ANY_SERVICE, ANY_WAY, ANY_NEWS) : lose(OUTCOME_ICMP_IGNORED);
            // Headers that are not there as a whole.
            (READ(PARSER_ERROR_PARTIAL_HDR &&& PARSER_ERROR_PARTIAL_HDR, _, _, _, _, _), ANY_KIND, ANY_SERVICE, ANY_WAY, ANY_NEWS) : lose(OUTCOME_MALFORMED);
            (READ(_, 1, _, _, _, _), ANY_KIND, ANY_SERVICE, ANY_WAY, ANY_NEWS) : pass(OUTCOME_NOT_OURS);
            (READ(_, _, 0, 1, _, _), ANY_KIND, ANY_SERVICE, ANY_WAY, ANY_NEWS) : lose(OUTCOME_TOO_DEEP);
            (READ(_, _, 0, _, _, _), ANY_KIND, ANY_SERVICE, ANY_WAY, ANY_NEWS) : pass(OUTCOME_NOT_IP);
            (READ(_, _, _, _, 1, _), ANY_KIND, ANY_SERVICE, ANY_WAY, ANY_NEWS) : lose(OUTCOME_MALFORMED);
            (READ(_, _, _, _, _, true), ANY_KIND, ANY_SERVICE, ANY_WAY, ANY_NEWS) : lose(OUTCOME_MALFORMED);
            (READ(_, _, _, 1, _, _), ANY_KIND, ANY_SERVICE, ANY_WAY, ANY_NEWS) : lose(OUTCOME_TOO_DEEP);

            // What goes by the switch alone is asked nothing more.
            (ANY_READ, EXPRESS, ANY_SERVICE, ANY_WAY, ANY_NEWS) : go();

            // What no parser of this target can follow, and what it follows when it comes again.
            (ANY_READ, SPECIAL(_, 1, 1, _, _), ANY_SERVICE, ANY_WAY, ANY_NEWS) : lose(OUTCOME_TOO_DEEP);
            (ANY_READ, SPECIAL(_, 1, _, 1, _), ANY_SERVICE, ANY_WAY, ANY_NEWS) : again();

            // Nobody's session.
            (ANY_READ, KIND(0, 0, 0, _, _, _, _, _, _, _), ANY_SERVICE, ANY_WAY, ANY_NEWS) : pass(OUTCOME_NOT_OURS);
            (ANY_READ, KIND(0, 0, 1, _, _, 1, _, _, _, _), ANY_SERVICE, ANY_WAY, ANY_NEWS) : lose(OUTCOME_FRAGMENT);
            (ANY_READ, KIND(0, 0, 1, _, 1, _, _, PROTOCOL_ICMP, _, _), ANY_SERVICE, ANY_WAY, ANY_NEWS) : lose(OUTCOME_FRAGMENT);
            (ANY_READ, KIND(0, 0, 1, _, 1, _, _, PROTOCOL_ICMPV6, _, _), ANY_SERVICE, ANY_WAY, ANY_NEWS) : lose(OUTCOME_FRAGMENT);
            (ANY_READ, KIND(0, 0, 1, _, _, _, 1, _, _, _), ANY_SERVICE, ANY_WAY, ANY_NEWS) : lose(OUTCOME_MALFORMED);
            (ANY_READ, KIND(0, 0, 1, 1, _, _, _, _, _, _), ANY_SERVICE, ANY_WAY, ANY_NEWS) : lose(OUTCOME_ICMP_IGNORED);
            (ANY_READ, KIND(0, 0, 1, 0, _, _, _, PROTOCOL_ICMP, ECHO_V4, 1), ANY_SERVICE, ANY_WAY, ANY_NEWS) : lose(OUTCOME_MALFORMED);
            (ANY_READ, KIND(0, 0, 1, 0, _, _, _, PROTOCOL_ICMPV6, ECHO_V6, 1), ANY_SERVICE, ANY_WAY, ANY_NEWS) : lose(OUTCOME_MALFORMED);
            (ANY_READ, KIND(0, 0, 1, 0, _, _, _, PROTOCOL_ICMP, ECHO_V4, 0), ANY_SERVICE, ANY_WAY, ANY_NEWS) : answer(OUTCOME_ECHO_ANSWERED);
            (ANY_READ, KIND(0, 0, 1, 0, _, _, _, PROTOCOL_ICMPV6, ECHO_V6, 0), ANY_SERVICE, ANY_WAY, ANY_NEWS) : answer(OUTCOME_ECHO_ANSWERED);
            // Neighbours and routers.
            (ANY_READ, KIND(0, 0, 1, 0, _, _, _, PROTOCOL_ICMPV6, 133, _), ANY_SERVICE, ANY_WAY, ANY_NEWS) : pass(OUTCOME_NOT_OURS);
            (ANY_READ, KIND(0, 0, 1, 0, _, _, _, PROTOCOL_ICMPV6, 134 &&& 0xfe, _), ANY_SERVICE, ANY_WAY, ANY_NEWS) : pass(OUTCOME_NOT_OURS);
            (ANY_READ, KIND(0, 0, 1, 0, _, _, _, PROTOCOL_ICMPV6, 136 &&& 0xfe, _), ANY_SERVICE, ANY_WAY, ANY_NEWS) : pass(OUTCOME_NOT_OURS);
            (ANY_READ, KIND(0, 0, 1, 0, _, _, _, PROTOCOL_ICMP, _, _), ANY_SERVICE, ANY_WAY, ANY_NEWS) : lose(OUTCOME_ICMP_IGNORED);
            (ANY_READ, KIND(0, 0, 1, 0, _, _, _, PROTOCOL_ICMPV6, _, _), ANY_SERVICE, ANY_WAY, ANY_NEWS) : lose(OUTCOME_ICMP_IGNORED);
            (ANY_READ, KIND(0, 0, 1, _, _, _, _, _, _, _), ANY_SERVICE, ANY_WAY, ANY_NEWS) : pass(OUTCOME_NOT_OURS);

            // Somebody's, but it cannot go on.
            (ANY_READ, KIND(_, _, _, _, _, _, 1, _, _, _), ANY_SERVICE, ANY_WAY, ANY_NEWS) : lose(OUTCOME_MALFORMED);
            // What an error quotes is not translated here.
            (ANY_READ, KIND(_, _, _, 1, _, _, _, _, _, _), SERVICE(MODE_NAT, _, _, _), ANY_WAY, ANY_NEWS) : lose(OUTCOME_ICMP_IGNORED);
            (ANY_READ, KIND(_, _, _, _, _, 1, _, _, _, _), SERVICE(MODE_NAT, _, _, _), ANY_WAY, ANY_NEWS) : lose(OUTCOME_FRAGMENT);
            (ANY_READ, KIND(_, _, _, _, _, 1, _, _, _, _), SERVICE(_, AFFINITY_NONE, _, _), ANY_WAY, ANY_NEWS) : lose(OUTCOME_FRAGMENT);
            (ANY_READ, KIND(_, _, _, _, _, 1, _, _, _, _), SERVICE(_, AFFINITY_PAYLOAD, _, _), ANY_WAY, ANY_NEWS) : lose(OUTCOME_FRAGMENT);
            (ANY_READ, KIND(_, _, _, _, _, 1, _, _, _, _), SERVICE(_, AFFINITY_QUIC_CID, _, _), ANY_WAY, ANY_NEWS) : lose(OUTCOME_FRAGMENT);
            (ANY_READ, KIND(1, 0, _, _, _, _, _, _, _, _), SERVICE(_, _, 0, _), ANY_WAY, ANY_NEWS) : lose(OUTCOME_NO_BACKEND);
            (ANY_READ, ANY_KIND, SERVICE(_, _, _, 0 &&& 0xfe), ANY_WAY, ANY_NEWS) : lose(OUTCOME_HOP_LIMIT);
            (ANY_READ, KIND(_, 1, _, _, _, _, _, _, _, _), SERVICE(MODE_L2, _, _, _), WAY(0, _, _, _), ANY_NEWS) : pass(OUTCOME_NOT_OURS);
            (ANY_READ, ANY_KIND, ANY_SERVICE, WAY(0, _, _, _), ANY_NEWS) : lose(OUTCOME_NO_HOP);
            (ANY_READ, ANY_KIND, ANY_SERVICE, WAY(1, MAPPED_BEGIN, _, 0), ANY_NEWS) : lose(OUTCOME_NO_ROOM);
            GOES(SERVICE(MODE_IPIP, _, _, _), WAY(1, MAPPED_BEGIN, _, _))
            (ANY_READ, ANY_KIND, ANY_SERVICE, WAY(1, _, 0, _), ANY_NEWS) : lose(OUTCOME_NO_ROOM);
            GOES(ANY_SERVICE, WAY(1, _, _, _))
        }
    }

    apply {
        fate.apply();
    }
}
#endif
