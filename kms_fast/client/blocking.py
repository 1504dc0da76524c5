"""The blocking shell: sockets and timeouts around the sans-I/O round."""

import os
import socket
import time
import uuid

from kms_fast.client.exchange import HostBind
from kms_fast.client.installation import Installation
from kms_fast.client.lease import Lease
from kms_fast.client.round import Round
from kms_fast.discovery.srv import Service, find_hosts
from kms_fast.errors import NoHost

CONNECT_S = 5.0
ANSWER_S = 10.0
READ_BYTES = 65_536


class Client(Installation):
    """Activates this machine's products; what it keeps and where is told in `Installation`.

    Safe to use from several processes; one object belongs to one thread at a time.
    """

    def activate(self, sku: uuid.UUID | None = None) -> Lease:
        """Ask the hosts now; returns the new lease.

        Raises `Refused`, `Unsigned`, `AnswerRejected` or `NoHost`: no host granted; the licence state is what it was.
        """
        round_ = self.begin(sku)
        carry_out(round_)
        return self.finish(round_)

    def renew(self, sku: uuid.UUID | None = None) -> Lease | None:
        """Activate if it is time to, else None. Call it at start and every few minutes; errors as `activate`."""
        return self.activate(sku) if self.is_due(sku) else None


def carry_out(round_: Round) -> None:
    """Do what a round asks for, until it is over."""
    while (task := round_.next_task()) is not None:
        if isinstance(task, Service):
            try:
                round_.found(find_hosts(task))
            except NoHost as error:
                round_.not_found(error)
        else:
            ask(task)


def ask(exchange: HostBind) -> None:
    """Carry out one exchange: 5 s to connect to each address of the host, 10 s for the answer."""
    host = exchange.host
    try:
        connection = socket.create_connection((host.name, host.port), CONNECT_S)
    except (OSError, UnicodeError) as error:
        exchange.lose(describe_failure(error))
        return
    with connection:
        deadline_s = time.monotonic() + ANSWER_S
        try:
            connection.sendall(exchange.start())
            while not exchange.done:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:  # a host that never stops talking lets no recv time out
                    raise TimeoutError
                connection.settimeout(left_s)
                data = connection.recv(READ_BYTES)
                if not data:
                    exchange.lose("it closed the connection without an answer")
                elif reply := exchange.receive(data):
                    connection.sendall(reply)
        except TimeoutError:
            exchange.lose(f"no answer within {ANSWER_S:.0f} s")
        except OSError as error:
            exchange.lose(f"the connection broke: {describe_failure(error)}")


def describe_failure(error: OSError | UnicodeError) -> str:
    """Why a connection failed, as the system says it."""
    if isinstance(error, UnicodeError):  # a record in DNS may name anything
        return "its name is not one of a host"
    if isinstance(error, TimeoutError):
        return f"no connection within {CONNECT_S:.0f} s"
    if isinstance(error, socket.gaierror):
        return f"its name does not resolve: {error.strerror}"
    # asyncio puts words of its own into strerror.
    return os.strerror(error.errno) if error.errno else str(error)
