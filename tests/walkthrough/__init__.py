"""The walkthrough of docs/walkthrough.md, run command by command on real servers: ``make walkthrough``.

``python -m tests.walkthrough`` shows each command and its output, and fails at the first that is not as recorded.
``--record`` writes the outputs into the page. Keys, IDs, times, ports and process numbers may differ.
"""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "walkthrough.md"
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
KEY = re.compile(r"\b[0-9A-Z]{5}(?:-[0-9A-Z]{5}){4}\b")
# A line that ends with a backslash goes on; what follows is output.
COMMAND = re.compile(r"^\$ ((?:[^\n]*\\\n)*[^\n]*)\n((?:(?!\$ |```)[^\n]*\n)*)", re.MULTILINE)
PORTS = ("1688", "8443")
# Where a word of the page stands for a key, what is printed before that key.
WORDS = {"SETUPKEY": "Setup key", "HOSTKEY": "Host key"}
_VARYING = (
    (KEY, "KEY"),
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "UUID"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+Z| UTC)?"), "TIME"),
    (re.compile(r"…[0-9A-Z]{5}\b"), "…KEY"),
    (re.compile(r"ends in [0-9A-Z]{5}\b"), "ends in KEY"),
    (re.compile(r"process \d+"), "process PID"),
    (re.compile(r"host's clock [+-]\d+\.\d s"), "host's clock SPAN"),
    (re.compile(r"\b[0-9A-F]{64}\b|\b[0-9a-f]{64}\b"), "HASH"),
    (re.compile(r"[ \t]+"), " "),
)


class Differs(Exception):
    """A command did not do what the page shows."""


@dataclass(frozen=True)
class Command:
    """A command of the page, and what it printed when it was recorded: the page from ``start`` to before ``end``."""

    line: str
    recorded: str
    start: int
    end: int


def read_sections(text: str) -> Iterator[tuple[str, list[Command]]]:
    """The commands of each section of a page that has any."""
    titles = list(SECTION.finditer(text))
    ends = [title.start() for title in titles[1:]] + [len(text)]
    for title, end in zip(titles, ends, strict=True):
        blocks = BLOCK.finditer(text, title.end(), end)
        if commands := [command for block in blocks for command in read_commands(text, *block.span(1))]:
            yield title[1], commands


def read_commands(text: str, start: int, end: int) -> Iterator[Command]:
    """The commands of one block, each with what follows it."""
    for found in COMMAND.finditer(text, start, end):
        yield Command(found[1], found[2], *found.span(2))


@contextmanager
def running(folder: Path) -> Iterator["Machine"]:
    """A machine for one section: an empty folder, free ports, and the servers that its commands start."""
    machine = Machine(folder)
    try:
        yield machine
    finally:
        for server in machine.servers:
            server.send_signal(signal.SIGTERM)
        for server in machine.servers:
            server.wait(60)


class Machine:
    """Runs commands as a shell in ``folder`` would, and starts those that end with an ampersand as servers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: list[subprocess.Popen[str]] = []
        self._words = dict(zip(PORTS, find_free_ports(len(PORTS)), strict=True))
        names = {name: value for name, value in os.environ.items() if not name.startswith("KMS_FAST_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{names.get('PATH', '')}"
        self._environment = {**names, "PATH": path, "PYTHONPATH": str(ROOT)}

    def run(self, line: str) -> str:
        """What a command prints, with the page's ports. Raises `Differs` when it fails."""
        for word, value in self._words.items():
            line = re.sub(rf"\b{word}\b", value, line)
        printed = self._start(line.removesuffix("&").strip()) if line.endswith("&") else self._finish(line)
        for word, told in WORDS.items():
            if found := re.search(rf"^{told}.*: ({KEY.pattern})$", printed, re.MULTILINE):
                self._words[word] = found[1]
        for port in PORTS:
            printed = re.sub(rf"\b{self._words[port]}\b", port, printed)
        return printed

    def _finish(self, line: str) -> str:
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode:
            raise Differs(f"exit code {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def _start(self, line: str) -> str:
        log = (self.folder / f"server-{len(self.servers)}.log").open("w+")
        words = shlex.split(line)
        server = subprocess.Popen(
            words, cwd=self.folder, env=self._environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
        self.servers.append(server)
        assert server.stdout is not None
        printed = server.stdout.readline()
        if not printed:
            log.seek(0)
            raise Differs(f"exit code {server.wait(60)}: {log.read()}")
        return printed


def find_free_ports(count: int) -> list[str]:
    """Ports of loopback that nobody listens on now."""
    opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(one.getsockname()[1]) for one in opened]
    for one in opened:
        one.close()
    return ports


def without_varying(text: str) -> str:
    """The text with everything replaced that differs from run to run."""
    for pattern, word in _VARYING:
        text = pattern.sub(word, text)
    return text.strip()


def walk(*, record: bool = False, say: bool = False) -> str:
    """Run the page; its text with the outputs of now. Raises `Differs` at the first that is not as recorded."""
    page = PAGE.read_text(encoding="utf-8")
    outputs: list[tuple[Command, str]] = []
    for title, commands in read_sections(page):
        with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as machine:
            for command in commands:
                if say:
                    print(f"$ {command.line}", flush=True)
                try:
                    printed = machine.run(command.line)
                except Differs as error:
                    raise Differs(f"{title}: $ {command.line}\n{error}") from None
                if say:
                    print(printed, flush=True)
                outputs.append((command, "".join(f"{line.rstrip()}\n" for line in printed.splitlines())))
                if not record and without_varying(printed) != without_varying(command.recorded):
                    raise Differs(f"{title}: $ {command.line}\nprinted:\n{printed}\nrecorded:\n{command.recorded}")
    for command, printed in reversed(outputs):
        page = page[: command.start] + printed + page[command.end :]
    return page
