// What is added to the timestamps of a backend, and which backend a timestamp that comes back names (`NUMBER`).
@name(".stamped")
action stamped(bit<32> stamp) {
    meta.stamp = stamp;
}

@name(".marked")
action marked(bit<32> stamp, bit<16> backend, bit<16> generation, bit<1> serves) {
    meta.stamp = stamp;
    meta.marked_backend = backend;
    meta.marked_generation = generation;
    meta.leads = serves;
}

@name(NAME_STAMPS)
table stamps {
    key = {
        meta.backend : exact @name("backend");
        meta.generation : exact @name("generation");
    }
    actions = { stamped; NoAction; }
    const default_action = NoAction();
    size = SIZE_STAMPS;
}

@name(NAME_MARKS)
table marks {
    key = {
        meta.service_slot : exact @name("service");
        NUMBER : exact @name("number");
    }
    actions = { marked; NoAction; }
    const default_action = NoAction();
    size = SIZE_STAMPS;
}
