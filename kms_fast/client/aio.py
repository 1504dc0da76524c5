"""The asyncio shell: streams and timeouts around the sans-I/O round. The state file is read and written in place."""

import asyncio
import socket
import uuid
from contextlib import ExitStack

from kms_fast.client.blocking import ANSWER_S, CONNECT_S, READ_BYTES, describe_failure
from kms_fast.client.exchange import HostExchange
from kms_fast.client.installation import Installation
from kms_fast.client.lease import Lease
from kms_fast.client.round import Round
from kms_fast.discovery.address import HostAddress
from kms_fast.discovery.srv import Service, find_hosts_async
from kms_fast.errors import NoHost


class AsyncClient(Installation):
    """As `blocking.Client`, for asyncio: only the network is awaited, the state file is small and read in place."""

    async def activate(self, sku: uuid.UUID | None = None) -> Lease:
        """Ask the hosts now; returns the new lease. Raises as `blocking.Client.activate`."""
        round_ = self.begin(sku)
        await carry_out(round_)
        return self.finish(round_)

    async def renew(self, sku: uuid.UUID | None = None) -> Lease | None:
        """Activate if it is time to, else None. Call it at start and every few minutes; errors as `activate`."""
        return await self.activate(sku) if self.is_due(sku) else None


async def carry_out(round_: Round) -> None:
    """Do what a round asks for, until it is over."""
    while (task := round_.next_task()) is not None:
        if isinstance(task, Service):
            try:
                round_.found(await find_hosts_async(task))
            except NoHost as error:
                round_.not_found(error)
        else:
            await ask(task)


async def ask(exchange: HostExchange) -> None:
    """Carry out one exchange: 5 s to connect to each address of the host, 10 s for the answer."""
    try:
        reader, writer = await _connect(exchange.host)
    except (OSError, UnicodeError) as error:
        exchange.lose(describe_failure(error))
        return
    try:
        async with asyncio.timeout(ANSWER_S):
            writer.write(exchange.start())
            while not exchange.done:
                data = await reader.read(READ_BYTES)
                if not data:
                    exchange.lose("it closed the connection without an answer")
                elif reply := exchange.receive(data):
                    writer.write(reply)
    except TimeoutError:
        exchange.lose(f"no answer within {ANSWER_S:.0f} s")
    except OSError as error:
        exchange.lose(f"the connection broke: {describe_failure(error)}")
    finally:
        writer.close()


async def _connect(host: HostAddress) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As `socket.create_connection`; not every event loop has ``happy_eyeballs_delay``. Raises OSError."""
    loop = asyncio.get_running_loop()
    failure = OSError("its name has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host.name, host.port, type=socket.SOCK_STREAM):
        with ExitStack() as opened:
            try:
                connection = opened.enter_context(socket.socket(family, kind, protocol))
                connection.setblocking(False)
                async with asyncio.timeout(CONNECT_S):
                    await loop.sock_connect(connection, address)
            except OSError as error:
                failure = error
                continue
            opened.pop_all()
        return await asyncio.open_connection(sock=connection)
    raise failure
