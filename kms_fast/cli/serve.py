"""``kms-fast serve``: run the activation host."""

import json
import logging
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from kms_fast import _core
from kms_fast.cli.output import Output, home_option, json_option
from kms_fast.cli.settings import LoadedSettings, settings_options
from kms_fast.host.enrolment import Installation, read_installation
from kms_fast.host.ledger import open_ledger
from kms_fast.host.listener import allow_connections, open_sockets
from kms_fast.host.server import Server, wall_clock_ms
from kms_fast.store.sqlite_counts import SqliteCounts

logger = logging.getLogger("kms_fast")


@click.command
@home_option
@settings_options
@json_option
def command(home: Path, loaded: LoadedSettings, out: Output) -> None:
    """Run the activation host until TERM, which answers what waits and ends with exit code 0.

    \b
    Examples:
      kms-fast serve
      kms-fast serve --home /srv/kms --listen 127.0.0.1:1688 --listen [::1]:1688
      kms-fast serve --config /etc/kms-fast.toml
    """
    settings = loaded.settings
    start_logging(settings.log_level, settings.log_format)
    folder = home / "host"
    installation = read_installation(folder)
    installation.check_dates(wall_clock_ms())
    sockets = open_sockets(settings.listen)
    allow_connections(settings.max_connections)
    counts = SqliteCounts(folder / "counts.db")
    ledger = open_ledger(
        folder / "ledger", host_id=installation.certificate.host_id, certificates=installation.chain_data
    )
    server = Server(installation=installation, settings=settings, ledger=ledger, counts=counts, sockets=sockets)
    _log_start(installation)

    def announce(address: str, port: int) -> None:
        shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        out.line({"event": "listening", "address": address, "port": port}, f"listening on {shown}")

    _run(server.run(announce))


def start_logging(level: str, form: str) -> None:
    """Log to stderr: lines for people, or one JSON object each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if form == "json" else _TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class _TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time_ms": int(record.created * 1000),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def _log_start(installation: Installation) -> None:
    backend = _core.backend()
    logger.info(
        "host %s of %s, certificate %d, ciphers: AES by %s, SHA-256 by %s",
        installation.certificate.host_id.hex(),
        installation.publisher.name,
        installation.certificate.serial,
        backend["aes"],
        backend["sha256"],
    )


def _run(main: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where there is one."""
    runner: Callable[[Coroutine[Any, Any, None]], None]
    try:
        import uvloop
    except ImportError:
        import asyncio

        runner = asyncio.run
    else:
        runner = uvloop.run
    runner(main)
