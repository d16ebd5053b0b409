// Connections that stay where they are without any state: the backend rides in the timestamps that it sends, and that come back (RFC 7323).
#ifndef STICKLEBACK_TIMESTAMPS
#define STICKLEBACK_TIMESTAMPS

#include "packet.p4"
#include "checksum.p4"

#define NUMBER meta.number

// The option with timestamps, and those in front of it; what is behind it goes as it came.
parser Options(packet_in packet, inout headers_t headers, inout meta_t meta) {
    state start {
        meta.options_left = ((bit<8>)headers.tcp.words - 5) << 2;
        transition option;
    }

    state option {
        transition select(meta.options_left, meta.options) {
            (0, _): accept;
            (_, MAX_OPTIONS): accept;
            (_, _): kind;
        }
    }

    state kind {
        transition select(packet.lookahead<bit<8>>()) {
            OPTION_END: accept;
            OPTION_NONE: none;
            default: longer;
        }
    }

    state none {
        packet.extract(headers.options.next, 8);
        meta.options_left = meta.options_left - 1;
        meta.options = meta.options + 1;
        transition option;
    }

    state longer {
        bit<16> begun = packet.lookahead<bit<16>>();
        // One that is longer than what is left leaves less than nothing: far above forty.
        bit<8> rest = meta.options_left - begun[7:0];
        transition select(begun[15:8], begun[7:0], rest) {
            (OPTION_TIMESTAMPS, 10, 0 .. 30): timestamps;
            (OPTION_TIMESTAMPS, _, _): accept;
            (_, 2 .. 40, 0 .. 38): other;
            (_, _, _): accept;
        }
    }

    state other {
        bit<16> begun = packet.lookahead<bit<16>>();
        packet.extract(headers.options.next, (bit<32>)begun[7:0] << 3);
        meta.options_left = meta.options_left - begun[7:0];
        meta.options = meta.options + 1;
        transition option;
    }

    state timestamps {
        packet.extract(headers.timestamps);
        transition accept;
    }
}

// What time it is: what `lbd` wrote, and what has passed here since the first frame after that. It need not write again.
control Now(inout meta_t meta, in bit<48> microseconds) {
    // What was written, and when that was by the switch's own clock.
    @name(NAME_WALL) register<bit<64>>(1) begun;

#include "../shared/tables/clock.p4"

    apply {
        // Milliseconds, of which one in 1,800 is missing.
        bit<32> here = (bit<32>)(microseconds >> 10) + (bit<32>)(microseconds >> 16) + (bit<32>)(microseconds >> 17);
        bit<64> since;
        written.apply();
        begun.read(since, 0);
        if (since[63:32] != meta.wall) {
            since = meta.wall ++ here;
            begun.write(0, since);
        }
        meta.now = meta.wall + (here - since[31:0]);
    }
}

// What is to be changed in the timestamps, and whom they name. A reply's value is that of the backend that it comes from; an echo tells by itself
// whose it is, wherever the packet goes.
control Marked(in headers_t headers, inout meta_t meta) {
#include "../shared/tables/timestamps.p4"

    apply {
        if (headers.timestamps.isValid() && meta.mode == MODE_NAT) {
            if (meta.is_reply == 1) {
                stamps.apply();
            } else if ((meta.flags & TCP_ACK) != 0 && headers.timestamps.echo != 0) {
                bit<32> ahead = headers.timestamps.echo - meta.now + STAMP_AGE;
                meta.number = ahead[31:24];
                if (marks.apply().hit && meta.leads == 1) {
                    meta.is_named = 1;
                    meta.backend = meta.marked_backend;
                    meta.generation = meta.marked_generation;
                }
            }
        }
    }
}

// Writes what the other side may know: the sum of the backend's clock and its mark to the client, the backend's own clock to the backend.
control Stamp(inout headers_t headers, inout meta_t meta) {
    Adjust() adjust;

    apply {
        if (headers.timestamps.isValid() && meta.stamp != 0) {
            bit<32> before = headers.timestamps.echo;
            bit<32> after = before - meta.stamp;
            if (meta.is_reply == 1) {
                before = headers.timestamps.value;
                after = before + meta.stamp;
                headers.timestamps.value = after;
            } else {
                headers.timestamps.echo = after;
            }
            // Behind an odd number of bytes each pair that the checksum adds up is the other way round.
            if (meta.options_left[0:0] == 1) {
                before = before[23:16] ++ before[31:24] ++ before[7:0] ++ before[15:8];
                after = after[23:16] ++ after[31:24] ++ after[7:0] ++ after[15:8];
            }
            bit<32> difference = 0;
            REPLACE32(difference, before, after);
            adjust.apply(headers.tcp.checksum, difference);
        }
    }
}
#endif
