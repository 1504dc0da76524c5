"""``kms-fast store``: prepare, back up, restore and check the store of counts and inventory."""

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from kms_fast.cli.output import Output, home_option, json_option
from kms_fast.cli.settings import CONFIG_OPTION, STORE_OPTION, load_settings
from kms_fast.cli.stores import counts_file, has_counts, inventory_file, using_counts, using_inventory
from kms_fast.clock import wall_clock_ms
from kms_fast.errors import ConfigurationError, KmsFastError
from kms_fast.files import SECRET_FOLDER, make_folder
from kms_fast.host.enrolment import read_installation
from kms_fast.host.presence import list_running
from kms_fast.host.rollback import find_missing
from kms_fast.model.settings import HostSettings, mask_password
from kms_fast.store import Counts, HostPart, Inventory
from kms_fast.store.backup import Content, check_backup, restore_backup, write_backup
from kms_fast.store.check import check_clients, check_counts, check_postgres, check_sqlite_file, check_watermarks
from kms_fast.store.postgres import migrate as migrate_postgres
from kms_fast.store.postgres_schema import VERSION

_Result = TypeVar("_Result")


@click.group
def command() -> None:
    """Prepare, back up, restore and check the store of counts and inventory.

    It is what the host's settings name: a PostgreSQL database, or SQLite files in its home.

    \b
    Examples:
      kms-fast store migrate --store postgresql://owner@db.example.org/kms
      kms-fast store backup counts-and-inventory.db
      kms-fast store restore counts-and-inventory.db --store postgresql://host@db.example.org/kms
      kms-fast store check --home /var/lib/kms-fast
    """


