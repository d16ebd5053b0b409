// Where the session stands in a datagram. How it is taken from there is the target's: it has `.segment(shift, mask, bytes)` and
// `.layout(mask, bytes)`.
@name(".named")
action named(bit<16> backend, bit<16> generation) {
    meta.backend = backend;
    meta.generation = generation;
    meta.is_named = 1;
}

@name(NAME_AFFINITIES)
table payloads {
    key = {
        meta.service_slot : exact @name("service");
    }
    actions = { segment; NoAction; }
    const default_action = NoAction();
    size = SIZE_AFFINITIES;
}

@name(NAME_QUIC)
table layouts {
    key = {
        meta.service_slot : exact @name("service");
        meta.server_id[119:117] : exact @name("rotation");
    }
    actions = { layout; NoAction; }
    const default_action = NoAction();
    size = SIZE_QUIC;
}

@name(NAME_SERVERS)
table servers {
    key = {
        meta.service_slot : exact @name("service");
        meta.server_id : exact @name("server_id");
    }
    actions = { named; NoAction; }
    const default_action = NoAction();
    size = SIZE_SERVERS;
}
