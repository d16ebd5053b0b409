"""Writes a request in pieces, reads to the end of the connection, prints what came and how long it took.

usage: pieces.py HOST PORT OPTIONS PIECE...

OPTIONS is a comma-separated list: `nodelay`, `shut` (no more is written after the last piece), `pause=MS`.
A piece is a Python bytes literal, perhaps with `*N` behind it.
"""
import ast
import json
import socket
import sys
import time

host, port, options, *pieces = sys.argv[1:]
options = dict((o.split("=") + [""])[:2] for o in options.split(","))


def piece(text):
    literal, _, times = text.rpartition("*") if text[-1].isdigit() else (text, "", "1")
    return ast.literal_eval(literal) * int(times)


talker = socket.create_connection((host, int(port)), timeout=5)
if "nodelay" in options:
    talker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
begin = time.monotonic()
answer = b""
error = ""
try:
    for text in pieces:
        talker.sendall(piece(text))
        time.sleep(float(options.get("pause", 0)) / 1000)
    if "shut" in options:
        talker.shutdown(socket.SHUT_WR)
    while chunk := talker.recv(65536):
        answer += chunk
except OSError as failure:
    error = type(failure).__name__
took = time.monotonic() - begin
print(json.dumps({"answer": answer.decode("latin1"), "error": error, "ms": round(took * 1000)}))
