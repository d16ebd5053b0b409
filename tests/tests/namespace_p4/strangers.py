"""Sends one TCP segment each of many clients that do not exist.

usage: strangers.py INTERFACE MAC VIP COUNT
"""
import socket
import struct
import sys
import time

interface, mac, vip, count = sys.argv[1], sys.argv[2], socket.inet_aton(sys.argv[3]), int(sys.argv[4])


def total(data):
    sum = 0
    for place in range(0, len(data), 2):
        sum += data[place] << 8 | data[place + 1]
    while sum >> 16:
        sum = (sum & 0xFFFF) + (sum >> 16)
    return ~sum & 0xFFFF


wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind((interface, 0))
ethernet = bytes.fromhex(mac.replace(":", "")) + b"\x02\0\0\0\0\xc1\x08\0"
for number in range(count):
    source = struct.pack("!BBH", 10, 77, number)
    tcp = struct.pack("!HHIIBBHHH", 40000, 80, 1000, 1000, 0x50, 0x10, 65535, 0, 0)
    sum = total(source + vip + struct.pack("!HH", 6, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack("!H", sum) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0) + source + vip
    ip = ip[:10] + struct.pack("!H", total(ip)) + ip[12:]
    wire.send(ethernet + ip + tcp)
    if number % 20 == 19:
        time.sleep(0.01)
