"""Sends one datagram with a hop limit and prints what comes back: an answer, or an ICMP error and its sender.

usage: trace.py CLIENT SERVER PORT HOPS
"""
import select
import socket
import struct
import sys

client, server, port, hops = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
IP_RECVERR, IPV6_RECVERR = 11, 25
if ":" in client:
    tracer = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    tracer.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
    tracer.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
else:
    tracer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tracer.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
    tracer.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
tracer.bind((client, 0))
tracer.connect((server, port))
tracer.send(b"where")
poll = select.poll()
poll.register(tracer, select.POLLIN | select.POLLERR)
events = poll.poll(2000)
if not events:
    sys.exit("nothing came back")
if events[0][1] & select.POLLERR:
    _, control, _, _ = tracer.recvmsg(512, 512, socket.MSG_ERRQUEUE)
    for _, _, data in control:
        _, _, kind, code = struct.unpack_from("=IBBB", data)
        # The offender's address follows the 16 bytes of the error: family, port, then the address.
        if ":" in client:
            expired, sender = kind == 3, socket.inet_ntop(socket.AF_INET6, data[24:40])
        else:
            expired, sender = kind == 11, socket.inet_ntop(socket.AF_INET, data[20:24])
        print(f"time-exceeded {sender}" if expired else f"error {kind}/{code} {sender}")
else:
    print("answer", tracer.recv(65535).partition(b":")[0].decode())
