// What becomes of a packet before anything is written into it.
#ifndef STICKLEBACK_STEPS
#define STICKLEBACK_STEPS

#include "packet.p4"

// A packet ends here: counted under this outcome.
#define END(number) meta.outcome = number; meta.is_decided = 1

// What holds for the whole switch.
control Node(inout meta_t meta) {
#include "../shared/tables/node.p4"

    apply {
        node.apply();
    }
}

// Takes the packet that an ICMP error quotes, turned round: who would send it is whom the error is about.
control Quoted(in headers_t headers, inout meta_t meta) {
    apply {
        if (headers.quoted_ipv4.isValid()) {
            meta.source = MAPPED | (bit<128>)headers.quoted_ipv4.destination;
            meta.destination = MAPPED | (bit<128>)headers.quoted_ipv4.source;
        } else {
            meta.source = headers.quoted_ipv6.destination;
            meta.destination = headers.quoted_ipv6.source;
        }
        meta.protocol = meta.quoted_protocol;
        meta.source_port = headers.quoted_ports.destination;
        meta.destination_port = headers.quoted_ports.source;
    }
}

// Whose the packet is, or the one that it is about: a client's for a service, a backend's for a client, or none of ours.
control Whose(in headers_t headers, inout meta_t meta) {
    Quoted() quoted;

#include "../shared/tables/whose.p4"

    apply {
        bit<1> to_vip = 0;
        bit<1> from_client = meta.has_ports;
        bit<1> from_backend = meta.has_ports;
        if (meta.has_ports == 0) {
            if (vips.apply().hit) {
                to_vip = 1;
            }
            if (meta.quotes == 1) {
                // To a VIP an error is about a reply; elsewhere, about what a backend was sent.
                from_client = to_vip;
                from_backend = ~to_vip;
                quoted.apply(headers, meta);
            }
        }
        bit<1> is_found = 0;
        if (from_client == 1) {
            if (services.apply().hit) {
                is_found = 1;
            } else if (any_port.apply().hit) {
                is_found = 1;
            }
        }
        if (from_backend == 1 && is_found == 0) {
            if (replies.apply().hit) {
                is_found = 1;
            } else if (returns.apply().hit) {
                is_found = 1;
            }
        }
        if (to_vip == 1 && meta.is_later == 1) {
            // Came before the first one: whose it is, its addresses must say, and whose session.
            if (alone.apply().hit && meta.affinity == AFFINITY_SOURCE_IP && meta.mode != MODE_NAT) {
                is_found = 1;
            }
        }
        if (is_found == 1) {
            meta.is_error = meta.quotes;
        } else if (meta.is_guided == 1) {
            END(OUTCOME_FRAGMENT);
        } else if (to_vip == 0) {
            END(OUTCOME_NOT_OURS);
        } else if (meta.is_later == 1
                || (meta.is_first == 1
                    && ((headers.ipv4.isValid() && meta.protocol == PROTOCOL_ICMP)
                        || (headers.ipv6.isValid() && meta.protocol == PROTOCOL_ICMPV6)))) {
            END(OUTCOME_FRAGMENT);
        } else if (meta.is_cut == 1) {
            END(OUTCOME_MALFORMED);
            meta.is_lost = 1;
        } else if (headers.icmp.isValid()) {
            END(OUTCOME_ICMP_IGNORED);
        } else {
            END(OUTCOME_NOT_OURS);
        }
    }
}

