"""Fetches or stores a file without hurry, and as fast as it can once another file is there.

usage: stroll.py HOST PORT get|put PATH FILE HURRY
"""
import http.client
import os
import sys
import time

host, port, verb, path, file, hurry = sys.argv[1:]
STEP, PAUSE = 4096, 0.05
talker = http.client.HTTPConnection(host, int(port), timeout=120)


def step():
    if os.path.exists(hurry):
        return 16 * STEP
    time.sleep(PAUSE)
    return STEP


def check(response, expected):
    if response.status not in expected:
        sys.exit(f"{response.status} {response.reason}")


if verb == "get":
    talker.request("GET", path)
    response = talker.getresponse()
    check(response, [200])
    with open(file, "wb") as into:
        while piece := response.read(step()):
            into.write(piece)
else:
    talker.putrequest("PUT", path)
    talker.putheader("Content-Length", str(os.path.getsize(file)))
    talker.endheaders()
    with open(file, "rb") as of:
        while piece := of.read(step()):
            talker.send(piece)
    check(talker.getresponse(), [201, 204])
