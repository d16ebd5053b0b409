"""A QUIC client of another make: asks, changes its port, then its address, and asks again each time.

    aioquic_client.py SERVER PORT NAME ADDRESS OTHER-ADDRESS

Prints for each place the address and port that it asks from and what the server said.
"""

import asyncio
import ssl
import sys

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

PATIENCE = 10


async def ask(protocol, size):
    """Sends `size` bytes on a stream of their own; the answer."""
    reader, writer = await protocol.create_stream()
    writer.write(b"\7" * size)
    writer.write_eof()
    return (await asyncio.wait_for(reader.read(), PATIENCE)).decode()


async def main(server, port, name, address, other):
    """Three places, three questions in each."""
    configuration = QuicConfiguration(is_client=True, server_name=name, verify_mode=ssl.CERT_NONE)
    protocol = QuicConnectionProtocol(QuicConnection(configuration=configuration))
    loop = asyncio.get_running_loop()
    transport = None
    for place in (address, address, other):
        before = transport
        transport, _ = await loop.create_datagram_endpoint(lambda: protocol, local_addr=(place, 0))
        if before is None:
            # As the socket names it in what it receives.
            protocol.connect((server, int(port), 0, 0) if ":" in server else (server, int(port)))
            await asyncio.wait_for(protocol.wait_connected(), PATIENCE)
        else:
            before.close()
            protocol.change_connection_id()
        host, at = transport.get_extra_info("sockname")[:2]
        for size in (1, 60_000, 10):
            print(host, at, await ask(protocol, size), flush=True)
    protocol.close()


asyncio.run(main(*sys.argv[1:]))
