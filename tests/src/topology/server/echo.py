"""Answers UDP datagrams with NAME: and the datagram, from the address that it came to.

usage: echo.py NAME (ADDRESS PORT)...
"""
import selectors
import socket
import sys

name = sys.argv[1].encode()
selector = selectors.DefaultSelector()
for address, port in zip(sys.argv[2::2], sys.argv[3::2]):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    server.bind((address, int(port)))
    selector.register(server, selectors.EVENT_READ)
while True:
    for key, _ in selector.select():
        data, client = key.fileobj.recvfrom(65535)
        key.fileobj.sendto(name + b":" + data, client)
