"""One child process of the supervisor: started, told, listened to, ended."""

import asyncio
import contextlib
from asyncio.subprocess import PIPE, Process

import msgspec

from kms_fast.errors import KmsFastError
from kms_fast.host.child import ChildPlan, Command, Condition, Event
from kms_fast.messages import log
from kms_fast.model.settings import HostSettings
from kms_fast.programs import program_command

LONGEST_EVENT_BYTES = 1 << 20


class Child:
    """A running child; made by `start`. ``ready`` is set once it serves, ``error`` is what it said at its end,
    ``condition`` what it said last of its surroundings.
    """

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.ready = asyncio.Event()
        self.started_s = asyncio.get_running_loop().time()
        self.error: KmsFastError | None = None
        self.condition = Condition()
        self._process = process
        self._reloading: asyncio.Future[None] | None = None

    @classmethod
    async def start(cls, module: str, plan: ChildPlan) -> "Child":
        """Start ``module`` with its plan and its sockets. Raises OSError.

        It runs in a process group of its own: Ctrl-C on the terminal is for the supervisor, which then ends it.
        """
        process = await asyncio.create_subprocess_exec(
            *program_command(module),
            stdin=PIPE,
            stdout=PIPE,
            pass_fds=plan.sockets,
            process_group=0,
            limit=LONGEST_EVENT_BYTES,
        )
        child = cls(plan.name, process)
        child._write(msgspec.json.encode(plan))
        return child

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    async def wait(self) -> int:
        """Listen until it has ended; its exit code, negative for the signal that ended it."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            try:
                self._note(msgspec.json.decode(line, type=Event))
            except msgspec.DecodeError:
                log("CHILD_PRINTED", name=self.name, line=line.decode(errors="replace"))
        code = await self._process.wait()
        self._finish_reload(KmsFastError(f"{self.name} ended before it had reloaded.", name="PROCESS_FAILED"))
        return code

    async def reload(self, settings: HostSettings) -> None:
        """Let it take up settings and files anew. Raises `KmsFastError` when it could not."""
        self._reloading = asyncio.get_running_loop().create_future()
        self.send_reload(settings)
        await self._reloading

    def send_reload(self, settings: HostSettings) -> None:
        """Let it take up settings and files anew, whatever comes of it."""
        self._write(msgspec.json.encode(Command(command="reload", settings=settings)))

    def drain(self) -> None:
        """Let it finish its work and end."""
        self._write(msgspec.json.encode(Command(command="drain")))

    def end(self) -> None:
        """Let it end at once."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def kill(self) -> None:
        """End it by force."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def _note(self, event: Event) -> None:
        if event.event == "ready":
            self.ready.set()
        elif event.event == "reloaded":
            self._finish_reload(None)
        elif event.event == "condition":
            assert event.condition is not None
            self.condition = event.condition
        else:
            assert event.error is not None
            error = KmsFastError.from_json(event.error)
            if event.event == "failed":
                self.error = error
            else:
                self._finish_reload(error)

    def _finish_reload(self, error: KmsFastError | None) -> None:
        reloading, self._reloading = self._reloading, None
        if reloading is None or reloading.done():
            return
        if error is None:
            reloading.set_result(None)
        else:
            reloading.set_exception(error)

    def _write(self, line: bytes) -> None:
        """A line to its stdin; when it has died, `wait` tells."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
