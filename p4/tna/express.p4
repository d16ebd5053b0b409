// Connections of the nodes behind the switch that it goes on with by itself: what goes to the node, and what becomes of the rest
// (v1model/express.p4 does the same).
#ifndef STICKLEBACK_EXPRESS
#define STICKLEBACK_EXPRESS

#include "packet.p4"

const bit<8> TCP_FIN = 0x01;

// What is known of a lane stands in the header of a tunnel: containers are scarce, and no segment has both.
#define LANE_SEQUENCE headers.outer_ipv6.destination[31:0]
#define LANE_ACKNOWLEDGEMENT headers.outer_ipv6.destination[63:32]
#define LANE_PORT headers.outer_ipv6.destination[79:64]
#define LANE_TURN headers.outer_ipv6.destination[95:80]
#define LANE_OWNER headers.outer_ipv6.destination[111:96]
#define LANE_ROOM headers.outer_ipv6.length
#define LANE_LEFT headers.outer_ipv6.next
#define LANE_RIGHT headers.outer_ipv6.hop_limit

// When the answer to what the client asked last began, and of whose connection that is; 0: it has not begun.
struct answer_t {
    bit<16> since;
    bit<16> of;
}

// Whose segment this is, if it can go by the switch at all, and what it says of the connection.
control Offloaded(inout headers_t headers, inout meta_t meta, in ingress_intrinsic_metadata_from_parser_t parsed) {
    action takes() {
        meta.may_pass = 1;
    }

    action ends() {
        meta.ends = 1;
    }

    // What ends also ends it for the next connection of the same addresses and ports, which must not meet the entry of this one. Where frames
    // have tags only the node knows those of the other direction.
    table kinds {
        key = {
            headers.tcp.isValid() : ternary;
            headers.tcp.words : ternary;
            headers.tcp.flags : ternary;
            headers.vlan.isValid() : ternary;
            headers.extension.isValid() : ternary;
            headers.fragment.isValid() : ternary;
            meta.is_first : ternary;
            meta.ttl : ternary;
        }
        actions = { takes; ends; NoAction; }
        const default_action = NoAction();
        const entries = {
            (false, _, _, _, _, _, _, _) : NoAction();
            (_, _, _, true, _, _, _, _) : ends();
            (_, _, TCP_FIN &&& TCP_FIN, _, _, _, _, _) : ends();
            (_, _, TCP_SYN &&& TCP_SYN, _, _, _, _, _) : ends();
            (_, _, TCP_RST &&& TCP_RST, _, _, _, _, _) : ends();
            (_, 5, TCP_ACK &&& TCP_ACK, _, false, false, 0, 0 &&& 0xfe) : NoAction();
            (_, 5, TCP_ACK &&& TCP_ACK, _, false, false, 0, _) : takes();
        }
    }

// Where what the entry says waits until it is known that the segment goes by the switch.
#define now_source headers.outer_ipv6.source
#define now_destination meta.target
#define now_source_port LANE_PORT
#define now_destination_port meta.target_port
#define sequence_ahead LANE_SEQUENCE
#define acknowledgement_ahead LANE_ACKNOWLEDGEMENT
#define window_left LANE_LEFT
#define window_right LANE_RIGHT
#define way_destination meta.hop_destination
#define way_source meta.hop_source
#define way_mtu LANE_ROOM
#define way_port meta.hop_port
#define service_slot headers.bridge.service_slot
#define from_backend meta.from_backend
#define turn LANE_TURN
#define owner LANE_OWNER
#include "../shared/tables/offloaded.p4"
#undef now_source
#undef now_destination
#undef now_source_port
#undef now_destination_port
#undef sequence_ahead
#undef acknowledgement_ahead
#undef window_left
#undef window_right
#undef way_destination
#undef way_source
#undef way_mtu
#undef way_port
#undef service_slot
#undef from_backend
#undef turn
#undef owner

    apply {
        meta.moment = parsed.global_tstamp[39:24];
        kinds.apply();
        // What goes into a tunnel needs that header for itself.
        if (headers.tcp.isValid() && meta.is_reply == 0 && meta.is_cut == 0 && headers.ethernet.destination[40:40] == 0
            && meta.mode != MODE_IPIP) {
            if (offloaded.apply().hit) {
                meta.is_offloaded = 1;
            }
        }
    }
}

