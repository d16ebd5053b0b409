"""Sends datagrams that carry session keys to an echo server, each session's from several clients and sockets, and prints
which backends answered each session.

usage: keys.py SERVER PORT SESSIONS CLIENT...

A key is the bytes 3 to 6; the upper half of its last byte belongs to something else.
"""
import os
import socket
import sys

server, port, sessions = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
talkers = []
for client in sys.argv[4:] * 2:
    talker = socket.socket(socket.AF_INET6 if ":" in client else socket.AF_INET, socket.SOCK_DGRAM)
    talker.bind((client, 0))
    talker.connect((server, port))
    talker.settimeout(2)
    talkers.append(talker)
for session in range(sessions):
    names = set()
    for number, talker in enumerate(talkers):
        key = b"key" + bytes([session & 15 | number << 4])
        if session > 15:
            key = b"KEY" + key[3:]
        sent = os.urandom(3) + key + os.urandom(20)
        talker.send(sent)
        name, _, echoed = talker.recv(65535).partition(b":")
        if echoed != sent:
            sys.exit(f"{len(sent)} bytes came back as {len(echoed)} others")
        names.add(name.decode())
    print(session, *sorted(names))
