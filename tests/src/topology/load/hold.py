"""Holds a connection from each of some addresses open until it is killed: hold.py VIP PORT ADDRESS...

Says how many it holds, and how many were refused.
"""

import socket
import sys
import time

vip, port, *addresses = sys.argv[1:]
held, refused = [], 0
for address in addresses:
    connection = socket.socket()
    connection.bind((address, 0))
    connection.settimeout(20)
    try:
        connection.connect((vip, int(port)))
        held.append(connection)
    except ConnectionRefusedError:
        refused += 1
print(f"held {len(held)} refused {refused}", flush=True)
time.sleep(3600)
