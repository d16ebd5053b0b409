// Sizes that a pipeline of twelve stages has room for.
#ifndef STICKLEBACK_SIZES
#define STICKLEBACK_SIZES

#define SIZE_SERVICES 1024
#define SIZE_ANY_PORT 256
#define SIZE_ALONE 1024
#define SIZE_VIPS 1024
#define SIZE_REPLIES 8192
#define SIZE_RETURNS 1024
#define SIZE_AFFINITIES 1024
#define SIZE_QUIC 4096
#define SIZE_SERVERS 8192
#define SIZE_BINDINGS 147456
#define SIZE_ARENA 65536
#define SIZE_BACKENDS 8192
#define SIZE_ROUTES 512
#define SIZE_STAMPS 8192
#define SIZE_OFFLOADED 4096
#define SIZE_TURNS 16384
#define SIZE_SERVICE_COUNTERS 4097
#define SIZE_OUTCOMES 64
#define SIZE_DOORKEEPER 65536
// Backends are numbered up to here, however few there are.
#define SIZE_BACKEND_COUNTERS 16384
#endif
