// Which backend a session is bound to, and whether a backend serves. `IDLE_TIMEOUT` is how the target ages entries.
@name(".bound")
action bound(bit<16> backend, bit<16> generation) {
    meta.backend = backend;
    meta.generation = generation;
    meta.is_bound = 1;
}

@name(".serves")
action serves() {
    meta.serves = 1;
}

@name(NAME_BINDINGS)
table bindings {
    key = {
        meta.service : exact @name("service");
        meta.session : exact @name("session");
    }
    actions = { bound; NoAction; }
    const default_action = NoAction();
    size = SIZE_BINDINGS;
    IDLE_TIMEOUT
}

@name(NAME_STATUS)
table status {
    key = {
        meta.backend : exact @name("backend");
        meta.generation : exact @name("generation");
    }
    actions = { serves; NoAction; }
    const default_action = NoAction();
    size = SIZE_BACKENDS;
}
