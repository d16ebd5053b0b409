"""Sends one TCP segment each of many clients that do not exist.

usage: strangers.py INTERFACE MAC VIP COUNT
"""
import socket
import struct
import sys
import time

from segment import frame

interface, mac, vip, count = sys.argv[1], sys.argv[2], socket.inet_aton(sys.argv[3]), int(sys.argv[4])

wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind((interface, 0))
for number in range(count):
    source = struct.pack("!BBH", 10, 77, number)
    wire.send(frame(mac, source, vip, struct.pack("!HHIIBBHHH", 40000, 80, 1000, 1000, 0x50, 0x10, 65535, 0, 0)))
    if number % 20 == 19:
        time.sleep(0.01)
