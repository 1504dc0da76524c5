"""Two judges of the vectors' answers: the reference, and the compiled core."""

from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from kms_fast import _core, errors
from tests.reference.request import SkuKeys
from tests.reference.verify import Asked, Clock, Product, Rejected, verify

# From an answer and whether it is being accepted now: the leaf's result, or the name of the error.
Judge = Callable[..., int | str]
BYTES = ("publisher_id", "sku_id", "request_key", "answer_secret", "request", "cmid", "hardware_digest")


def read_client(vector: dict[str, Any]) -> dict[str, Any]:
    """A vector's knowledge of the client with its hex decoded."""
    return vector | {name: bytes.fromhex(vector[name]) for name in BYTES} | {
        "roots": tuple(bytes.fromhex(root) for root in vector["roots"])
    }  # fmt: skip


def reference_judge(vector: dict[str, Any]) -> Judge:
    """The verdict of tests/reference/verify.py."""
    known = read_client(vector)
    keys = SkuKeys(known["sku_id"], known["request_key"], known["answer_secret"])
    product = Product(
        known["publisher_id"], known["roots"], keys, known["family"], known["generation"], known["customer_id"],
        frozenset(known["revoked"]),
    )  # fmt: skip
    asked = Asked(known["request"], known["cmid"], known["hardware_digest"])
    clock = Clock(known["now_ms"], known["mark_ms"])

    def judge(answer: bytes, accept: bool = True) -> int | str:
        try:
            return verify(product, asked, answer, clock if accept else None).leaf.result
        except Rejected as rejected:
            return rejected.name

    return judge


def core_judge(vector: dict[str, Any]) -> Judge:
    """The verdict of kms_fast's Verifier."""
    known = read_client(vector)
    verifier = _core.Verifier(
        publisher_id=known["publisher_id"],
        roots=known["roots"],
        sku=_core.SkuKeys(known["sku_id"], known["request_key"], known["answer_secret"]),
        family=known["family"],
        generation=known["generation"],
        customer_id=known["customer_id"],
        revoked=known["revoked"],
        verify_signature=signature_is_valid,
    )

    def judge(answer: bytes, accept: bool = True) -> int | str:
        asked = known["request"], known["cmid"], known["hardware_digest"]
        times = {"now_ms": known["now_ms"], "mark_ms": known["mark_ms"]}
        try:
            return verifier.check(*asked, answer, **times, accept=accept).result
        except errors.AnswerRejected as rejected:
            return rejected.result.name

    return judge


def signature_is_valid(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Ed25519 for the Verifier, which brings the context itself."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


JUDGES = {"reference": reference_judge, "core": core_judge}
