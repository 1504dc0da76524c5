"""The uvloop limit: what the event loop leaves a server. The same as echo.c, as an asyncio protocol on uvloop."""

import asyncio
import sys

import uvloop

BIND_ACK, RESPONSE = map(bytes.fromhex, sys.argv[1:])
PTYPE_OFFSET, PTYPE_BIND = 2, 11


class Limit(asyncio.Protocol):
    def connection_made(self, transport):
        self.write = transport.write

    def data_received(self, data):
        self.write(BIND_ACK if data[PTYPE_OFFSET] == PTYPE_BIND else RESPONSE)


async def main():
    server = await asyncio.get_running_loop().create_server(Limit, "127.0.0.1", 0, backlog=4096)
    print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


uvloop.run(main())
