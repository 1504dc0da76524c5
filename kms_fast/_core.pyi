"""Types of the compiled core, in the order of its parts. What each function does is told by its docstring in _core/."""

from collections.abc import Callable, Collection, Sequence

# aes.pxi
def backend() -> dict[str, str]: ...
def _use_backend(*, aes: str | None = None, sha256: str | None = None) -> None: ...
def equal(a: bytes, b: bytes) -> bool: ...
def cmac(key: bytes, data: bytes) -> bytes: ...

# sha256.pxi, hmac.pxi
def sha256(data: bytes) -> bytes: ...
def hmac_sha256(key: bytes, data: bytes) -> bytes: ...

# siv.pxi
class SivKey:
    def __init__(self, key: bytes, *leading: bytes) -> None: ...
    def encrypt(self, plaintext: bytes, last: bytes | None = None, /) -> bytes: ...
    def decrypt(self, data: bytes, last: bytes | None = None, /) -> bytes | None: ...

def siv_seal(key: bytes, plaintext: bytes, *ad: bytes) -> bytes: ...
def siv_open(key: bytes, data: bytes, *ad: bytes) -> bytes | None: ...

# merkle.pxi
def merkle_root(leaves: list[bytes]) -> bytes: ...
def merkle_path(leaves: list[bytes], index: int) -> list[bytes]: ...
def merkle_verify(leaf_hash: bytes, index: int, size: int, path: list[bytes], root: bytes) -> bool: ...

# message.pxi
class SkuKeys:
    sku_id: bytes
    def __init__(self, sku_id: bytes, request_key: bytes, answer_secret: bytes) -> None: ...
    def seal_request(self, fields: bytes, nonce: bytes) -> bytes: ...
    def open_request(self, request: bytes) -> bytes | None: ...

# verify.pxi
CHECK_NAMES: tuple[str, ...]

class Checked:
    leaf: bytes
    leaf_hash: bytes
    header: bytes
    result: int

class Verifier:
    def __init__(
        self,
        *,
        publisher_id: bytes,
        roots: Sequence[bytes],
        sku: SkuKeys,
        family: int,
        generation: int,
        customer_id: int = 0,
        revoked: Collection[int] = (),
        verify_signature: Callable[[bytes, bytes, bytes], bool],
    ) -> None: ...
    def check(
        self,
        request: bytes,
        cmid: bytes,
        hardware_digest: bytes,
        answer: bytes,
        *,
        now_ms: int,
        mark_ms: int = 0,
        accept: bool = True,
    ) -> Checked: ...