// Which session it belongs to; the key is at most eight bytes and used as it is.
control Session(in headers_t headers, inout meta_t meta) {
    bit<192> window = 0;
    bit<8> needed = 0;

    @name(".segment")
    action segment(bit<8> shift, bit<64> mask, bit<8> bytes) {
        meta.session = (bit<64>)(window >> shift) & mask;
        needed = bytes;
    }

    @name(".layout")
    action layout(bit<120> mask, bit<8> bytes) {
        meta.server_id = meta.server_id & mask;
        needed = bytes;
    }

#include "../shared/tables/session.p4"

    apply {
        bit<8> affinity = meta.affinity;
        if (meta.is_error == 1 && (affinity == AFFINITY_PAYLOAD || affinity == AFFINITY_QUIC_CID)) {
            // What the backend was told the session by is not quoted.
            affinity = meta.fallback;
        }
        bit<8> available = meta.bytes;
        if (meta.is_reply == 0 && meta.protocol == PROTOCOL_UDP && (affinity == AFFINITY_PAYLOAD || affinity == AFFINITY_QUIC_CID)) {
            window = headers.payload[0].value ++ headers.payload[1].value ++ headers.payload[2].value
                ++ headers.payload[3].value ++ headers.payload[4].value ++ headers.payload[5].value
                ++ headers.payload[6].value ++ headers.payload[7].value ++ headers.payload[8].value
                ++ headers.payload[9].value ++ headers.payload[10].value ++ headers.payload[11].value
                ++ headers.payload[12].value ++ headers.payload[13].value ++ headers.payload[14].value
                ++ headers.payload[15].value ++ headers.payload[16].value ++ headers.payload[17].value
                ++ headers.payload[18].value ++ headers.payload[19].value ++ headers.payload[20].value
                ++ headers.payload[21].value ++ headers.payload[22].value ++ headers.payload[23].value;
            // What is behind the payload's end is of an earlier packet.
            window = window & ~(~192w0 >> (meta.bytes << 3));
        }
        if (affinity == AFFINITY_PAYLOAD && meta.is_reply == 0) {
            if (payloads.apply().hit && available >= needed) {
                meta.has_session = 1;
            } else {
                affinity = meta.fallback;
                meta.note = OUTCOME_PAYLOAD_SHORT;
                meta.has_note = 1;
            }
        }
        if (affinity == AFFINITY_QUIC_CID && meta.is_reply == 0) {
            // RFC 8999: a long header tells the connection id's length, a short one does not.
            if (window[191:191] == 1) {
                meta.server_id = window[143:24];
                available = window[151:144];
                if (meta.bytes < 6 + available && meta.bytes < WINDOW) {
                    available = 0;
                }
            } else {
                meta.server_id = window[183:64];
                available = meta.bytes - 1;
                if (meta.bytes == 0) {
                    available = 0;
                }
            }
            if (layouts.apply().hit && available >= needed) {
                servers.apply();
            }
            if (meta.is_named == 0) {
                affinity = meta.fallback;
                meta.note = OUTCOME_QUIC_UNROUTABLE;
                meta.has_note = 1;
            }
        }
        if (affinity == AFFINITY_SOURCE_IP) {
            address_t client = meta.source;
            if (meta.is_reply == 1) {
                client = meta.destination;
            }
            if (client[127:32] == 96w0xffff) {
                meta.session = (bit<64>)client[31:0] & meta.key_mask;
            } else {
                meta.session = client[127:64] & meta.key_mask;
            }
            meta.has_session = 1;
        }
    }
}

// Which backend: the one that is named or bound, if it serves, else the owner of the session's slot.
control Bound(inout meta_t meta) {
#include "../shared/tables/bound.p4"

    apply {
        if (meta.is_named == 0 && meta.is_guided == 0 && meta.has_session == 1) {
            bit<16> backend = meta.backend;
            bit<16> generation = meta.generation;
            bindings.apply();
            if (meta.is_reply == 1) {
                // A reply is not led by the binding: it tells whether there is one, and keeps it from ageing.
                meta.backend = backend;
                meta.generation = generation;
            }
        }
        if (meta.is_reply == 0 && (meta.is_named == 1 || meta.is_bound == 1 || meta.is_guided == 1)) {
            status.apply();
            if (meta.is_guided == 1 && meta.serves == 0) {
                END(OUTCOME_FRAGMENT);
                meta.is_lost = 1;
            }
            if (meta.is_named == 1 && meta.serves == 0) {
                meta.note = OUTCOME_SERVER_DOWN;
                meta.has_note = 1;
            }
        }
    }
}

// The owner of the slot that the session's hash names; `place` is set by the target, which computes the hash: the table's size plus the slot,
// so that a table of another size stands beside the old one until the service says which one holds.
control Chosen(inout meta_t meta) {
#include "../shared/tables/chosen.p4"

    apply {
        if (!arena.apply().hit) {
            END(OUTCOME_NO_BACKEND);
            meta.is_lost = 1;
        }
    }
}

// The way to a backend, and back to a client.
control Way(inout meta_t meta) {
#include "../shared/tables/way.p4"

    apply {
        if (meta.is_reply == 1) {
            routes.apply();
        } else {
            backends.apply();
        }
        if (meta.has_hop == 0 && meta.is_reply == 1 && meta.mode != MODE_NAT) {
            END(OUTCOME_NOT_OURS);
        } else if (meta.has_hop == 0) {
            END(OUTCOME_NO_HOP);
            meta.is_lost = 1;
        }
    }
}
#endif
