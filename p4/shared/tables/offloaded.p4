// Connections of the nodes behind the switch that it goes on with by itself, each direction by itself: what stands in a segment then,
// which way it goes, and how long it may be. The target's are `.express`'s variables, and what notes whose turn it is.
@name(".express")
action express(address_t source_address, address_t destination_address, bit<16> source_port, bit<16> destination_port,
               bit<32> sequence, bit<32> acknowledgement, bit<8> left, bit<8> right, mac_t destination, mac_t source, bit<16> mtu, bit<9> egress,
               bit<16> slot, bit<1> is_reply, bit<16> place, bit<16> generation) {
    now_source = source_address;
    now_destination = destination_address;
    now_source_port = source_port;
    now_destination_port = destination_port;
    sequence_ahead = sequence;
    acknowledgement_ahead = acknowledgement;
    window_left = left;
    window_right = right;
    way_destination = destination;
    way_source = source;
    way_mtu = mtu;
    way_port = egress;
    service_slot = slot;
    from_backend = is_reply;
    turn = place;
    owner = generation;
}

@name(NAME_OFFLOADED)
table offloaded {
    key = {
        meta.source : exact @name("source");
        meta.destination : exact @name("destination");
        meta.source_port : exact @name("source_port");
        meta.destination_port : exact @name("destination_port");
    }
    actions = { express; NoAction; }
    const default_action = NoAction();
    size = SIZE_OFFLOADED;
}
