"""Looking at a host without activating: whether one answers, speaks our interface, and whom the publisher certified.

A probe is a request of a machine that does not exist, with the time 1970. A host refuses it for its clock before it
counts it, and signs that: the answer has certificate, batch and proof, and changes no count.
"""

import uuid
from typing import Final

from kms_fast.client.exchange import HostExchange
from kms_fast.client.machine import Clock
from kms_fast.client.request import RequestFields
from kms_fast.client.trust import Inquiry, Trust, newest_revocations
from kms_fast.discovery.address import HostAddress

# One for all, so that an inventory has one row for whoever probes its hosts.
CMID: Final = uuid.UUID("9b2f4a52-0f5e-4c8e-9d6b-6a1c5b7d3e10")
NAME: Final = "kms-fast probe"


def build_probe(host: HostAddress, trust: Trust, clock: Clock, revocations: bytes | None = None) -> HostExchange:
    """The exchange that looks at ``host``; a shell's ``ask`` carries it out (`blocking.ask`, `aio.ask`).

    ``revocations``: a received list, if the publisher file's is not the newest known. Its outcome is ``REFUSED`` for a
    host of the publisher, ``REJECTED`` for an answer that fails a check, and else as for an activation.
    """
    fields = RequestFields(cmid=CMID.bytes, hardware_digest=bytes(16), client_time_ms=0, name=NAME)
    inquiry = Inquiry(
        trust,
        fields.seal(trust.keys),
        fields,
        revocations=newest_revocations(trust.publisher, revocations),
        clock=clock,
        mark_ms=0,
    )
    return HostExchange(host, inquiry)
