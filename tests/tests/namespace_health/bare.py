"""Answers UDP datagrams over IPv4 with `bare` and without a checksum: bare.py ADDRESS PORT."""
import socket
import sys

SO_NO_CHECK = 11

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
server.bind((sys.argv[1], int(sys.argv[2])))
while True:
    _, client = server.recvfrom(2048)
    server.sendto(b"bare", client)
