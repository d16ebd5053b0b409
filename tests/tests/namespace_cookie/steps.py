"""Sends two requests on one connection, the first one in two pieces, and prints who answered them.

usage: steps.py HOST PORT SESSION
"""
import json
import socket
import sys
import time

host, port, session = sys.argv[1], int(sys.argv[2]), sys.argv[3]
HEAD = f"Host: x\r\nCookie: SESS={session}\r\n".encode()
talker = socket.create_connection((host, port), timeout=15)
talker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
answers = talker.makefile("rb")


def answer():
    assert answers.readline().startswith(b"HTTP/1.1 200"), "not served"
    length = 0
    while (line := answers.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return json.loads(answers.read(length))["backend"]


talker.sendall(b"GET /whoami HTTP/1.1\r\n")
time.sleep(0.02)
talker.sendall(HEAD + b"\r\n")
print(answer())
talker.sendall(b"GET /whoami HTTP/1.1\r\n" + HEAD + b"Connection: close\r\n\r\n")
print(answer())
assert answers.read() == b"", "more than two answers"
