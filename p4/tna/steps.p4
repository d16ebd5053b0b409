// From a packet to a backend and the way to it, or to the way back. Each control begins with tables that stand in p4/shared; the stages that
// they can be in, at the earliest, are said where they are applied (stickleback.p4).
#ifndef STICKLEBACK_STEPS
#define STICKLEBACK_STEPS

#include "packet.p4"

// Memory for keys of any width, of which there is little.
#define IN_TCAM @ternary(1)
// Which backend an echo names.
#define NUMBER meta.ahead[31:24]
// Ages entries of BINDINGS.
#define IDLE_TIMEOUT idle_timeout = true;
// They stand where they are written, in headers that are not there unless there is a tunnel.
#define TUNNELS(v4, v6) headers.outer_ipv4.source = v4[31:0]; headers.outer_ipv6.source = v6
// A difference that stops at 0: no stage compares two fields by their size. What is taken off must be a field.
#define ROOM(mtu) meta.room = mtu |-| meta.needed; meta.room_v4 = mtu |-| meta.needed_v4

control Node(inout headers_t headers, inout meta_t meta) {
#include "../shared/tables/node.p4"

    apply {
        node.apply();
    }
}

// A client's for a service, a backend's for a client, or none of ours. An error is asked for as what it quotes.
control Whose(inout meta_t meta) {
#include "../shared/tables/whose.p4"

    apply {
        if (meta.has_ports == 1 || meta.quotes == 1) {
            if (!services.apply().hit) {
                if (!any_port.apply().hit) {
                    if (!replies.apply().hit) {
                        returns.apply();
                    }
                }
            }
        } else if (meta.is_later == 1) {
            // Without its first one: whose it is, its addresses must say.
            alone.apply();
        }
        if (meta.has_ports == 0) {
            if (vips.apply().hit) {
                meta.is_vip = 1;
            }
        }
    }
}

// The session by the client's address, and how long the packet will be.
control Client(in headers_t headers, inout meta_t meta) {
    action from_v4() {
        meta.session[63:32] = 0;
        meta.session[31:0] = meta.source[31:0] & meta.key_mask[31:0];
        meta.has_session = 1;
    }

    action to_v4() {
        meta.session[63:32] = 0;
        meta.session[31:0] = meta.destination[31:0] & meta.key_mask[31:0];
        meta.has_session = 1;
    }

    action from_v6() {
        meta.session = meta.source[127:64] & meta.key_mask;
        meta.has_session = 1;
    }

    action to_v6() {
        meta.session = meta.destination[127:64] & meta.key_mask;
        meta.has_session = 1;
    }

    // Also where this is but the fallback: what stands in the payload takes its place.
    table clients {
        key = {
            meta.affinity : ternary;
            meta.fallback : ternary;
            meta.is_reply : ternary;
            headers.ipv4.isValid() : ternary;
        }
        actions = { from_v4; to_v4; from_v6; to_v6; NoAction; }
        const default_action = NoAction();
        const entries = {
            (AFFINITY_SOURCE_IP, _, 0, true) : from_v4();
            (AFFINITY_SOURCE_IP, _, 1, true) : to_v4();
            (AFFINITY_SOURCE_IP, _, 0, false) : from_v6();
            (AFFINITY_SOURCE_IP, _, 1, false) : to_v6();
            (AFFINITY_QUIC_CID, AFFINITY_SOURCE_IP, 0, true) : from_v4();
            (AFFINITY_QUIC_CID, AFFINITY_SOURCE_IP, 0, false) : from_v6();
            (AFFINITY_PAYLOAD, AFFINITY_SOURCE_IP, 0, true) : from_v4();
            (AFFINITY_PAYLOAD, AFFINITY_SOURCE_IP, 0, false) : from_v6();
        }
    }

    action plain() {
        meta.needed = meta.ip_length - 1;
        meta.needed_v4 = meta.ip_length - 1;
    }

    action tunnelled() {
        meta.needed = meta.ip_length + 39;
        meta.needed_v4 = meta.ip_length + 19;
    }

    apply {
        clients.apply();
        if (meta.mode == MODE_IPIP) {
            tunnelled();
        } else {
            plain();
        }
        // Where the selection table of this size begins; the slot is added when it is known.
        meta.place = meta.table_mask + 1;
    }
}

