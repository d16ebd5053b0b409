"""Sends datagrams to an echo server from several clients and prints which backend answered each of them.

usage: talk.py SERVER PORT SIZE COUNT CLIENT...
"""
import os
import socket
import sys

server, (port, size, count) = sys.argv[1], map(int, sys.argv[2:5])
for client in sys.argv[5:]:
    family = socket.AF_INET6 if ":" in client else socket.AF_INET
    talker = socket.socket(family, socket.SOCK_DGRAM)
    talker.bind((client, 0))
    talker.connect((server, port))
    talker.settimeout(2)
    names = set()
    for _ in range(count):
        sent = os.urandom(size)
        talker.send(sent)
        name, _, echoed = talker.recv(65535).partition(b":")
        if echoed != sent:
            sys.exit(f"{client}: {len(sent)} bytes came back as {len(echoed)} others")
        names.add(name.decode())
    if len(names) != 1:
        sys.exit(f"{client}: one flow was served by {names}")
    print(client, *names)
