// Connections that the switch goes on with packet by packet. What it does with a segment is what its node does, so any segment may
// go to either: to the node goes what it has to see, and what needs more than other numbers.
#ifndef STICKLEBACK_EXPRESS
#define STICKLEBACK_EXPRESS

#include "packet.p4"
#include "checksum.p4"

const bit<8> TCP_FIN = 0x01;
// In units of 2^16 microseconds: the client's packets that the node has to see so that it knows that there is a client, and what may be the
// head of a response, from its first byte on.
const bit<22> ALIVE = 122;
const bit<22> HEAD = 31;

// New addresses and ports, numbers that the other side counts by, and windows in its unit: never 0 but when they are.
control Shift(inout headers_t headers, in address_t source, in address_t destination, in bit<16> source_port, in bit<16> destination_port,
              in bit<32> sequence, in bit<32> acknowledgement, in bit<8> left, in bit<8> right) {
    Adjust() adjust_ip;
    Adjust() adjust_tcp;

    apply {
        bit<32> addresses = 0;
        bit<32> covered = 0;
        if (headers.ipv4.isValid()) {
            REPLACE32(addresses, headers.ipv4.source, source[31:0]);
            REPLACE32(addresses, headers.ipv4.destination, destination[31:0]);
            headers.ipv4.source = source[31:0];
            headers.ipv4.destination = destination[31:0];
            adjust_ip.apply(headers.ipv4.checksum, addresses);
        } else {
            REPLACE128(addresses, headers.ipv6.source, source);
            REPLACE128(addresses, headers.ipv6.destination, destination);
            headers.ipv6.source = source;
            headers.ipv6.destination = destination;
        }
        bit<32> number = headers.tcp.sequence + sequence;
        REPLACE32(covered, headers.tcp.sequence, number);
        headers.tcp.sequence = number;
        number = headers.tcp.acknowledgement + acknowledgement;
        REPLACE32(covered, headers.tcp.acknowledgement, number);
        headers.tcp.acknowledgement = number;
        number = ((bit<32>)headers.tcp.window << left) >> right;
        if (number > 0xffff) {
            number = 0xffff;
        } else if (number == 0 && headers.tcp.window != 0) {
            number = 1;
        }
        REPLACE16(covered, headers.tcp.window, number[15:0]);
        headers.tcp.window = number[15:0];
        REPLACE16(covered, headers.tcp.source, source_port);
        REPLACE16(covered, headers.tcp.destination, destination_port);
        headers.tcp.source = source_port;
        headers.tcp.destination = destination_port;
        covered = covered + addresses;
        adjust_tcp.apply(headers.tcp.checksum, covered);
    }
}

// Whether a whole TCP segment goes by the switch alone, and if it does, what becomes of it.
control Express(inout headers_t headers, inout meta_t meta, in bit<48> microseconds) {
    Shift() shift;
    // Of each connection: 16 bits that say whose turn it is, ended, asked, answered, one bit of none; when the answer began, and when the node
    // saw a segment of the client. Of another one's it is as if the client had just asked and the node had seen nothing.
    @name(NAME_TURNS) register<bit<64>>(SIZE_TURNS) turns;
    @name(NAME_EXPRESS) counter(SIZE_SERVICE_COUNTERS, CounterType.packets_and_bytes) went;

    address_t now_source = 0;
    address_t now_destination = 0;
    bit<16> now_source_port = 0;
    bit<16> now_destination_port = 0;
    bit<32> sequence_ahead = 0;
    bit<32> acknowledgement_ahead = 0;
    bit<8> window_left = 0;
    bit<8> window_right = 0;
    mac_t way_destination = 0;
    mac_t way_source = 0;
    bit<16> way_mtu = 0;
    bit<9> way_port = 0;
    bit<16> service_slot = 0;
    bit<1> from_backend = 0;
    bit<16> turn = 0;
    bit<16> owner = 0;

#include "../shared/tables/offloaded.p4"

    apply {
        if (offloaded.apply().hit) {
            bit<22> now = (bit<22>)(microseconds >> 16);
            bit<64> word;
            turns.read(word, (bit<32>)turn);
            bit<1> ended = word[47:47];
            bit<1> asked = word[46:46];
            bit<1> answered = word[45:45];
            bit<22> since = word[43:22];
            bit<22> seen = word[21:0];
            if (word[63:48] != owner) {
                ended = 0;
                asked = 1;
                answered = 0;
                since = now;
                seen = now - ALIVE;
            }
            bit<1> to_node = 0;
            bit<1> has_data = 0;
            if (meta.ip_length - meta.before != (bit<16>)headers.tcp.words << 2) {
                has_data = 1;
            }
            if ((meta.flags & (TCP_FIN | TCP_SYN | TCP_RST)) != 0 || headers.vlan.isValid()) {
                // The next connection of the same addresses and ports must not meet the entry of this one. And where segments have tags, only
                // the node knows which those of the other direction have.
                ended = 1;
            }
            if (ended == 1 || (meta.flags & TCP_ACK) == 0 || headers.tcp.words != 5 || headers.ipv4_options.isValid()
                    || meta.extensions != 0 || meta.ttl <= 1 || meta.ip_length > way_mtu) {
                to_node = 1;
            }
            if (from_backend == 0) {
                if (has_data == 1) {
                    // It reads every request, and what may be the head of the response.
                    asked = 1;
                    answered = 0;
                    to_node = 1;
                }
                if (now - seen >= ALIVE) {
                    to_node = 1;
                }
                if (to_node == 1) {
                    seen = now;
                }
            } else if (has_data == 1 && asked == 1) {
                if (answered == 0) {
                    answered = 1;
                    since = now;
                }
                if (now - since < HEAD) {
                    to_node = 1;
                } else {
                    asked = 0;
                }
            }
            word = owner ++ ended ++ asked ++ answered ++ 1w0 ++ since ++ seen;
            turns.write((bit<32>)turn, word);
            if (to_node == 0) {
                shift.apply(headers, now_source, now_destination, now_source_port, now_destination_port, sequence_ahead, acknowledgement_ahead,
                    window_left, window_right);
                meta.is_express = 1;
                meta.is_reply = from_backend;
                meta.mode = MODE_L2;
                meta.service_slot = service_slot;
                meta.hop_destination = way_destination;
                meta.hop_source = way_source;
                meta.hop_vlan = VLAN_KEEP;
                meta.hop_mtu = way_mtu;
                meta.hop_port = way_port;
                went.count((bit<32>)service_slot);
            }
        }
    }
}
#endif
