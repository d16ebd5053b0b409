// What holds for the whole switch. Where the target keeps the ends of its tunnels is `TUNNELS`.
@name(".settings")
action settings(bit<9> cpu_port, address_t tunnel_v4, address_t tunnel_v6) {
    meta.cpu_port = cpu_port;
    TUNNELS(tunnel_v4, tunnel_v6);
}

@name(NAME_SETTINGS)
table node {
    actions = { settings; }
    default_action = settings(NO_CPU_PORT, 0, 0);
    size = 1;
}
