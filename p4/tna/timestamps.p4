// Connections that stay where they are without any state: the backend rides in the timestamps that it sends, and that come back (RFC 7323).
#ifndef STICKLEBACK_TIMESTAMPS
#define STICKLEBACK_TIMESTAMPS

#include "packet.p4"

// What `lbd` wrote of the wall clock, and the switch's own clock at the first frame after that, in units of 2^16 nanoseconds.
struct begun_t {
    bit<32> wall;
    bit<32> here;
}

// How much of what an echo has ahead of the wall clock is number: the rest of the sum that a backend's timestamps are (`lb_core::stamp`).
// It takes a stage for each step; nobody needs it before the bindings are known.
control Ahead(in headers_t headers, inout meta_t meta, in ingress_intrinsic_metadata_from_parser_t parsed) {
    @name(NAME_WALL) Register<begun_t, bit<1>>(1) begun;

    RegisterAction<begun_t, bit<1>, bit<32>>(begun) begin = {
        void apply(inout begun_t clock, out bit<32> since) {
            if (clock.wall != meta.wall) {
                clock.wall = meta.wall;
                clock.here = meta.here;
            }
            since = clock.here;
        }
    };

#include "../shared/tables/clock.p4"

    action looks() {
        meta.here = parsed.global_tstamp[47:16];
    }

    action begins() {
        meta.since = begin.execute(0);
        meta.ahead = headers.stamps.echo - meta.wall;
    }

    action passed() {
        meta.here = meta.here - meta.since;
        meta.ahead = meta.ahead + STAMP_AGE;
    }

    // Milliseconds are 2^20 nanoseconds, and 1/32 and 1/64 more: one in 600 is missing.
    action units() {
        meta.since = meta.here >> 9;
        meta.wall = meta.here >> 10;
        meta.here = meta.here >> 4;
    }

    action most() {
        meta.here = meta.here + meta.since;
        meta.ahead = meta.ahead - meta.wall;
    }

    action ahead() {
        meta.ahead = meta.ahead - meta.here;
    }

    apply {
        written.apply();
        looks();
        begins();
        passed();
        units();
        most();
        ahead();
    }
}

// Writes what the other side may know: the sum of the backend's clock and its mark to the client, the backend's own clock to the backend.
control Stamp(inout headers_t headers, in meta_t meta) {
    action to_client() {
        headers.stamps.value = headers.stamps.value + meta.stamp;
    }

    action to_backend() {
        headers.stamps.echo = headers.stamps.echo - meta.stamp;
    }

    apply {
        if (headers.stamps.isValid()) {
            if (meta.is_reply == 1) {
                to_client();
            } else {
                to_backend();
            }
        }
    }
}
#endif
