"""Sends a request in two segments, cut at every place, and prints who answered.

usage: split.py HOST PORT SESSION
"""
import json
import queue
import socket
import sys
import threading
import time

host, port, session = sys.argv[1], int(sys.argv[2]), sys.argv[3]
REQUEST = f"GET /whoami HTTP/1.1\r\nHost: x\r\nCookie: a=b; SESS={session}\r\nConnection: close\r\n\r\n".encode()
places = queue.SimpleQueue()
for place in range(1, len(REQUEST)):
    places.put(place)


def ask(place):
    with socket.create_connection((host, port), timeout=10) as talker:
        talker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        talker.sendall(REQUEST[:place])
        time.sleep(0.005)
        talker.sendall(REQUEST[place:])
        answer = b""
        while chunk := talker.recv(65536):
            answer += chunk
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def work():
    while True:
        try:
            place = places.get_nowait()
        except queue.Empty:
            return
        try:
            told = ask(place) | {"error": None}
        except (OSError, ValueError) as failure:
            told = {"error": repr(failure)}
        sys.stdout.write(json.dumps(told | {"place": place}) + "\n")


workers = [threading.Thread(target=work) for _ in range(6)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
