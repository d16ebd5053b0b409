// The wall clock in milliseconds, as it was when `lbd` wrote it last.
@name(".clock")
action clock(bit<32> wall) {
    meta.wall = wall;
}

@name(NAME_CLOCK)
table written {
    actions = { clock; }
    default_action = clock(0);
    size = 1;
}
