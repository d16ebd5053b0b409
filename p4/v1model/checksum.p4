// Incremental checksums (RFC 1624, equation 3): what replaces what, 16 bits at a time.
#ifndef STICKLEBACK_CHECKSUM
#define STICKLEBACK_CHECKSUM

// Both as 16-bit words: `difference` grows by (~old + new).
#define REPLACE16(difference, before, after) difference = difference + (bit<32>)(~(bit<16>)(before)) + (bit<32>)((bit<16>)(after))
#define REPLACE32(difference, before, after) \
    REPLACE16(difference, (before)[31:16], (after)[31:16]); \
    REPLACE16(difference, (before)[15:0], (after)[15:0])
#define REPLACE128(difference, before, after) \
    REPLACE32(difference, (before)[127:96], (after)[127:96]); \
    REPLACE32(difference, (before)[95:64], (after)[95:64]); \
    REPLACE32(difference, (before)[63:32], (after)[63:32]); \
    REPLACE32(difference, (before)[31:0], (after)[31:0])

// Applies a difference to a checksum.
control Adjust(inout bit<16> checksum, in bit<32> difference) {
    apply {
        bit<32> sum = (bit<32>)(~checksum) + difference;
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        checksum = ~sum[15:0];
    }
}
#endif