def store_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--store``, ``--config``, ``--home`` and ``--json``; the command gets ``settings``, ``home`` and ``out``."""

    @STORE_OPTION
    @CONFIG_OPTION
    @home_option
    @json_option
    @functools.wraps(function)
    def command(*args: Any, store: str | None, config: Path | None, home: Path, **others: Any) -> None:
        settings = load_settings(config, {"store": store} if store else {}, os.environ, home=home).settings
        function(*args, settings=settings, home=home, **others)

    return command


@command.command
@store_options
def migrate(settings: HostSettings, home: Path, out: Output) -> None:
    """Make the tables, or bring them up to date; nothing to do when they are. Stop older hosts before.

    The role of the URL has to own them, or may create a schema in the database while there are none.

    \b
    Examples:
      kms-fast store migrate --store postgresql://owner@db.example.org/kms
    """
    if settings.store is None:
        # Opening one does it.
        asyncio.run(_with_stores(settings, home, _nothing))
        out.result({"store": str(home)}, f"The files in {home / 'host'} are up to date.")
        return
    before = asyncio.run(migrate_postgres(settings.store))
    shown = mask_password(settings.store)
    did = "were up to date" if before == VERSION else f"were of version {before}" if before else "are new"
    out.result({"store": shown, "before": before, "version": VERSION}, f"{shown}: version {VERSION}; the tables {did}.")


@command.command
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@store_options
def backup(file: Path, settings: HostSettings, home: Path, out: Output) -> None:
    """Write counts and inventory to FILE, a new SQLite file, while hosts go on.

    \b
    Examples:
      kms-fast store backup /backup/kms-2026-11-24.db
      kms-fast store backup /backup/kms.db --store postgresql://host@db.example.org/kms
    """
    _require_files(settings, home)

    async def write(counts: Counts, inventory: Inventory) -> Content:
        return await write_backup(file, counts, inventory, lambda content: out.progress(_describe(content)))

    content = asyncio.run(_with_stores(settings, home, write, reading=True))
    out.result({"file": file, **_to_json(content)}, f"Wrote {file}: {_describe(content)}.")


@command.command
@click.argument("file", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@store_options
def restore(file: Path, settings: HostSettings, home: Path, out: Output) -> None:
    """Fill an empty store from FILE, which store backup wrote from a store of either kind.

    All of FILE is checked before anything is made or written.

    \b
    Examples:
      kms-fast store restore /backup/kms.db
      kms-fast store restore /backup/kms.db --store postgresql://host@db.example.org/kms
    """
    if settings.store is None and (running := list_running(home / "host")):
        pids = ", ".join(str(process.pid) for process in running)
        raise KmsFastError(f"A host runs in {home} (process {pids}).", name="STORE_IN_USE", home=str(home))
    out.progress(f"checking {file}")
    check_backup(file)
    if settings.store is None:
        make_folder(home / "host", mode=SECRET_FOLDER)

    async def fill(counts: Counts, inventory: Inventory) -> Content:
        return await restore_backup(file, counts, inventory, lambda content: out.progress(_describe(content)))

    content = asyncio.run(_with_stores(settings, home, fill))
    out.result({"file": file, **_to_json(content)}, f"Restored {file}: {_describe(content)}.")


@command.command
@store_options
def check(settings: HostSettings, home: Path, out: Output) -> None:
    """Read all of the store and say what is wrong with it; exit code 1 when anything is.

    What the database finds, the tables' version, counts within their caps, times, and watermarks against the ledger.
    Caps and ledger are those of the home, when a host is installed there.

    \b
    Examples:
      kms-fast store check
      kms-fast store check --store postgresql://host@db.example.org/kms --json
    """
    _require_files(settings, home)
    content = Content()
    problems = asyncio.run(_find_problems(settings, home, content, out))
    if problems:
        more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        for problem in problems[1:]:
            out.warning(problem)
        raise KmsFastError(f"{problems[0]}{more}.", name="STORE_DAMAGED", problems=problems)
    out.result(_to_json(content), f"Nothing is wrong: {_describe(content)}.")


async def _find_problems(settings: HostSettings, home: Path, content: Content, out: Output) -> list[str]:
    if settings.store is None:
        files = [path for path in (counts_file(home), inventory_file(home)) if path.exists()]
        problems = [problem for path in files for problem in check_sqlite_file(path)]
    else:
        problems = [problem async for problem in check_postgres(settings.store)]
    if problems:
        # What the tables hold cannot be told while they are damaged.
        return problems
    installation = read_installation(home / "host") if (home / "host" / "host.cert").exists() else None
    caps = {family.number: family.cap for family in installation.catalog.families} if installation else {}
    now_ms = wall_clock_ms()

    async def look(counts: Counts, inventory: Inventory) -> None:
        families = await counts.read_all()
        content.counts = sum(map(len, families.values()))
        problems.extend(check_counts(families, caps, now_ms))
        async for part in inventory.read_all():
            if isinstance(part, HostPart):
                content.hosts += 1
                problems.extend(check_watermarks(part, now_ms))
                if installation and installation.certificate.host_id == part.host_id:
                    problems.extend(_compare_ledger(home / "host" / "ledger", part))
            else:
                content.clients += len(part)
                problems.extend(check_clients(part, now_ms))
            out.progress(_describe(content))

    await _with_stores(settings, home, look, reading=True)
    return problems


def _compare_ledger(folder: Path, part: HostPart) -> Iterable[str]:
    """Watermarks of this host that its ledger does not have."""
    for mark in find_missing(folder, part.watermarks):
        yield f"Batch {mark.segment}/{mark.number} is recorded, but the ledger {folder} does not have it"


async def _with_stores(
    settings: HostSettings,
    home: Path,
    work: Callable[[Counts, Inventory], Awaitable[_Result]],
    *,
    reading: bool = False,
) -> _Result:
    async with (
        using_counts(settings, home, reading=reading) as counts,
        using_inventory(settings, home, reading=reading) as inventory,
    ):
        return await work(counts, inventory)


async def _nothing(counts: Counts, inventory: Inventory) -> None:
    return None


def _require_files(settings: HostSettings, home: Path) -> None:
    """Raise `ConfigurationError` when there is nothing to read: opening would make it."""
    if not has_counts(settings, home):
        raise ConfigurationError(f"There is no store in {home / 'host'}; name the home or the URL.", home=str(home))


def _describe(content: Content) -> str:
    return f"machines counted: {content.counts}; in the inventory clients: {content.clients}, hosts: {content.hosts}"


def _to_json(content: Content) -> dict[str, int]:
    return {"counts": content.counts, "clients": content.clients, "hosts": content.hosts}
