"""Sends datagrams to an echo server and prints who answered.

usage: talk.py CLIENT SERVER PORT SIZE COUNT
"""
import os
import socket
import sys

client, server, port, size, count = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
family = socket.AF_INET6 if ":" in client else socket.AF_INET
talker = socket.socket(family, socket.SOCK_DGRAM)
talker.bind((client, 0))
talker.connect((server, port))
talker.settimeout(2)
for _ in range(count):
    sent = os.urandom(size)
    talker.send(sent)
    name, _, echoed = talker.recv(65535).partition(b":")
    if echoed != sent:
        sys.exit(f"{len(sent)} bytes came back as {len(echoed)} others")
    print(name.decode())
