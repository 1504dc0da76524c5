"""Finding the machine that ``kms-fast explain`` is asked about, in the inventory and in this host's ledger."""

import os
import uuid
from pathlib import Path

from kms_fast.cli.inventory import ask_inventory, describe_client, format_page, read_products
from kms_fast.cli.output import Output, following
from kms_fast.cli.settings import load_settings
from kms_fast.cli.stores import has_inventory
from kms_fast.cli.story import Story, describe_story, render_story
from kms_fast.clock import wall_clock_ms
from kms_fast.errors import KmsFastError
from kms_fast.host.attempts import find_attempts
from kms_fast.model.settings import HostSettings
from kms_fast.store import Client

MOST_NAMED = 100


def load_store(config: Path | None, store: str | None, home: Path) -> HostSettings:
    """The settings that say where the inventory is. Raises `ConfigurationError`."""
    return load_settings(config, {"store": store} if store else {}, os.environ, home=home).settings


def explain_cmid(cmid: uuid.UUID, settings: HostSettings, home: Path, out: Output) -> None:
    """Print the story of the machine with this CMID. Raises `KmsFastError` (MACHINE_UNKNOWN)."""
    # Without one the ledger may have the machine all the same.
    asked = has_inventory(settings, home)
    clients = ask_inventory(settings, home, lambda inventory: inventory.get(cmid.bytes)) if asked else []
    attempts = find_attempts(
        home / "host" / "ledger", cmid.bytes, lambda so_far: out.progress(f"{so_far} attempts found in the ledger")
    )
    if not clients and not attempts:
        raise KmsFastError(
            f"No machine with CMID {cmid} is in the inventory or in this host's ledger.",
            name="MACHINE_UNKNOWN",
            cmid=str(cmid),
        )
    story = Story(cmid, clients, attempts, read_products(home), wall_clock_ms())
    told = describe_story(story)
    out.result(told, render_story(story, told))


def explain_name(name: str, settings: HostSettings, home: Path, out: Output) -> bool:
    """Print the story of the machine with this name, or the machines to choose from: several have it, or it is the
    beginning of theirs. False when there is none.
    """
    found = ask_inventory(settings, home, lambda inventory: inventory.find(name=name, limit=MOST_NAMED))
    exact = [client for client in found if (client.name or "").casefold() == name.casefold()]
    cmids = {client.cmid for client in exact or found}
    if len(cmids) == 1:
        explain_cmid(uuid.UUID(bytes=next(iter(cmids))), settings, home, out)
    elif cmids:
        _list_choices(exact or found, home, out)
    return bool(cmids)


def _list_choices(clients: list[Client], home: Path, out: Output) -> None:
    products = read_products(home)
    newest = max(clients, key=lambda client: client.last_seen_ms)
    first = f"The first {MOST_NAMED} of several" if len(clients) == MOST_NAMED else "Several"
    out.result(
        {"clients": [describe_client(client, products) for client in clients]},
        f"{format_page(clients, products)}\n\n{first} machines: choose one by its CMID. The one that asked last: "
        f"{following(f'kms-fast explain {uuid.UUID(bytes=newest.cmid)}', 'config', 'store')}",
    )
