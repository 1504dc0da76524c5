"""A name server over UDP that has the SRV records of a test; for lookups that need no real server."""

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

Zone = Mapping[str, Sequence[str] | dns.rcode.Rcode | None]


@contextmanager
def serve_zone(zone: Zone) -> Iterator[int]:
    """Runs a name server with these SRV records, or failures, by owner name; other names do not exist, and for None it
    is silent. Its port.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        threading.Thread(target=_answer_queries, args=(server, zone), daemon=True).start()
        yield int(server.getsockname()[1])


def _answer_queries(server: socket.socket, zone: Zone) -> None:
    while True:
        try:
            data, peer = server.recvfrom(4096)
        except OSError:
            return
        query = dns.message.from_wire(data)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        found = zone.get(query.question[0].name.to_text(), dns.rcode.NXDOMAIN)
        if found is None:
            continue
        if isinstance(found, dns.rcode.Rcode):
            response.set_rcode(found)
        elif found:
            response.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "SRV", *found))
        server.sendto(response.to_wire(), peer)
