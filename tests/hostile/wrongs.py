"""What a hostile host can do wrong, and the error that a client must give: the table :data:`WRONGS`."""

import os
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.hostile.host import Behaviour, Dialogue
from tests.hosts import make_key
from tests.reference import rpc
from tests.reference.certificate import DAY_MS, Family
from tests.reference.host import Publisher, Scene
from tests.reference.request import seal_request
from tests.reference.rpc import Pdu
from tests.reference.verify import HOUR_MS

STRANGER = Publisher.from_seed("stranger")
STRANGE_KEY = make_key("stranger")


class Wrong(NamedTuple):
    """A behaviour, the client's exception (of kms_fast.errors) and the name of its result."""

    behave: Behaviour
    error: str
    name: str


def answering(make: Callable[[Scene], bytes]) -> Behaviour:
    """Takes the call, answers with what ``make`` makes of it, and waits for the client to go."""

    def behave(dialogue: Dialogue) -> None:
        dialogue.take_call()
        dialogue.respond(make(dialogue.scene()))
        dialogue.wait(1)

    return behave


def rejected(name: str, make: Callable[[Scene], bytes]) -> Wrong:
    return Wrong(answering(make), "AnswerRejected", name)


def refused(name: str, make: Callable[[Scene], bytes]) -> Wrong:
    return Wrong(answering(make), "Refused", name)


def unsigned(name: str, result: int, answer: bytes | None = None) -> Wrong:
    def behave(dialogue: Dialogue) -> None:
        dialogue.take_call()
        dialogue.respond(answer, result)
        dialogue.wait(1)

    return Wrong(behave, "Unsigned", name)


def garbage(behave: Behaviour) -> Wrong:
    """What answers does not speak the protocol."""
    return Wrong(behave, "AnswerRejected", "RPC_REFUSED")


def unreachable(behave: Behaviour) -> Wrong:
    return Wrong(behave, "NoHost", "NO_HOST_REACHED")


def saying(data: bytes, after: Callable[[Dialogue], Any] = Dialogue.read) -> Behaviour:
    """Says ``data`` when ``after`` has been done, a PDU with the client's call ID, and waits for the client to go."""

    def behave(dialogue: Dialogue) -> None:
        after(dialogue)
        is_pdu = data[:2] == b"\5\0"
        dialogue.send(data[:12] + struct.pack("<I", dialogue.call_id) + data[16:] if is_pdu else data)
        dialogue.wait(1)

    return behave


def flipped(offset: int) -> Callable[[Scene], bytes]:
    """An honest answer with one bit of the byte at ``offset`` flipped."""

    def make(scene: Scene) -> bytes:
        answer = bytearray(scene.answer())
        answer[offset] ^= 4
        return bytes(answer)

    return make


def answer_to_another(scene: Scene) -> bytes:
    """An honest answer to another request of the same machine."""
    request = seal_request(scene.sku.keys, scene.fields.to_bytes(), os.urandom(16))
    return scene._replace(request=request).answer()


def shifted(**hours: float) -> Callable[[Scene], bytes]:
    """The answer of a host whose clock is off, with certificates valid then; ``leaf`` changes may follow."""
    return lambda scene: scene._replace(time=scene.time + int(hours["hours"] * HOUR_MS)).answer(
        leaf={"result": 0, "validity": 9}
    )


def dated(part: str, first: int, last: int) -> Callable[[Scene], bytes]:
    """A certificate valid from ``first`` to ``last`` days from now."""

    def make(scene: Scene) -> bytes:
        dates = {"not_before": scene.time + first * DAY_MS, "not_after": scene.time + last * DAY_MS}
        return scene.answer(certificate=dates) if part == "certificate" else scene.answer(issuer=dates)

    return make


def of_families(*families: Family, **leaf: int) -> Callable[[Scene], bytes]:
    """A grant under a certificate of other families."""
    return lambda scene: scene._replace(families=families).answer(leaf={"result": 0, "validity": 9, **leaf})


