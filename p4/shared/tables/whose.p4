// Whose a packet is: by what it goes to, and by what it comes from. Tables marked `IN_TCAM` are small.
@name(".service")
action service(bit<32> id, bit<16> slot, bit<8> mode, bit<8> affinity, bit<8> fallback, bit<64> key_mask,
               bit<32> table_mask) {
    meta.is_ours = 1;
    meta.service = id;
    meta.service_slot = slot;
    meta.mode = mode;
    meta.affinity = affinity;
    meta.fallback = fallback;
    meta.key_mask = key_mask;
    meta.table_mask = table_mask;
}

@name(".reply")
action reply(address_t vip, bit<16> port, bit<32> id, bit<16> slot, bit<8> affinity, bit<64> key_mask,
             bit<16> backend, bit<16> generation) {
    meta.is_reply = 1;
    meta.target = vip;
    meta.target_port = port;
    meta.service = id;
    meta.service_slot = slot;
    meta.mode = MODE_NAT;
    meta.affinity = affinity;
    meta.fallback = affinity;
    meta.key_mask = key_mask;
    meta.backend = backend;
    meta.generation = generation;
}

// A backend's own reply from the VIP: nothing in it changes.
@name(".back")
action back(bit<16> slot) {
    meta.is_reply = 1;
    meta.service_slot = slot;
    meta.mode = MODE_L2;
    meta.affinity = AFFINITY_NONE;
}

@name(".is_vip")
action is_vip() {}

@name(NAME_SERVICES)
table services {
    key = {
        meta.destination : exact @name("address");
        meta.destination_port : exact @name("port");
        meta.protocol : exact @name("protocol");
    }
    actions = { service; NoAction; }
    const default_action = NoAction();
    size = SIZE_SERVICES;
}

IN_TCAM @name(NAME_ANY_PORT)
table any_port {
    key = {
        meta.destination : exact @name("address");
        meta.protocol : exact @name("protocol");
    }
    actions = { service; NoAction; }
    const default_action = NoAction();
    size = SIZE_ANY_PORT;
}

IN_TCAM @name(NAME_ALONE)
table alone {
    key = {
        meta.destination : exact @name("address");
        meta.protocol : exact @name("protocol");
    }
    actions = { service; NoAction; }
    const default_action = NoAction();
    size = SIZE_ALONE;
}

IN_TCAM @name(NAME_VIPS)
table vips {
    key = {
        meta.destination : exact @name("address");
    }
    actions = { is_vip; NoAction; }
    const default_action = NoAction();
    size = SIZE_VIPS;
}

@name(NAME_REPLIES)
table replies {
    key = {
        meta.source : exact @name("address");
        meta.source_port : exact @name("port");
        meta.protocol : exact @name("protocol");
    }
    actions = { reply; NoAction; }
    const default_action = NoAction();
    size = SIZE_REPLIES;
}

@name(NAME_RETURNS)
table returns {
    key = {
        meta.source : exact @name("address");
        meta.source_port : exact @name("port");
        meta.protocol : exact @name("protocol");
    }
    actions = { back; NoAction; }
    const default_action = NoAction();
    size = SIZE_RETURNS;
}
