// The owner of a slot of a selection table.
@name(".owner")
action owner(bit<16> backend, bit<16> generation) {
    meta.backend = backend;
    meta.generation = generation;
    meta.serves = 1;
}

@name(NAME_ARENA)
table arena {
    key = {
        meta.service_slot : exact @name("service");
        meta.place : exact @name("place");
    }
    actions = { owner; NoAction; }
    const default_action = NoAction();
    size = SIZE_ARENA;
}
