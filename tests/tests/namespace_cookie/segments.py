"""Talks TCP by itself, from an address that its kernel does not have, in segments that no kernel would send.

usage: segments.py SERVER PORT OWN

Prints a line of JSON for each case: which backend answered, and which session that backend read.
"""
import json
import re
import socket
import struct
import sys
import time

server, port, own = socket.inet_aton(sys.argv[1]), int(sys.argv[2]), socket.inet_aton(sys.argv[3])
sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
listener = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
SYN, RST, PSH, ACK, FIN = 2, 4, 8, 16, 1


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Client:
    """One connection; numbers are those of the client's first byte = 0."""

    next_port = 20000

    def __init__(self):
        Client.next_port += 1
        self.port, self.first, self.acknowledged, self.stream = Client.next_port, 0xFFFFFF00, 0, b""
        self.ended, self.taken = False, 0
        self.send(SYN, -1, b"")
        end = time.monotonic() + 3
        while not self.acknowledged and time.monotonic() < end:
            self.hear(0.5)
        self.send(ACK, 0, b"")

    def send(self, flags, place, data):
        number = (self.first + place) & 0xFFFFFFFF
        tcp = struct.pack(
            "!HHIIBBHHH", self.port, port, number, self.acknowledged, 5 << 4, flags, 64240, 0, 0
        ) + data
        pseudo = own + server + struct.pack("!BBH", 0, 6, len(tcp))
        tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, 6, 0, own, server)
        sender.sendto(ip + tcp, (socket.inet_ntoa(server), 0))

    def data(self, place, data):
        self.send(ACK | PSH, place, data)

    def hear(self, patience):
        """Takes in what comes for a while; acknowledges data that is in order."""
        end = time.monotonic() + patience
        while (left := end - time.monotonic()) > 0:
            listener.settimeout(left)
            try:
                packet = listener.recv(65535)
            except TimeoutError:
                return
            packet = packet[: struct.unpack("!H", packet[2:4])[0]]
            head = (packet[0] & 15) * 4
            if packet[9] != 6 or packet[12:16] != server or packet[16:20] != own:
                continue
            _, to, number, taken, offset, flags = struct.unpack("!HHIIBB", packet[head : head + 14])
            if to != self.port:
                continue
            data = packet[head + (offset >> 4) * 4 :]
            if flags & RST:
                self.ended = True
                return
            self.taken = max(self.taken, (taken - self.first) & 0xFFFFFFFF) if flags & ACK else self.taken
            if flags & SYN:
                if not self.acknowledged:
                    self.acknowledged = (number + 1) & 0xFFFFFFFF
                return
            if number == self.acknowledged and (data or flags & FIN):
                self.stream += data
                self.acknowledged = (number + len(data) + (flags & FIN)) & 0xFFFFFFFF
                self.send(ACK, self.taken, b"")
                if flags & FIN:
                    self.ended = True
                    return

    def answers(self, case, again=()):
        """Waits for the end of the connection; `again` is sent when nothing has come for a while."""
        for _ in range(12):
            self.hear(0.25)
            if self.ended:
                break
            for place, data in again:
                if place + len(data) > self.taken:
                    self.data(place, data)
        told = re.findall(rb'"backend":"(\w+)".*?"session":"([^"]*)"', self.stream)
        backend, session = [part.decode() for part in told[-1]] if told else (None, None)
        print(json.dumps({"case": case, "backend": backend, "session": session, "count": len(told)}), flush=True)


def request(session, close=True):
    end = b"Connection: close\r\n\r\n" if close else b"\r\n"
    return b"GET /whoami HTTP/1.1\r\nHost: x\r\nCookie: SESS=" + session + b"\r\n" + end


for n in range(4):
    a, b = b"over%da" % n, b"laps%db" % n
    # An acknowledged piece comes again with another content, and more behind it.
    c, whole, other = Client(), request(a), request(b)
    c.data(0, whole[:60])
    c.hear(0.02)
    c.data(20, other[20:])
    c.answers("overlap of what was acknowledged", [(0, whole)])
    # The whole request comes again with another cookie while the backend is being asked.
    c = Client()
    c.data(0, whole)
    c.data(0, other)
    c.answers("another request in the same place", [(0, whole)])
    # The end first.
    c = Client()
    c.data(50, whole[50:])
    c.data(0, whole[:50])
    c.answers("the end first", [(0, whole)])
    # Beyond the hole something else than what fills it in the end.
    c = Client()
    c.data(0, whole[:30])
    c.data(50, other[50:])
    c.data(30, whole[30:])
    c.answers("another end first", [(0, whole)])
    # Two requests in one segment: the first one counts.
    c = Client()
    c.data(0, request(a, close=False) + request(a))
    c.answers("two at once", [(0, request(a, close=False) + request(a))])
