"""The client's state: one file per home, replaced as a whole, for its owner only (docs/client.md, "The state file").

One home serves one publisher. Readers need no lock, because the file is replaced atomically; who changes it holds the
lock file beside it from reading to replacing. A file that cannot be read is kept aside, never overwritten.
"""

import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from kms_fast.errors import ConfigurationError
from kms_fast.files import SECRET, SECRET_FOLDER, read_bounded, write_atomically

FORMAT = "kms_fast client state 3"
# Earlier formats lack fields of this one, which then have their defaults.
READABLE = ("kms_fast client state 1", "kms_fast client state 2", FORMAT)
HISTORY_SIZE = 100
MESSAGE_SIZE = 500


class StoredLease(msgspec.Struct, forbid_unknown_fields=True):
    """A grant as it came: enough to verify it again with the setup key and the root keys alone.

    ``request`` 220 bytes, ``answer`` 644 to 1,048. ``received_ms``: the wall clock at receipt; ``boot_id`` and
    ``boot_ms``: the clock that counts from start-up, if there is one. ``revoked_ms``: when the client learned that the
    host's certificate is revoked.
    """

    request: bytes
    answer: bytes
    received_ms: int
    boot_id: str = ""
    boot_ms: int = 0
    revoked_ms: int | None = None


class StoredActivation(msgspec.Struct, forbid_unknown_fields=True):
    """A publisher's own activation as it came (docs/files.md, "Machine activation"), and when, by the wall clock."""

    answer: bytes
    received_ms: int


class Failure(msgspec.Struct, forbid_unknown_fields=True):
    """How the last attempt failed: when, the result's code and the message."""

    time_ms: int
    code: int
    message: str


class Attempt(msgspec.Struct, forbid_unknown_fields=True):
    """How an attempt went, or several in a row that failed alike: the first at ``time_ms``, the last at ``last_ms``.

    ``host``: who decided it, None when no single host did. Only a signed answer has ``count``, ``threshold`` and
    ``host_ahead_ms``, by how much the host's clock was ahead of this machine's.
    """

    time_ms: int
    last_ms: int
    code: int
    message: str
    host: str | None = None
    count: int | None = None
    threshold: int | None = None
    host_ahead_ms: int | None = None
    times: int = 1


class Product(msgspec.Struct, forbid_unknown_fields=True):
    """What is kept of one SKU; grace and history go on when the key is uninstalled (``key`` None).

    ``domain``: where to look the service record up, None for the machine's own. ``host_cache``: whether the host that
    granted last is remembered. ``pending``: a request (220 bytes) that got no answer yet. ``history``: the newest
    attempts, the last one last. ``warned_days``: the last expiry warning given for this lease. ``direct``: what the
    publisher itself activated, with a multiple-activation key; it needs neither ``key`` nor hosts.
    ``grace_started_ms``: when the first of these came, or a rearm; 0 before.
    """

    key: str | None
    grace_started_ms: int
    host: str | None = None
    cached_host: str | None = None
    lease: StoredLease | None = None
    pending: bytes | None = None
    failure: Failure | None = None
    next_attempt_ms: int = 0
    domain: str | None = None
    host_cache: bool = True
    history: list[Attempt] = []
    warned_days: int | None = None
    direct: StoredActivation | None = None

    @property
    def is_installed(self) -> bool:
        """Whether there is a setup key, or an activation by the publisher itself."""
        return self.key is not None or self.direct is not None

    @property
    def route(self) -> tuple[str | None, ...]:
        """What says which hosts it asks: the one that was set, the domain, the one that granted last."""
        return self.host, self.domain, self.cached_host

    def note(self, attempt: Attempt) -> None:
        """Add an attempt to the history; one that failed as the one before it did is counted there."""
        last = self.history[-1] if self.history else None
        if last is not None and attempt.code and (last.code, last.host) == (attempt.code, attempt.host):
            attempt.time_ms, attempt.times = last.time_ms, last.times + 1
            self.history.pop()
        attempt.message = attempt.message[:MESSAGE_SIZE]
        self.history = [*self.history, attempt][-HISTORY_SIZE:]

    def __repr__(self) -> str:
        """Without the key: the default would show it in every traceback."""
        return f"<Product, host {self.host or self.cached_host}, {'with' if self.lease else 'without'} a lease>"