// Whose turn it is: the node's, or the switch's.
control Turn(inout headers_t headers, inout meta_t meta) {
    // Of each connection: by whom it has ended; when the answer began; when the node saw a segment of the client.
    @name(NAME_TURNS) Register<bit<16>, bit<16>>(SIZE_TURNS) ended;
    Register<answer_t, bit<16>>(SIZE_TURNS) answers;
    Register<bit<16>, bit<16>>(SIZE_TURNS) seen;

    RegisterAction<bit<16>, bit<16>, bit<1>>(ended) finish = {
        void apply(inout bit<16> by, out bit<1> has_ended) {
            by = LANE_OWNER;
            has_ended = 1;
        }
    };

    RegisterAction<bit<16>, bit<16>, bit<1>>(ended) look = {
        void apply(inout bit<16> by, out bit<1> has_ended) {
            has_ended = 0;
            if (by == LANE_OWNER) {
                has_ended = 1;
            }
        }
    };

    RegisterAction<answer_t, bit<16>, bit<16>>(answers) ask = {
        void apply(inout answer_t answer, out bit<16> since) {
            answer.since = 0;
            answer.of = LANE_OWNER;
            since = 0;
        }
    };

    // Of another one's it is as if the client had just asked.
    RegisterAction<answer_t, bit<16>, bit<16>>(answers) respond = {
        void apply(inout answer_t answer, out bit<16> since) {
            if (answer.since == 0 || answer.of != LANE_OWNER) {
                answer.since = meta.moment;
            }
            answer.of = LANE_OWNER;
            since = answer.since;
        }
    };

    RegisterAction<bit<16>, bit<16>, bit<1>>(seen) show = {
        // Once in each unit of 2^32 ns (4.3 s): no comparison here begins anew where the clock does.
        void apply(inout bit<16> last, out bit<1> is_due) {
            is_due = 0;
            if (last != meta.now) {
                last = meta.now;
                is_due = 1;
            }
        }
    };

    action finishes() {
        meta.has_ended = finish.execute(LANE_TURN);
    }

    action looks() {
        meta.has_ended = look.execute(LANE_TURN);
    }

    action shows() {
        meta.is_due = show.execute(LANE_TURN);
    }

    action asks() {
        ask.execute(LANE_TURN);
    }

    action responds() {
        meta.answering = respond.execute(LANE_TURN);
    }

    action passes() {
        meta.is_express = 1;
    }

    action has_data() {
        meta.has_data = 1;
    }

    // Behind the header and its options.
    table data {
        key = {
            headers.tcp.words : ternary;
            meta.rest : ternary;
        }
        actions = { has_data; NoAction; }
        const default_action = has_data();
        const entries = {
            (5, 20) : NoAction();
            (6, 24) : NoAction();
            (7, 28) : NoAction();
            (8, 32) : NoAction();
            (9, 36) : NoAction();
            (10, 40) : NoAction();
            (11, 44) : NoAction();
            (12, 48) : NoAction();
            (13, 52) : NoAction();
            (14, 56) : NoAction();
            (15, 60) : NoAction();
        }
    }

    // The client's data goes to the node, which reads every request, and so does what may be the head of its response.
    table turns {
        key = {
            meta.is_offloaded : ternary;
            meta.may_pass : ternary;
            meta.has_ended : ternary;
            meta.from_backend : ternary;
            meta.has_data : ternary;
            meta.is_due : ternary;
            meta.answering : ternary;
            LANE_ROOM : ternary @name("room");
        }
        actions = { passes; NoAction; }
        const default_action = NoAction();
        const entries = {
            (_, _, _, _, _, _, _, 0) : NoAction();
            // Of the client.
            (1, 1, 0, 0, 0, 0, _, _) : passes();
            // Of the backend: without data; with data, 128 units of 2^24 ns (2.1 s) after the first of it.
            (1, 1, 0, 1, 0, _, _, _) : passes();
            (1, 1, 0, 1, 1, _, 0 &&& 0xff80, _) : NoAction();
            (1, 1, 0, 1, 1, _, _, _) : passes();
        }
    }

    apply {
        data.apply();
        LANE_ROOM = LANE_ROOM |-| meta.needed;
        if (meta.is_offloaded == 1 && meta.ends == 1) {
            finishes();
        } else if (meta.is_offloaded == 1) {
            looks();
        }
        if (meta.is_offloaded == 1 && meta.from_backend == 0) {
            shows();
        }
        if (meta.is_offloaded == 1 && meta.has_data == 1 && meta.from_backend == 0) {
            asks();
        } else if (meta.is_offloaded == 1 && meta.has_data == 1) {
            responds();
        }
        meta.answering = meta.moment - meta.answering;
        turns.apply();
    }
}

