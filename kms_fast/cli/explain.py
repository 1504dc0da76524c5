"""``kms-fast explain``."""

import difflib
import uuid
from pathlib import Path

import click

from kms_fast.cli.output import Output, home_option, json_option
from kms_fast.cli.settings import CONFIG_OPTION, STORE_OPTION
from kms_fast.results import BY_NAME, RESULTS, Result


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("what", required=False, metavar="[CODE|CMID|NAME]")
@STORE_OPTION
@CONFIG_OPTION
@home_option
@json_option
def command(what: str | None, store: str | None, config: Path | None, home: Path, out: Output) -> None:
    """Say what a result CODE means and what to do, or tell the story of one machine; without either, list all codes.

    CODE is hexadecimal with or without 0x, a signed or unsigned decimal number, or a name. On a host, the CMID or the
    name of a machine tells what it asked, what it was told, and the likely cause of what is wrong.

    \b
    Examples:
      kms-fast explain 0xC004F038
      kms-fast explain CLOCKS_DIFFER
      kms-fast explain 0b9e7a52-5d1c-4f0e-9d55-3c4f6c1f7a10
      kms-fast explain desk-0042 --json
    """
    if what is None:
        rows = RESULTS.values()
        out.result({"results": [_fields(row) for row in rows]}, "\n".join(f"{row.hex}  {row.name}" for row in rows))
        return
    result = find_code(what)
    if result is not None:
        out.result(_fields(result), f"{result.hex} {result.name}\n{result.meaning}\nWhat to do: {result.cure}")
        return
    # Only now: settings that are wrong must not keep anybody from being told what their error means.
    from kms_fast.cli.machine import explain_cmid, explain_name, load_store
    from kms_fast.cli.stores import has_inventory

    settings = load_store(config, store, home)
    if (cmid := _parse_cmid(what)) is not None:
        explain_cmid(cmid, settings, home, out)
    elif not has_inventory(settings, home) or not explain_name(what, settings, home, out):
        near = difflib.get_close_matches(what.upper().replace("-", "_"), BY_NAME, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise click.BadParameter(
            f"there is no result {what}, and no machine of this name here.{hint}", param_hint="CODE"
        )


def find_code(text: str) -> Result | None:
    """The row of the table that ``text`` names."""
    name = text.strip().upper().replace("-", "_")
    if name in BY_NAME:
        return BY_NAME[name]
    for base in (16, 10):
        try:
            number = int(text, base)
        except ValueError:
            continue
        # Tools of other systems print codes as signed 32-bit numbers.
        if (number & 0xFFFFFFFF) in RESULTS and -(1 << 31) <= number < 1 << 32:
            return RESULTS[number & 0xFFFFFFFF]
    return None


def _parse_cmid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def _fields(result: Result) -> dict[str, str]:
    return {"code": result.hex, "name": result.name, "meaning": result.meaning, "cure": result.cure}
