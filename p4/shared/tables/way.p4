// The way to a backend, and back to a client. What the target does with the MTU is `ROOM`.
@name(".backend")
action backend(address_t address, bit<16> port, mac_t destination, mac_t source, bit<16> vlan, bit<16> mtu, bit<9> egress) {
    meta.target = address;
    meta.target_port = port;
    meta.hop_destination = destination;
    meta.hop_source = source;
    meta.hop_vlan = vlan;
    ROOM(mtu);
    meta.hop_port = egress;
    meta.has_hop = 1;
}

@name(".route")
action route(mac_t destination, mac_t source, bit<16> vlan, bit<16> mtu, bit<9> egress) {
    meta.hop_destination = destination;
    meta.hop_source = source;
    meta.hop_vlan = vlan;
    ROOM(mtu);
    meta.hop_port = egress;
    meta.has_hop = 1;
}

@name(NAME_BACKENDS)
table backends {
    key = {
        meta.backend : exact @name("backend");
        meta.generation : exact @name("generation");
    }
    actions = { backend; NoAction; }
    const default_action = NoAction();
    size = SIZE_BACKENDS;
}

@name(NAME_ROUTES)
table routes {
    key = {
        meta.destination : lpm @name("address");
    }
    actions = { route; NoAction; }
    const default_action = NoAction();
    size = SIZE_ROUTES;
}