class State(msgspec.Struct, forbid_unknown_fields=True):
    """What is kept in one home.

    ``publisher``: the publisher file. ``revocations``: the newest list known. ``hardware_sources``: which hardware IDs
    the digest is made of. ``mark_ms``: the highest header time accepted in a grant. ``products``: by SKU ID.
    """

    publisher: str
    cmid: uuid.UUID
    hardware_sources: list[str]
    previous_cmid: uuid.UUID | None = None
    rearms: int = 0
    mark_ms: int = 0
    revocations: bytes | None = None
    products: dict[uuid.UUID, Product] = {}
    format: str = FORMAT

    @property
    def keys(self) -> dict[uuid.UUID, str]:
        """The setup keys that are installed, by SKU ID."""
        return {id_: product.key for id_, product in self.products.items() if product.key is not None}

    @property
    def installed(self) -> dict[uuid.UUID, Product]:
        """The products that have a setup key or an activation by the publisher itself, by SKU ID."""
        return {id_: product for id_, product in self.products.items() if product.is_installed}


class _Format(msgspec.Struct):
    """What every version of the file has: whoever cannot read the rest can say so."""

    format: str


class StateFile:
    """The state file ``state.json`` in a folder. All methods raise OSError as the system does."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state.json"
        self._holds_lock = False

    @property
    def is_writable(self) -> bool:
        """Whether this user may change the state, or only look at it."""
        return os.access(self.path.parent, os.W_OK)

    def read(self) -> State | None:
        """The state, None when there is none yet. Raises `ConfigurationError` for a damaged file and keeps it aside."""
        if not self.is_writable:
            return self.look()
        try:
            return self._parse()
        except msgspec.DecodeError:
            pass
        with self.locked():
            try:
                return self._parse()  # it may be another file by now
            except msgspec.DecodeError as error:
                kept = self.path.with_name(f"{self.path.name}.damaged-{uuid.uuid4().hex[:8]}")
                self.path.replace(kept)
                raise self._refuse(error, f"it was kept as {kept}", kept=str(kept)) from None

    def look(self) -> State | None:
        """As `read`, but a damaged file is left where it is."""
        try:
            return self._parse()
        except msgspec.DecodeError as error:
            raise self._refuse(error, "it was left as it is") from None

    def _parse(self) -> State | None:
        try:
            data = read_bounded(self.path)
        except FileNotFoundError:
            return None
        found = msgspec.json.decode(data, type=_Format).format
        state = msgspec.json.decode(data, type=State) if found in READABLE else None
        if state is None:
            raise ConfigurationError(
                f"{self.path} has the format {found!r}; this version of kms_fast reads up to {FORMAT!r}.",
                file=str(self.path),
            )
        state.format = FORMAT
        return state

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock between processes, once however often it is asked for; makes the folder if it is missing."""
        if self._holds_lock:
            yield
            return
        self.path.parent.mkdir(mode=SECRET_FOLDER, parents=True, exist_ok=True)
        with open(self.path.with_suffix(".lock"), "ab", opener=_open_private) as lock:
            _lock(lock)
            self._holds_lock = True
            try:
                yield
            finally:
                self._holds_lock = False

    def write(self, state: State) -> None:
        """Replace the file, with the lock held: the new one is whole on disk before it takes the old one's place."""
        write_atomically(self.path, msgspec.json.format(msgspec.json.encode(state)) + b"\n", mode=SECRET)

    def _refuse(self, error: msgspec.DecodeError, done: str, **details: Any) -> ConfigurationError:
        return ConfigurationError(
            f"The client's state file {self.path} is damaged ({error}); {done}. "
            "Restore it from a backup, or install the setup key and activate again.",
            file=str(self.path),
            **details,
        )


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, SECRET)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)

else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)
