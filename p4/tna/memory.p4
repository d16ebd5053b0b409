// What the switch notes of flows by itself, and what it makes of it: is there something new to tell lbd?
#ifndef STICKLEBACK_MEMORY
#define STICKLEBACK_MEMORY

#include "packet.p4"

// So many units before the clock begins that nothing is taken for seen in the last minute.
const bit<16> LONG_AGO = 0xfff0;

// When a packet of a flow was last seen, by a hash of the flow; both directions are one flow. In units of 2^32 nanoseconds, of which the
// 16 bits that are kept pass zero after 78 hours: once in that time a flow of long ago, or one never seen, may be taken for one of now.
control Doorkeeper(in ingress_intrinsic_metadata_from_parser_t parsed, inout meta_t meta) {
    // What was never seen is so old from the first moment of the clock on.
    @name(NAME_DOORKEEPER) Register<bit<16>, bit<16>>(SIZE_DOORKEEPER, LONG_AGO) seen;
    Hash<bit<16>>(HashAlgorithm_t.CRC16) of_request;
    Hash<bit<16>>(HashAlgorithm_t.CRC16) of_reply;

    RegisterAction<bit<16>, bit<16>, bit<16>>(seen) meet = {
        void apply(inout bit<16> when, out bit<16> before) {
            before = when;
            when = meta.now;
        }
    };

    RegisterAction<bit<16>, bit<16>, bit<16>>(seen) ask = {
        void apply(inout bit<16> when, out bit<16> before) {
            before = when;
        }
    };

    action request() {
        meta.flow = of_request.get({ meta.source, meta.destination, meta.source_port, meta.destination_port, meta.protocol });
        meta.now = parsed.global_tstamp[47:32];
    }

    action reply() {
        meta.flow = of_reply.get({ meta.destination, meta.target, meta.destination_port, meta.target_port, meta.protocol });
        meta.now = parsed.global_tstamp[47:32];
    }

    action meets() {
        meta.age = meet.execute(meta.flow);
    }

    action asks() {
        meta.age = ask.execute(meta.flow);
    }

    apply {
        if (meta.is_reply == 1) {
            reply();
        } else {
            request();
        }
        if (meta.protocol == PROTOCOL_UDP && meta.has_ports == 1 && meta.is_named == 0) {
            // In `nat` a reply makes the flow known, and the client's next packet binds; elsewhere the client's own packet does.
            if (meta.is_reply == 1) {
                meets();
            } else if (meta.is_ours == 1) {
                if (meta.mode == MODE_NAT) {
                    asks();
                } else {
                    meets();
                }
            }
        }
        meta.age = meta.now - meta.age;
    }
}

// A session is bound when its client is known to be there: by what the backend answers in `nat`, else by going on.
control News(in headers_t headers, inout meta_t meta) {
    @name(NAME_RATES) Meter<bit<16>>(SIZE_SERVICE_COUNTERS, MeterType_t.PACKETS) rates;

    action binds() {
        meta.binds = 1;
    }

    action opens() {
        meta.opens = 1;
    }

    table news {
        key = {
            meta.has_ports : ternary;
            meta.has_session : ternary;
            meta.is_named : ternary;
            meta.leads : ternary;
            meta.is_bound : ternary;
            meta.is_reply : ternary;
            meta.mode : ternary;
            meta.protocol : ternary;
            headers.tcp.flags : ternary;
            meta.age : ternary;
        }
        actions = { binds; opens; NoAction; }
        const default_action = NoAction();
        const entries = {
            // Errors and later fragments.
            (0, _, _, _, _, _, _, _, _, _) : NoAction();
            (1, _, _, _, _, 0, _, PROTOCOL_TCP, TCP_SYN &&& (TCP_SYN | TCP_ACK | TCP_RST), _) : opens();
            (1, _, _, _, _, _, _, PROTOCOL_TCP, TCP_SYN &&& TCP_SYN, _) : NoAction();
            (1, _, _, _, _, _, _, PROTOCOL_TCP, TCP_RST &&& TCP_RST, _) : NoAction();
            (1, 1, 0, 0, 0, 1, _, PROTOCOL_TCP, _, _) : binds();
            (1, 1, 0, 0, 0, 0, MODE_L2, PROTOCOL_TCP, _, _) : binds();
            (1, 1, 0, 0, 0, 0, MODE_IPIP, PROTOCOL_TCP, _, _) : binds();
            // Seen in the last minute.
            (1, 1, 0, 0, 0, 0, _, PROTOCOL_UDP, _, 0 &&& 0xfff0) : binds();
            (1, 0, 0, 0, 0, 0, _, PROTOCOL_UDP, _, 0 &&& 0xfff0) : NoAction();
            (1, _, 0, 0, 0, 0, _, PROTOCOL_UDP, _, _) : opens();
        }
    }

    apply {
        news.apply();
        // What goes by the switch alone binds nothing.
        if (meta.binds == 1 && meta.is_express == 0) {
            meta.colour = rates.execute(meta.service_slot);
        }
    }
}
#endif
