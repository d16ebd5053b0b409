"""A client whose TCP timestamps stand behind an odd number of bytes: one request from an address that nobody has.

usage: odd.py INTERFACE MAC VIP
Prints the number in the server's timestamps and the first line of its answer.
"""
import socket
import struct
import sys
import time

from segment import covered, frame

SYN, ACK, PUSH = 2, 16, 8
CLIENT = bytes([10, 77, 0, 1])
PORT = 40000

interface, mac, vip = sys.argv[1], sys.argv[2], socket.inet_aton(sys.argv[3])


def send(flags, sequence, acknowledgement, options, data=b""):
    words = 5 + len(options) // 4
    tcp = struct.pack("!HHIIBBHHH", PORT, 80, sequence, acknowledgement, words << 4, flags, 65535, 0, 0) + options + data
    wire.send(frame(mac, CLIENT, vip, tcp))


def answer():
    """The next segment for the client that has its checksum right: number, flags, timestamp, data."""
    while True:
        came = wire.recv(2000)
        ip = came[14:]
        if came[12:14] != b"\x08\0" or ip[9] != 6 or ip[16:20] != CLIENT:
            continue
        tcp = ip[(ip[0] & 15) * 4:struct.unpack("!H", ip[2:4])[0]]
        if covered(ip[12:16], CLIENT, tcp) != 0:
            sys.exit("a checksum is wrong")
        end = (tcp[12] >> 4) * 4
        options, value = tcp[20:end], None
        while options and options[0] != 0:
            if options[0] == 8:
                value = struct.unpack("!I", options[2:6])[0]
            options = options[1:] if options[0] == 1 else options[options[1]:]
        return struct.unpack("!I", tcp[4:8])[0], tcp[13], value, tcp[end:]


def timestamps(echo):
    return b"\x08\x0a" + struct.pack("!II", 100, echo)


wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
wire.bind((interface, 0x0800))
wire.settimeout(10)
send(SYN, 1000, 0, b"\x02\x04\x05\xb4\x01" + timestamps(0) + b"\0")
theirs, flags, value, _ = answer()
if flags != SYN | ACK or value is None:
    sys.exit(f"no SYN-ACK with timestamps: flags {flags:#x}")
number = (value - int(time.time() * 1000) + (1 << 23)) >> 24 & 0xFF
send(ACK | PUSH, 1001, theirs + 1, b"\x01" + timestamps(value) + b"\x01", b"GET /whoami HTTP/1.0\r\n\r\n")
while True:
    _, flags, value, data = answer()
    if data:
        break
    if flags & ~ACK:
        sys.exit(f"no answer but flags {flags:#x}")
print(number, data.split(b"\r\n")[0].decode())
