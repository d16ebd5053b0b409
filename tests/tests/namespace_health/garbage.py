"""Answers every connection to a port with something that is not HTTP."""

import socket
import sys

server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("0.0.0.0", int(sys.argv[1])))
server.listen(128)
while True:
    connection, _ = server.accept()
    try:
        connection.recv(4096)
        connection.sendall(b"\x16\x03\x01 this is no answer\r\n\r\n")
    except OSError:
        pass
    connection.close()
