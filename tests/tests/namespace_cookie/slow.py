"""Many clients at once that write a request byte by byte; prints who answered each of them.

usage: slow.py HOST PORT CLIENTS PAUSE REST

PAUSE is in milliseconds. In the middle of the head they rest for so many seconds.
"""
import asyncio
import json
import socket
import sys

host, port, clients, pause = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]) / 1000
rest = int(sys.argv[5])


async def ask(number):
    session = f"slow{number}"
    request = f"GET /whoami HTTP/1.1\r\nHost: x\r\nCookie: SESS={session}\r\nConnection: close\r\n\r\n".encode()
    told = {"session": session, "error": None}
    try:
        reader, writer = await asyncio.open_connection(host, port)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for place in range(len(request)):
            if place == 25:
                await asyncio.sleep(rest)
            writer.write(request[place : place + 1])
            await asyncio.sleep(pause)
        answer = await asyncio.wait_for(reader.read(), 15)
        writer.close()
        told |= json.loads(answer.partition(b"\r\n\r\n")[2])
    except (OSError, ValueError, asyncio.TimeoutError) as failure:
        told["error"] = type(failure).__name__
    print(json.dumps(told), flush=True)


async def main():
    await asyncio.gather(*(ask(number) for number in range(clients)))


asyncio.run(main())