// The session that stands in a datagram: a segment of its payload, or the server id of a connection id.
control Datagram(in headers_t headers, inout meta_t meta) {
    action segment(bit<8> shift, bit<64> mask, bit<8> bytes) {
        meta.segment_shift = shift;
        meta.key_mask = mask;
        meta.missing = bytes |-| meta.bytes;
        meta.has_segment = 1;
    }

    action layout(bit<120> mask, bit<8> bytes) {
        meta.server_id = meta.server_id & mask;
        meta.missing = bytes |-| meta.available;
        meta.has_layout = 1;
    }

#include "../shared/tables/session.p4"

    // No stage shifts by what a table says: segments end where a word of the window does.
    action words_4_5() {
        meta.session[63:32] = headers.payload[4].value & meta.key_mask[63:32];
        meta.session[31:0] = headers.payload[5].value & meta.key_mask[31:0];
        meta.has_session = 1;
    }

    action words_3_4() {
        meta.session[63:32] = headers.payload[3].value & meta.key_mask[63:32];
        meta.session[31:0] = headers.payload[4].value & meta.key_mask[31:0];
        meta.has_session = 1;
    }

    action words_2_3() {
        meta.session[63:32] = headers.payload[2].value & meta.key_mask[63:32];
        meta.session[31:0] = headers.payload[3].value & meta.key_mask[31:0];
        meta.has_session = 1;
    }

    action words_1_2() {
        meta.session[63:32] = headers.payload[1].value & meta.key_mask[63:32];
        meta.session[31:0] = headers.payload[2].value & meta.key_mask[31:0];
        meta.has_session = 1;
    }

    action words_0_1() {
        meta.session[63:32] = headers.payload[0].value & meta.key_mask[63:32];
        meta.session[31:0] = headers.payload[1].value & meta.key_mask[31:0];
        meta.has_session = 1;
    }

    action word_0() {
        meta.session[63:32] = 0;
        meta.session[31:0] = headers.payload[0].value & meta.key_mask[31:0];
        meta.has_session = 1;
    }

    action short() {
        meta.note = OUTCOME_PAYLOAD_SHORT;
    }

    action asks() {
        meta.asks = 1;
    }

    table words {
        key = {
            meta.asks : ternary;
            meta.has_segment : ternary;
            meta.segment_shift : ternary;
            meta.missing : ternary;
        }
        actions = { words_4_5; words_3_4; words_2_3; words_1_2; words_0_1; word_0; short; NoAction; }
        const default_action = NoAction();
        const entries = {
            (1, 1, 0, 0) : words_4_5();
            (1, 1, 32, 0) : words_3_4();
            (1, 1, 64, 0) : words_2_3();
            (1, 1, 96, 0) : words_1_2();
            (1, 1, 128, 0) : words_0_1();
            (1, 1, 160, 0) : word_0();
            (1, _, _, _) : short();
        }
    }

    action unroutable() {
        meta.note = OUTCOME_QUIC_UNROUTABLE;
    }

    // While a condition holds for tables of several stages, no other table can stand in the stages between: so each has its own.
    apply {
        // What the backend was told the session by is not quoted by errors.
        if (meta.quotes == 0 && meta.is_reply == 0) {
            if (meta.affinity == AFFINITY_PAYLOAD) {
                asks();
                payloads.apply();
            } else if (meta.affinity == AFFINITY_QUIC_CID) {
                unroutable();
                layouts.apply();
            }
        }
        words.apply();
        if (meta.has_layout == 1 && meta.missing == 0) {
            servers.apply();
        }
        if (meta.is_named == 1) {
            meta.note = 0;
        }
    }
}

// The backend that is bound, that which a timestamp names, and whether the one that counts serves. A packet back is not led by a binding: it keeps
// it from ageing; what is added to its timestamp is that of the backend that it comes from.
control Bound(in headers_t headers, inout meta_t meta) {
#include "../shared/tables/bound.p4"
#include "../shared/tables/timestamps.p4"

    apply {
        if (headers.stamps.isValid() && meta.mode == MODE_NAT && meta.is_reply == 1) {
            stamps.apply();
        }
        if (meta.has_session == 1 && meta.is_named == 0) {
            bindings.apply();
        }
        if (headers.stamps.isValid() && meta.mode == MODE_NAT && meta.is_ours == 1 && meta.echoes == 1) {
            marks.apply();
        }
        if (meta.is_reply == 0 && (meta.is_named == 1 || meta.is_bound == 1)) {
            if (!status.apply().hit) {
                if (meta.is_named == 1) {
                    meta.note = OUTCOME_SERVER_DOWN;
                }
            }
        }
    }
}

// The slot that the session's hash names, of a table that stands behind all smaller ones; and who owns it.
control Slot(inout meta_t meta) {
    // That of the order function: reflected, all ones before and after.
    CRCPolynomial<bit<32>>(32w0x04c11db7, true, false, false, 32w0xffffffff, 32w0xffffffff) polynomial;
    Hash<bit<32>>(HashAlgorithm_t.CUSTOM, polynomial) of_session;
    Hash<bit<32>>(HashAlgorithm_t.CUSTOM, polynomial) of_connection;

    action by_session() {
        meta.crc = of_session.get({ meta.session, 8w0 });
    }

    action by_connection() {
        meta.crc = of_connection.get({ meta.source, meta.destination, meta.source_port, meta.destination_port, meta.protocol });
    }

    action cut() {
        meta.crc = meta.crc & meta.table_mask;
    }

    action place() {
        meta.place = meta.place | meta.crc;
    }

    apply {
        if (meta.has_session == 1 && meta.is_named == 0) {
            by_session();
        } else {
            by_connection();
        }
        cut();
        place();
    }
}

control Chosen(inout meta_t meta) {
#include "../shared/tables/chosen.p4"

    action leads() {
        meta.backend = meta.marked_backend;
        meta.generation = meta.marked_generation;
        meta.serves = 1;
    }

    // The connection's own backend comes before the session's.
    apply {
        if (meta.leads == 1) {
            leads();
        } else if (meta.is_ours == 1 && meta.serves == 0) {
            arena.apply();
        }
    }
}

control Way(inout meta_t meta) {
#include "../shared/tables/way.p4"

    apply {
        if (meta.is_reply == 1) {
            routes.apply();
        } else if (meta.serves == 1) {
            backends.apply();
        }
    }
}
#endif
