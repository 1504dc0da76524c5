"""``kms-fast host configure``: write settings to the file that ``serve`` reads."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import tomlkit

from kms_fast.cli.output import Output, following, home_option, json_option
from kms_fast.cli.settings import (
    CONFIG_OPTION,
    add_flags,
    parse_file,
    parse_flags,
    read_file_text,
    settings_file,
    take_flags,
)
from kms_fast.files import SECRET, SECRET_FOLDER, make_folder, open_atomically
from kms_fast.host.presence import list_running
from kms_fast.model.names import format_address, parse_listen_address
from kms_fast.model.settings import FIXED_SETTINGS, host_options


class _SettingName(click.Choice[str]):
    """A setting by its name in the file, or as its flag spells it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(str(value).replace("-", "_"), param, ctx)


@click.command
@click.option("--port", type=click.IntRange(1, 65_535), help="The port of every address in listen.")
@click.option(
    "--unset", multiple=True, type=_SettingName(list(host_options())), help="Back to the default; repeatable."
)
@home_option
@CONFIG_OPTION
@add_flags
@json_option
def configure(
    port: int | None, unset: tuple[str, ...], home: Path, config: Path | None, out: Output, **flags: Any
) -> None:
    """Set options of this host for good, in host/kms-fast.toml of the home or the file of --config.

    What else the file holds stays as it is, comments too. A value that is wrong, or fights another, changes nothing.
    Variables and flags of serve still stand above the file.

    \b
    Examples:
      kms-fast host configure --port 1689 --activation-interval 4h --renewal-interval 5d
      kms-fast host configure --unset renewal-interval && kms-fast host reload
    """
    given, path = parse_flags(take_flags(flags)), config or settings_file(home)
    if not given and port is None and not unset:
        raise click.UsageError("Name an option to set; kms-fast config show shows all that are in force.")
    text = read_file_text(path) if path.exists() else ""
    current = parse_file(text, path)
    if port is not None:
        given["listen"] = [_with_port(address, port) for address in given.get("listen", current.listen)]
    document = tomlkit.parse(text)
    for name in unset:
        document.pop(name, None)
    options = host_options()
    for name, value in given.items():
        if options[name].metavar == "FILE":
            value = _find_file(name, value)
        document[name] = msgspec.json.decode(options[name].format(value))
    written = tomlkit.dumps(document)
    settings = parse_file(written, path)
    if config is None:
        make_folder(path.parent, mode=SECRET_FOLDER)
    _write(path, written)
    changed = [*given, *unset]
    shown = {name: options[name].show(getattr(settings, options[name].field)) for name in changed}
    lines = [f"{name} = {value}" if value != "null" else f"{name} is not set" for name, value in shown.items()]
    out.result(
        {"file": path, "settings": {name: msgspec.json.decode(value) for name, value in shown.items()}},
        "\n".join([*lines, f"Wrote {path}. {_say_next(home, changed)}"]),
    )


def _write(path: Path, text: str) -> None:
    """Replace the file, whose owner and mode stay. Raises OSError."""
    # A store's URL may hold a password.
    former = path.stat() if path.exists() else None
    with open_atomically(path, mode=SECRET if former is None else stat.S_IMODE(former.st_mode)) as file:
        file.write(text.encode())
        if former is not None:
            os.fchown(file.fileno(), former.st_uid, former.st_gid)


def _find_file(name: str, value: str) -> str:
    """The whole path of a file that a setting names, since a service starts in another folder; it must be there, but
    for the log, which the host makes.
    """
    path = Path(value).absolute()
    if name != "log_file" and not path.is_file():
        raise click.UsageError(f"{name}: there is no file {path}.")
    return str(path)


def _with_port(address: str, port: int) -> str:
    return format_address(parse_listen_address(address)[0], port)


def _say_next(home: Path, changed: Sequence[str]) -> str:
    if not list_running(home / "host"):
        return f"Next: {following('kms-fast serve', 'config')}"
    if any(name in FIXED_SETTINGS for name in changed):
        return f"The host that runs takes up {', '.join(FIXED_SETTINGS)} with its next start only."
    return f"Next: {following('kms-fast host reload')}"
