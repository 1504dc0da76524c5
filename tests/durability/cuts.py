"""Power cuts of a recording: the folder rebuilt, opened by the real recovery code, checked, some of them continued."""

import asyncio
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kms_fast.errors import KmsFastError
from kms_fast.host import ledger as ledger_module
from kms_fast.host.audit import verify_ledger
from kms_fast.host.enrolment import Installation, read_installation
from kms_fast.host.ledger import open_ledger
from kms_fast.host.rollback import check_rollback
from kms_fast.store import Watermark
from kms_fast.store.sqlite_counts import SqliteCounts
from kms_fast.store.sqlite_inventory import SqliteInventory
from tests.durability.checker import CheckerProcess
from tests.durability.claims import Findings
from tests.durability.disk import CHOICES, TORN, Content, PowerCuts
from tests.durability.host import Host, HostFailed, Load, draw_address
from tests.durability.recording import Recording
from tests.durability.staging import TRACED, Script
from tests.durability.trace import Kind
from tests.hosts import Realm

FATES: Final = (*CHOICES, TORN, TORN)
RETENTION_MS: Final = 30 * 86_400_000


@dataclass
class Tally:
    """What cuts found: how many they were, how many were continued, and what is wrong."""

    cuts: int = 0
    continued: int = 0
    findings: Findings = field(default_factory=Findings)


def draw_places(recording: Recording, count: int, draw: random.Random) -> list[int]:
    """Places to cut at, ascending: just after events other than receives, which change nothing."""
    places = [event.place + 1 for event in recording.events() if event.kind != Kind.RECEIVE]
    return sorted(draw.choices(places, k=count))


def cut_power(
    recording: Recording, realm: Realm, script: Script, count: int, checker: CheckerProcess, folder: Path,
    draw: random.Random, *, continued: int = 1,
) -> Tally:  # fmt: skip
    """Cut a recording ``count`` times; after ``continued`` of the cuts the real host goes on, after the others its
    recovery code alone runs. ``realm``: its home is of no matter; ``folder`` is used for rebuilt homes.
    """
    tally = Tally()
    power_cuts = PowerCuts(recording.disk())
    home = folder / "rebuilt"
    going_on = draw.sample(range(count), min(count, continued))
    for number, place in enumerate(draw_places(recording, count, draw)):
        fate = draw.choice(FATES)
        contents = power_cuts.cut(place, fate, draw)
        shutil.rmtree(home, ignore_errors=True)
        rebuild(contents, home)
        where = f"{recording.folder.name}, {fate} at {place}"
        record = None
        try:
            if number in going_on:
                record = continue_host(home, realm, script, folder, draw)
                tally.continued += 1
            else:
                recover(home)
        except (KmsFastError, HostFailed) as error:
            tally.findings.add(f"{where}: no recovery: {error}")
        answer = checker.ask(check="cut", recording=recording.folder, place=place, home=home, record=record)
        tally.findings.add_all(answer["count"], [f"{where}: {text}" for text in answer["texts"]])
        tally.cuts += 1
    return tally


def rebuild(contents: Mapping[str, Content | None], home: Path) -> None:
    """Make the host's folder of a cut disk below ``home``."""
    home.mkdir()
    for path, content in contents.items():
        if content is None:
            (home / TRACED / path).mkdir(mode=0o700)
        else:
            content.write_to(home / TRACED / path)


def recover(home: Path) -> None:
    """Open stores and ledger as a starting host does, and let `ledger verify` look at that. Raises KmsFastError."""
    ledger_module.PREALLOCATE_BYTES = 1 << 20  # type: ignore[misc]
    folder = home / TRACED
    installation = read_installation(folder)
    host_id, certificates = installation.certificate.host_id, installation.chain_data
    watermarks = asyncio.run(_read_stores(folder, installation))
    check_rollback(folder / "ledger", watermarks, host_id=host_id, certificates=certificates, accept=False)
    open_ledger(folder / "ledger", host_id=host_id, certificates=certificates).close()
    publisher = installation.publisher
    verify_ledger(
        folder / "ledger", roots=publisher.roots, publisher_id=publisher.publisher_id, on_progress=lambda verdict: None
    )


async def _read_stores(folder: Path, installation: Installation) -> list[Watermark]:
    counts, inventory = SqliteCounts(folder / "counts.db"), SqliteInventory(folder / "inventory.db")
    for family in installation.certificate.families:
        await counts.load(family.number, 0, cap=1 << 20, retention_ms=RETENTION_MS)
    watermarks = await inventory.watermarks(installation.certificate.host_id)
    await counts.close()
    await inventory.close()
    return watermarks


def continue_host(home: Path, realm: Realm, script: Script, folder: Path, draw: random.Random) -> Path:
    """Start the real host on a rebuilt home and load it; the file of what clients were told."""
    record = folder / "continued.jsonl"
    record.write_bytes(b"")
    address = draw_address(draw)
    host = Host(home, address, folder / "serve.log", None, *script.options)
    try:
        host.wait_until_listening()
        load = Load(
            address, realm, record, draw, connections=8, activations=script.threshold * 4, clients=(0, script.machines)
        )
        try:
            load.wait()
        finally:
            load.kill()
        host.stop()
    finally:
        host.kill()
    return record
