"""How the supervisor and its child processes (workers, recorder) talk: lines of JSON through pipes.

To the child's stdin go its plan and then commands; when stdin ends, the supervisor is gone and the child ends at once,
however that one died. From its stdout come events. Its log goes to stderr, which all share.

    supervisor → child    plan, then {"command": "reload", "settings": …} or {"command": "drain"}
    child → supervisor    {"event": "ready"}, {"event": "reloaded"}, {"event": "failed", …} as the last before exit 1
"""

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from kms_fast.model.settings import HostSettings

STDIN, STDOUT = 0, 1


class ChildPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is told first. ``sockets``: descriptors of the listening sockets it inherits."""

    home: str
    settings: HostSettings
    sockets: tuple[int, ...] = ()


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is told later; ``settings`` with a reload."""

    command: Literal["reload", "drain"]
    settings: HostSettings | None = None


def read_plan() -> ChildPlan | None:
    """The plan on stdin; None when the supervisor is gone already."""
    line = sys.stdin.buffer.readline()
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

    # A reader that takes whole lines from a buffer would hide what the buffer holds from the event loop.
    loop.add_reader(STDIN, read)


def tell(event: str, **fields: Any) -> None:
    """Tell the supervisor; nothing when it is gone, since stdin then ends as well."""
    try:
        os.write(STDOUT, msgspec.json.encode({"event": event, **fields}) + b"\n")
    except BrokenPipeError:
        return