// New addresses and ports, numbers that the other side counts by, and windows in its unit: never 0 but when they are.
control Shift(inout headers_t headers, in meta_t meta) {
    action most() {
        headers.tcp.window = 0xffff;
    }

    action least() {
        headers.tcp.window = 1;
    }

#define SHIFTED(bits) \
    action left_##bits() { \
        headers.tcp.window = headers.tcp.window << bits; \
    } \
    action right_##bits() { \
        headers.tcp.window = headers.tcp.window >> bits; \
    }
    SHIFTED(1)
    SHIFTED(2)
    SHIFTED(3)
    SHIFTED(4)
    SHIFTED(5)
    SHIFTED(6)
    SHIFTED(7)
    SHIFTED(8)
    SHIFTED(9)
    SHIFTED(10)
    SHIFTED(11)
    SHIFTED(12)
    SHIFTED(13)
    SHIFTED(14)

// Nothing is lost on the left; something is left on the right.
#define WINDOWS(bits, below, above) \
    (1, bits, _, 0 &&& above) : left_##bits(); \
    (1, bits, _, _) : most(); \
    (1, _, bits, 0) : NoAction(); \
    (1, _, bits, 0 &&& below) : least(); \
    (1, _, bits, _) : right_##bits();

    table windows {
        key = {
            meta.is_express : ternary;
            LANE_LEFT : ternary @name("left");
            LANE_RIGHT : ternary @name("right");
            headers.tcp.window : ternary;
        }
        actions = {
            most; least; NoAction;
            left_1; left_2; left_3; left_4; left_5; left_6; left_7; left_8; left_9; left_10; left_11; left_12; left_13; left_14;
            right_1; right_2; right_3; right_4; right_5; right_6; right_7; right_8; right_9; right_10; right_11; right_12; right_13; right_14;
        }
        const default_action = NoAction();
        const entries = {
            WINDOWS(1, 0xfffe, 0x8000)
            WINDOWS(2, 0xfffc, 0xc000)
            WINDOWS(3, 0xfff8, 0xe000)
            WINDOWS(4, 0xfff0, 0xf000)
            WINDOWS(5, 0xffe0, 0xf800)
            WINDOWS(6, 0xffc0, 0xfc00)
            WINDOWS(7, 0xff80, 0xfe00)
            WINDOWS(8, 0xff00, 0xff00)
            WINDOWS(9, 0xfe00, 0xff80)
            WINDOWS(10, 0xfc00, 0xffc0)
            WINDOWS(11, 0xf800, 0xffe0)
            WINDOWS(12, 0xf000, 0xfff0)
            WINDOWS(13, 0xe000, 0xfff8)
            WINDOWS(14, 0xc000, 0xfffc)
        }
    }

    action v4() {
        headers.ipv4.source = headers.outer_ipv6.source[31:0];
        headers.ipv4.destination = meta.target[31:0];
    }

    action v6() {
        headers.ipv6.source = headers.outer_ipv6.source;
        headers.ipv6.destination = meta.target;
    }

    action counts() {
        headers.tcp.source = LANE_PORT;
        headers.tcp.destination = meta.target_port;
        headers.tcp.sequence = headers.tcp.sequence + LANE_SEQUENCE;
        headers.tcp.acknowledgement = headers.tcp.acknowledgement + LANE_ACKNOWLEDGEMENT;
    }

    apply {
        windows.apply();
        if (meta.is_express == 1) {
            counts();
            if (headers.ipv4.isValid()) {
                v4();
            } else {
                v6();
            }
        }
    }
}
#endif
