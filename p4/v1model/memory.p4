// What the switch notes of packets by itself, in registers.
#ifndef STICKLEBACK_MEMORY
#define STICKLEBACK_MEMORY

// Which flows were seen lately, by a hash of them.
control Doorkeeper(in address_t client, in address_t server, in bit<16> client_port, in bit<16> server_port, in bit<8> protocol,
                   in bit<48> microseconds, in bit<1> meets, out bit<1> is_known) {
    // When, in units of 2^20 microseconds from 1 on.
    @name(NAME_DOORKEEPER) register<bit<32>>(SIZE_DOORKEEPER) seen;

    apply {
        bit<32> place;
        bit<32> before;
        bit<32> now = (bit<32>)(microseconds >> 20) + 1;
        hash(place, HashAlgorithm.crc32, 32w0, { client, server, client_port, server_port, protocol }, (bit<64>)SIZE_DOORKEEPER);
        seen.read(before, place);
        is_known = 0;
        if (before != 0 && now - before < 64) {
            is_known = 1;
        }
        if (meets == 1) {
            seen.write(place, now);
        }
    }
}

// What became of the first fragment of a packet: kept with it, and told the later ones.
control Trains(inout meta_t meta) {
    // Backend and generation, ports, protocol, and a second hash of the train that it is about.
    @name(NAME_FRAGMENTS) register<bit<104>>(SIZE_FRAGMENTS) kept;

    apply {
        bit<32> train;
        bit<32> place;
        bit<104> record;
        hash(train, HashAlgorithm.crc32, 32w0, { meta.source, meta.destination, meta.identification, meta.train }, 64w0x1_0000_0000);
        hash(place, HashAlgorithm.crc16, 32w0, { meta.source, meta.destination, meta.identification, meta.train }, (bit<64>)SIZE_FRAGMENTS);
        if (meta.is_first == 1) {
            record = meta.backend ++ meta.generation ++ meta.source_port ++ meta.destination_port ++ meta.protocol ++ train;
            kept.write(place, record);
        } else {
            kept.read(record, place);
            if (record[39:32] != 0 && record[31:0] == train) {
                meta.is_guided = 1;
                meta.has_ports = 1;
                meta.backend = record[103:88];
                meta.generation = record[87:72];
                meta.source_port = record[71:56];
                meta.destination_port = record[55:40];
                meta.protocol = record[39:32];
            }
        }
    }
}
#endif