def answer_cut(dialogue: Dialogue) -> None:
    """Half of a response, then the end."""
    dialogue.take_call()
    response = rpc.build_response(dialogue.call_id, dialogue.scene().answer(), 0)
    dialogue.send(response[: len(response) // 2])


def endless_bytes(dialogue: Dialogue) -> None:
    """Random bytes without end."""
    dialogue.read()
    while not dialogue.stopped.is_set():
        dialogue.send(os.urandom(4096))


def endless_fragments(size: int) -> Behaviour:
    """Fragments of one response, with ``size`` octets of stub each, without end."""

    def behave(dialogue: Dialogue) -> None:
        dialogue.take_call()
        head = struct.pack("<IHBB", size, 0, 0, 0)
        flags = rpc.FIRST
        while not dialogue.stopped.is_set():
            dialogue.send(
                Pdu(rpc.RESPONSE, dialogue.call_id, head + bytes(size), flags).to_bytes() * (1 if flags else 50)
            )
            flags = 0

    return behave


def dripping(dialogue: Dialogue) -> None:
    """An honest answer, an octet in half a second: it would take minutes."""
    dialogue.take_call()
    for octet in rpc.build_response(dialogue.call_id, dialogue.scene().answer(), 0):
        dialogue.send(bytes([octet]))
        if dialogue.wait(0.5):
            return


def silent_after(step: Callable[[Dialogue], Any]) -> Behaviour:
    def behave(dialogue: Dialogue) -> None:
        step(dialogue)
        dialogue.wait()

    return behave


def reading(dialogue: Dialogue) -> None:
    dialogue.read()


def revoking_itself(dialogue: Dialogue) -> None:
    """Grants, names a newer revocation list and hands it out; its own certificate is in it."""
    dialogue.take_call()
    scene = dialogue.scene()
    dialogue.respond(scene.answer(header={"revocation_list": 9}))
    dialogue.take_argument()
    issuer = scene.publisher.issue_issuer(scene.time - DAY_MS)
    dialogue.respond(scene.publisher.issue_revocations(9, scene.time, [1], issuer))
    dialogue.wait(1)


def other_call(further: int) -> Behaviour:
    """The right answer to a call that was not made."""

    def behave(dialogue: Dialogue) -> None:
        dialogue.take_call()
        dialogue.call_id += further
        dialogue.respond(dialogue.scene().answer())
        dialogue.wait(1)

    return behave


def _response(stub: bytes) -> bytes:
    return Pdu(rpc.RESPONSE, 0, struct.pack("<IHBB", len(stub), 0, 0, 0) + stub).to_bytes()


BIND = Pdu(rpc.BIND, 0, b"")
REJECTED_ANSWERS = {
    "wrong root": rejected("ROOT_UNKNOWN", lambda s: s._replace(publisher=STRANGER).answer()),
    "issuer not signed by the root": rejected("ISSUER_SIGNATURE", lambda s: s.answer(issuer_signer=STRANGE_KEY)),
    "issuer without the right": rejected("ISSUER_RIGHTS", lambda s: s.answer(issuer={"rights": 6})),
    "issuer expired": rejected("ISSUER_DATES", dated("issuer", -30, -1)),
    "issuer not yet valid": rejected("ISSUER_DATES", dated("issuer", 1, 30)),
    "issuer valid for too long": rejected("ISSUER_DATES", dated("issuer", -1, 731)),
    "certificate not signed by the issuer": rejected(
        "CERTIFICATE_SIGNATURE", lambda s: s.answer(certificate_signer=STRANGE_KEY)
    ),
    "certificate of another kind": rejected("CERTIFICATE_KIND", lambda s: s.answer(certificate={"kind": 3})),
    "certificate expired": rejected("CERTIFICATE_DATES", dated("certificate", -30, -1)),
    "certificate not yet valid": rejected("CERTIFICATE_DATES", dated("certificate", 1, 30)),
    "family not certified": rejected("FAMILY_NOT_CERTIFIED", of_families(Family(2, 9, 1, 99), family_index=255)),
    "another family's certificate": rejected("FAMILY_NOT_CERTIFIED", of_families(Family(2, 9, 1, 99), family_index=0)),
    "generation not certified": rejected("GENERATION_NOT_CERTIFIED", of_families(Family(1, 2, 1, 99))),
    "another generation": rejected("GENERATION_NOT_CERTIFIED", lambda s: s.answer(leaf={"generation": 1})),
    "revokes itself": Wrong(revoking_itself, "AnswerRejected", "CERTIFICATE_REVOKED"),
    "another host's header": rejected("HEADER_HOST_MISMATCH", lambda s: s.answer(header={"serial": 7})),
    "header not signed by the host": rejected("BATCH_SIGNATURE", lambda s: s.answer(header_signer=STRANGE_KEY)),
    "leaf not in the tree": rejected("NOT_INCLUDED", lambda s: s.answer(header={"root": bytes(32)})),
    "count below threshold": rejected("COUNT_OUT_OF_BOUNDS", lambda s: s.answer(leaf={"threshold": 2}, count=1)),
    "threshold below the certified": rejected(
        "THRESHOLD_OUT_OF_BOUNDS", lambda s: s.answer(leaf={"threshold": 0})
    ),
    "validity above the certified": rejected("VALIDITY_OUT_OF_BOUNDS", lambda s: s.answer(leaf={"validity": 259_201})),
    "validity zero": rejected("VALIDITY_OUT_OF_BOUNDS", lambda s: s.answer(leaf={"validity": 0})),
    "host five hours ahead": rejected("ANSWER_TIME", shifted(hours=5)),
    "host five hours behind": rejected("ANSWER_TIME", shifted(hours=-5)),
    "answer to another request": rejected("ANSWER_UNREADABLE", answer_to_another),
    "leaf of another request": rejected("REQUEST_HASH_MISMATCH", lambda s: s.answer(leaf={"request_hash": bytes(32)})),
    "leaf of another product": rejected("SKU_MISMATCH", lambda s: s.answer(leaf={"sku_id": bytes(16)})),
    "leaf of another machine": rejected("CMID_MISMATCH", lambda s: s.answer(leaf={"cmid": bytes(16)})),
    "leaf of other hardware": rejected("HARDWARE_MISMATCH", lambda s: s.answer(leaf={"hardware_digest": bytes(16)})),
    "bit of the version flipped": rejected("ANSWER_MALFORMED", flipped(0)),
    "bit of the index flipped": rejected("NOT_INCLUDED", flipped(2)),
    "bit of the sealed leaf flipped": rejected("ANSWER_UNREADABLE", flipped(99)),
    "bit of the path flipped": rejected("NOT_INCLUDED", flipped(150)),
    "bit of the header flipped": rejected("ANSWER_UNREADABLE", flipped(140 + 96 + 50)),
    "bit of the issuer flipped": rejected("ISSUER_SIGNATURE", flipped(-1)),
    "answer cut by a byte": rejected("ANSWER_MALFORMED", lambda s: s.answer()[:-1]),
    "answer of no bytes": rejected("ANSWER_MALFORMED", lambda s: b""),
    "no answer and result 0": Wrong(
        saying(rpc.build_response(0, None, 0), Dialogue.take_call), "AnswerRejected", "ANSWER_MALFORMED"
    ),
}  # fmt: skip
SIGNED_REFUSALS = {
    "below threshold": refused("COUNT_TOO_LOW", lambda s: s._replace(sku=s.sku._replace(threshold=9)).answer(count=3)),
    "family not served": refused("HOST_CANNOT_SERVE", lambda s: s._replace(families=[Family(2, 9, 1, 99)]).answer()),
    "product too new": refused("HOST_CANNOT_SERVE", lambda s: s._replace(families=[Family(1, 2, 1, 99)]).answer()),
    "clocks differ": refused("CLOCKS_DIFFER", lambda s: s._replace(time=s.time + 5 * HOUR_MS).answer()),
    "a code that nobody knows": refused("UNKNOWN", lambda s: s.answer(leaf={"result": 0xC004FFFF, "validity": 0})),
}
UNSIGNED_RESULTS = {
    "not activated": unsigned("HOST_NOT_ACTIVATED", 0xC004F041),
    "request unreadable": unsigned("REQUEST_UNREADABLE", 0xE04B0001),
    "product unknown": unsigned("PRODUCT_UNKNOWN", 0xE04B0002),
    "busy": unsigned("SERVER_BUSY", 0xE04B0003),
    "host clock": unsigned("HOST_CLOCK", 0xE04B0004),
    "host certificate dates": unsigned("HOST_CERTIFICATE_DATES", 0xE04B0005),
    "below threshold, but unsigned": unsigned("COUNT_TOO_LOW", 0xC004F038),
    "an unknown result": unsigned("UNKNOWN", 0xE04BFFFF),
    "a result and bytes": unsigned("SERVER_BUSY", 0xE04B0003, bytes(644)),
    "fault": Wrong(saying(rpc.build_fault(0, 0x1C010003), Dialogue.take_call), "Unsigned", "RPC_REFUSED"),
}
FOREIGN_SERVERS = {
    "bind refused": unreachable(saying(rpc.build_bind_nak(BIND, 0))),
    "interface not known": unreachable(saying(rpc.build_bind_ack(BIND, [(2, 1, bytes(20))]))),
    "transfer syntax not known": unreachable(saying(rpc.build_bind_ack(BIND, [(2, 2, bytes(20))]))),
}
GARBAGE = {
    "another protocol": garbage(saying(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")),
    "random bytes": garbage(saying(bytes(range(7, 107)))),
    "endless bytes": garbage(endless_bytes),
    "endless fragments": garbage(endless_fragments(1024)),
    "a response before the bind": garbage(saying(rpc.build_response(0, None, 0))),
    "response to another call": garbage(other_call(7)),
    "response to the call that comes next": garbage(other_call(1)),
    "lengths that lie": garbage(saying(_response(struct.pack("<III", 644, 1, 643) + bytes(648)), Dialogue.take_call)),
    "a response too short": garbage(saying(_response(bytes(8)), Dialogue.take_call)),
    "a response too long": garbage(saying(_response(bytes(40)), Dialogue.take_call)),
    "a bind_ack without results": garbage(saying(rpc.build_bind_ack(BIND, []))),
    "a bind_ack with more results": garbage(saying(rpc.build_bind_ack(BIND, [(0, 0, rpc.NDR)] * 2))),
    "a bind_ack of another syntax": garbage(saying(rpc.build_bind_ack(BIND, [(0, 0, rpc.NDR64)]))),
}
BROKEN_CONNECTIONS = {
    "closes at once": unreachable(lambda dialogue: None),
    "closes after the bind": unreachable(lambda dialogue: (dialogue.accept_bind(), None)[1]),
    "closes after the request": unreachable(lambda dialogue: (dialogue.take_call(), None)[1]),
    "closes in the middle of its answer": unreachable(answer_cut),
}
# Each of these costs a client its whole time limit.
SLOW_HOSTS = {
    "silent from the start": unreachable(silent_after(reading)),
    "silent after the bind": unreachable(silent_after(Dialogue.accept_bind)),
    "silent after the request": unreachable(silent_after(Dialogue.take_call)),
    "an octet at a time": unreachable(dripping),
    "endless empty fragments": unreachable(endless_fragments(0)),
}
WRONGS = {
    **REJECTED_ANSWERS, **SIGNED_REFUSALS, **UNSIGNED_RESULTS, **FOREIGN_SERVERS, **GARBAGE, **BROKEN_CONNECTIONS,
}  # fmt: skip
