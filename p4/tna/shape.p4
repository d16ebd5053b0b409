// What is read off the headers before any table is asked: addresses in one form, lengths, and what contradicts itself.
#ifndef STICKLEBACK_SHAPE
#define STICKLEBACK_SHAPE

#include "packet.p4"

// What an address begins with that only an IPv4 packet may have here.
#define IS_MAPPED 96w0xffff

control Shape(in headers_t headers, inout meta_t meta) {
    action v4() {
        meta.ttl = headers.ipv4.ttl;
        meta.ip_length = headers.ipv4.length;
        meta.rest = headers.ipv4.length;
        meta.before = 20;
    }

    action v6(bit<16> extensions) {
        meta.ttl = headers.ipv6.hop_limit;
        meta.ip_length = headers.ipv6.length + 40;
        meta.rest = headers.ipv6.length;
        meta.before = extensions;
    }

    table lengths {
        key = {
            headers.ipv4.isValid() : ternary;
            headers.ipv6.isValid() : ternary;
            headers.extension.isValid() : ternary;
            headers.second_extension.isValid() : ternary;
            headers.fragment.isValid() : ternary;
        }
        actions = { v4; v6; NoAction; }
        const default_action = NoAction();
        const entries = {
            (true, false, _, _, _) : v4();
            (false, true, false, false, false) : v6(0);
            (false, true, false, false, true) : v6(8);
            (false, true, true, false, false) : v6(8);
            (false, true, true, false, true) : v6(16);
            (false, true, true, true, false) : v6(16);
            (false, true, true, true, true) : v6(24);
        }
    }

    action malformed() {
        meta.is_malformed = 1;
    }

    // No IPv6 packet may have what stands for an IPv4 address here: it would be taken for one of an IPv4 service.
    table mapped {
        key = {
            headers.ipv6.isValid() : ternary;
            meta.source[127:32] : ternary;
            meta.destination[127:32] : ternary;
        }
        actions = { malformed; NoAction; }
        const default_action = NoAction();
        const entries = {
            (true, IS_MAPPED, _) : malformed();
            (true, _, IS_MAPPED) : malformed();
        }
    }

    apply {
        if (headers.ipv4.isValid() || headers.optioned_ipv4.isValid()) {
            meta.source[63:32] = 0xffff;
            meta.destination[63:32] = 0xffff;
        }
        lengths.apply();
        mapped.apply();
        if (headers.stamps.echo != 0 && (headers.tcp.flags & TCP_ACK) != 0) {
            meta.echoes = 1;
        }
        // 0 = the sender made none.
        if (headers.udp.checksum != 0) {
            meta.sums_udp = true;
        }
    }
}

// Is there what the header behind the IP header says there is? Whom could an answer go to?
control Cut(in headers_t headers, inout meta_t meta) {
    action needs(bit<16> bytes) {
        meta.lack = bytes |-| meta.rest;
    }

    action says() {
        meta.lack = headers.udp.length |-| meta.rest;
    }

    action cut() {
        meta.lack = 1;
    }

    table extents {
        key = {
            headers.tcp.isValid() : ternary;
            headers.tcp.words : ternary;
            headers.udp.isValid() : ternary;
            headers.udp.length : ternary;
            meta.is_first : ternary;
            headers.icmp.isValid() : ternary;
            headers.quoted_ipv4.isValid() : ternary;
            meta.quotes : ternary;
        }
        actions = { needs; says; cut; NoAction; }
        const default_action = NoAction();
        const entries = {
            (true, 5, _, _, _, _, _, _) : needs(20);
            (true, 6, _, _, _, _, _, _) : needs(24);
            (true, 7, _, _, _, _, _, _) : needs(28);
            (true, 8, _, _, _, _, _, _) : needs(32);
            (true, 9, _, _, _, _, _, _) : needs(36);
            (true, 10, _, _, _, _, _, _) : needs(40);
            (true, 11, _, _, _, _, _, _) : needs(44);
            (true, 12, _, _, _, _, _, _) : needs(48);
            (true, 13, _, _, _, _, _, _) : needs(52);
            (true, 14, _, _, _, _, _, _) : needs(56);
            (true, 15, _, _, _, _, _, _) : needs(60);
            (true, _, _, _, _, _, _, _) : cut();
            (_, _, true, 0 &&& 0xfff8, _, _, _, _) : cut();
            // The first fragment of a datagram has less than the whole.
            (_, _, true, _, 1, _, _, _) : needs(8);
            (_, _, true, _, 0, _, _, _) : says();
            (_, _, _, _, _, true, true, 1) : needs(32);
            (_, _, _, _, _, true, false, 1) : needs(52);
            (_, _, _, _, _, true, _, _) : needs(8);
        }
    }

    action nobodys() {
        meta.is_nobodys = 1;
    }

    table nobody {
        key = {
            meta.source : ternary;
        }
        actions = { nobodys; NoAction; }
        const default_action = NoAction();
        const entries = {
            128w0x0000_ffff_0000_0000 &&& 128w0xffffffff_ffffffff_ffffffff_ff000000 : nobodys();
            128w0x0000_ffff_7f00_0000 &&& 128w0xffffffff_ffffffff_ffffffff_ff000000 : nobodys();
            128w0x0000_ffff_e000_0000 &&& 128w0xffffffff_ffffffff_ffffffff_e0000000 : nobodys();
            128w0 &&& 128w0xffffffff_ffffffff_ffffffff_fffffffe : nobodys();
            128w0xff000000_00000000_00000000_00000000 &&& 128w0xff000000_00000000_00000000_00000000 : nobodys();
        }
    }

    apply {
        // From what a table says, a field can be taken; from a field, but a field.
        meta.rest = meta.rest |-| meta.before;
        extents.apply();
        nobody.apply();
        if (meta.lack != 0) {
            meta.is_cut = 1;
        }
    }
}
#endif
