"""How the supervisor and its child processes (workers, recorder) talk: lines of JSON through pipes.

To the child's stdin go its plan and then commands; when stdin ends, the supervisor is gone and the child ends at once,
however that one died. From its stdout come events. Its log goes to stderr, which all share.

    supervisor → child    plan, then {"command": "reload", "settings": …} or {"command": "drain"}
    child → supervisor    {"event": "ready"}, {"event": "reloaded"} or {"event": "reload_failed", "error": …},
                          {"event": "condition", "condition": …} whenever it changes,
                          {"event": "failed", "error": …} as the last before exit code 1
"""

import asyncio
import os
from collections.abc import Callable
from io import FileIO
from typing import Any, Literal

import msgspec

from kms_fast.errors import KmsFastError
from kms_fast.model.settings import HostSettings

STDIN, STDOUT = 0, 1


class Ended(Exception):
    """The supervisor is gone, or wants no drain: end now."""


class ChildPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is told first. ``name`` is for the log; ``sockets`` are the listening descriptors it inherits."""

    name: str = ""
    home: str
    settings: HostSettings
    sockets: tuple[int, ...] = ()


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """What a child that runs finds around it. ``busy``: why a worker answers every request SERVER_BUSY, if it does;
    ``segments_left``: how many segments the recorder cannot record any further.
    """

    store_ready: bool = True
    busy: str | None = None
    segments_left: int = 0


EventName = Literal["ready", "reloaded", "reload_failed", "condition", "failed"]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What a child says; ``error`` is `KmsFastError.to_json` of what went wrong."""

    event: EventName
    error: dict[str, Any] | None = None
    condition: Condition | None = None


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is told later; ``settings`` with a reload."""

    command: Literal["reload", "drain"]
    settings: HostSettings | None = None


def read_plan() -> ChildPlan | None:
    """The plan on stdin; None when the supervisor is gone already."""
    # Unbuffered: what follows the plan is for `follow_commands`.
    with FileIO(STDIN, closefd=False) as stdin:
        line = stdin.readline()
    return msgspec.json.decode(line, type=ChildPlan) if line else None


def follow_commands(on_command: Callable[[Command], None], on_end: Callable[[], None]) -> None:
    """Call `on_command` for each further line of stdin and `on_end` when it ends, on the running event loop."""
    loop = asyncio.get_running_loop()
    buffered = bytearray()

    def read() -> None:
        data = os.read(STDIN, 1 << 16)
        if not data:
            loop.remove_reader(STDIN)
            on_end()
            return
        buffered.extend(data)
        *lines, rest = bytes(buffered).split(b"\n")
        buffered[:] = rest
        for line in lines:
            on_command(msgspec.json.decode(line, type=Command))

    loop.add_reader(STDIN, read)


def tell(event: EventName, error: KmsFastError | None = None, condition: Condition | None = None) -> None:
    """Tell the supervisor; nothing when it is gone, since stdin then ends as well."""
    told = Event(event=event, error=None if error is None else error.to_json(), condition=condition)
    try:
        # One write, whole, below the pipe's atomic size; bytes and paths among an error's details become text.
        os.write(STDOUT, msgspec.json.encode(told, enc_hook=str) + b"\n")
    except BrokenPipeError:
        return
