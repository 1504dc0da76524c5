"""Reading the host's settings: flag beats environment beats file beats default."""

import difflib
import functools
import os
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from kms_fast.errors import ConfigurationError, explain_error
from kms_fast.model.settings import ConflictingSettings, HostSettings, Option, host_options

PREFIX = "KMS_FAST_"
# Variables that are read elsewhere; any other KMS_FAST_* variable must be an option.
OTHER_VARIABLES = {
    "KMS_FAST_HOME": "folder of keys, state and ledger, as --home",
    "KMS_FAST_CONFIG": "the host's configuration file, as --config",
    "KMS_FAST_PASSPHRASE": "passphrase of the publisher's private keys",
    "KMS_FAST_NO_AESNI": "1: AES without AES-NI",
    "KMS_FAST_NO_SHANI": "1: SHA-256 without SHA-NI",
    "KMS_FAST_DEBUG": "1 when building: checks, line tracing, no optimisation",
    "KMS_FAST_SANITIZE": "1 when building: address and undefined-behaviour sanitizers",
    "KMS_FAST_REQUIRE_SERVICES": "1 in tests: a missing tool is a failure, not a skip",
    "KMS_FAST_IMPACKET_PYTHON": "in tests: the interpreter that has impacket, else .venv-impacket/bin/python",
}


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings, and for each option the place its value comes from, in words. ``read_again`` reads them anew."""

    settings: HostSettings
    sources: Mapping[str, str]
    read_again: Callable[[], HostSettings]


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as somebody wrote it: where, for ``config show``; and the words that were written there."""

    value: Any
    source: str
    written: str
    strict: bool = False
    is_flag: bool = False


CONFIG_OPTION = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="KMS_FAST_CONFIG",
    help="TOML file of settings, else host/kms-fast.toml in the home; flags and KMS_FAST_* variables stand above it.",
)
STORE_OPTION = click.option(
    "--store", metavar="URL", help="PostgreSQL URL; else what the settings say; else files in the home."
)


def settings_file(home: Path) -> Path:
    """The file of settings in a home, which ``host configure`` writes and which need not exist."""
    return home / "host" / "kms-fast.toml"


def settings_options(
    function: Callable[..., None], prefix: str = "", names: Collection[str] | None = None
) -> Callable[..., None]:
    """Add ``--config`` and a flag for each option; the command gets them read as ``loaded`` (:class:`LoadedSettings`).

    With ``names`` only these get a flag, which is named without their ``prefix``. For a command with ``--home``, whose
    own file counts when none is named.

    The command raises :class:`~kms_fast.errors.ConfigurationError` when they are wrong.
    """

    @functools.wraps(function)
    def command(*args: Any, config: Path | None, home: Path, **others: Any) -> None:
        loaded = load_settings(config, take_flags(others), os.environ, home=home, prefix=prefix)
        function(*args, loaded=loaded, home=home, **others)

    return CONFIG_OPTION(add_flags(command, prefix, names))


def add_flags(
    function: Callable[..., None], prefix: str = "", names: Collection[str] | None = None
) -> Callable[..., None]:
    """Add a flag for each option, or for ``names``, of which `take_flags` makes what was given."""
    options = [option for name, option in host_options().items() if names is None or name in names]
    flags = [_add_flag(option, prefix) for option in options]
    return functools.reduce(lambda inner, add: add(inner), reversed(flags), function)


def take_flags(parameters: dict[str, Any]) -> dict[str, Any]:
    """Take the options out of a command's parameters; those that were given, as they were written."""
    written = {name: parameters.pop(name) for name in host_options() if name in parameters}
    return {name: value for name, value in written.items() if value not in (None, ())}


def config_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--config`` alone: for a command that needs to know how a host is set up, and does not set it up."""

    @functools.wraps(function)
    def command(*args: Any, config: Path | None, home: Path, **others: Any) -> None:
        function(*args, loaded=load_settings(config, {}, os.environ, home=home), home=home, **others)

    return CONFIG_OPTION(command)


def load_settings(
    path: Path | None,
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    *,
    home: Path | None = None,
    prefix: str = "",
) -> LoadedSettings:
    """The host's settings from a file, variables and flags. Without a ``path`` the file of the home counts, if any.

    ``prefix``: what the flags' names leave out.

    Raises:
        ConfigurationError: the file cannot be read, a name is unknown, a value wrong, or values fight each other;
            COMMAND_INVALID when it is the command line alone that is wrong.
    """
    given: dict[str, _Given] = {}
    if path is not None:
        given |= _read_file(path)
    elif home is not None and (own := settings_file(home)).exists():
        given |= _read_file(own)
    given |= _read_environment(environ)
    given |= _of_flags(flags, prefix)
    sources = {name: given[name].source if name in given else "default" for name in host_options()}

    def read_again() -> HostSettings:
        return load_settings(path, flags, environ, home=home, prefix=prefix).settings

    return LoadedSettings(_build(given), sources, read_again)


def parse_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The values of flags by the options' names, each checked by itself. Raises `ConfigurationError`."""
    values = _parse(_of_flags(flags))
    return {name: values[host_options()[name].field] for name in flags}


def parse_file(text: str, path: Path) -> HostSettings:
    """The settings in the text of a file, which is or will be at ``path``. Raises `ConfigurationError`."""
    return _build(_read_text(text, path))


def _build(given: Mapping[str, _Given]) -> HostSettings:
    try:
        return HostSettings(**_parse(given))
    except ConflictingSettings as error:
        raise _refuse([given[name] for name in error.names if name in given], str(error)) from None


def _parse(given: Mapping[str, _Given]) -> dict[str, Any]:
    """The values by the settings' fields."""
    options, values = host_options(), {}
    for name, item in given.items():
        try:
            values[options[name].field] = options[name].parse(item.value, strict=item.strict)
        except ValueError as error:
            raise _refuse([item], str(error), option=name) from None
    return values


def _of_flags(flags: Mapping[str, Any], prefix: str = "") -> dict[str, _Given]:
    given = {}
    for name, value in flags.items():
        flag = _flag(name, prefix)
        given[name] = _Given(value, flag, _write_flag(flag, name, value), is_flag=True)
    return given


def render_example() -> str:
    """A complete configuration file, every option explained and commented out at its default."""
    lines = ["# Settings of a kms_fast host: kms-fast serve --config FILE", "# Every option at its default."]
    for option in host_options().values():
        shown = "# not set" if option.default is None else f"# {option.name} = {option.format(option.default)}"
        example = (
            f"\n# {option.name} = {msgspec.json.encode(option.example).decode()}" if option.default is None else ""
        )
        lines += ["", f"# {option.description}", shown + example]
    return "\n".join(lines)


def _read_file(path: Path) -> dict[str, _Given]:
    return _read_text(read_file_text(path), path)


def read_file_text(path: Path) -> str:
    """The text of a file of settings. Raises `KmsFastError`."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise explain_error(error) from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}.", file=str(path)) from None


def _read_text(text: str, path: Path) -> dict[str, _Given]:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}.", file=str(path)) from None
    given = {}
    for name, value in values.items():
        line = _find_line(text, name)
        source = f"{path} line {line}" if line else str(path)
        _check_name(name, host_options(), source)
        written = f"{source}: {name}" + ("" if host_options()[name].is_secret else f" = {_write(value)}")
        given[name] = _Given(value, source, written, strict=True)
    return given


def _read_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    known = {PREFIX + name.upper(): option for name, option in host_options().items()}
    given = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable in OTHER_VARIABLES:
            continue
        _check_name(variable, [*known, *OTHER_VARIABLES], "environment")
        option = known[variable]
        value = [part.strip() for part in text.split(",")] if isinstance(option.default, tuple) else text
        written = variable if option.is_secret else f"{variable}={text}"
        given[option.name] = _Given(value, f"environment {variable}", written)
    return given


def _refuse(items: Sequence[_Given], why: str, **details: Any) -> ConfigurationError:
    """What is wrong with values, after the words in which they were written."""
    name = "COMMAND_INVALID" if all(item.is_flag for item in items) else "CONFIGURATION_INVALID"
    written, source = (", ".join(getattr(item, of) for item in items) for of in ("written", "source"))
    return ConfigurationError(f"{written}: {why.removesuffix('.')}.", name=name, source=source, **details)


def _write(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()


def _write_flag(flag: str, name: str, value: Any) -> str:
    if host_options()[name].is_secret:
        return flag
    return " ".join(f"{flag} {one}" for one in (value if isinstance(value, tuple) else (value,)))


def _check_name(name: str, known: Iterable[str], source: str) -> None:
    known = list(known)
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0)
    raise ConfigurationError(
        f"{source}: there is no option {name}; the nearest is {near[0]}.", option=name, nearest=near[0], source=source
    )


def _find_line(text: str, name: str) -> int | None:
    """The line on which a TOML text sets ``name``, from 1; None for a way of writing that this does not find."""
    match = re.search(rf"^\s*\[*\s*[\"']?{re.escape(name)}\b", text, re.MULTILINE)
    return None if match is None else text.count("\n", 0, match.end()) + 1


def _flag(name: str, prefix: str = "") -> str:
    return "--" + name.removeprefix(prefix).replace("_", "-")


def _add_flag(option: Option, prefix: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    told = option.description
    if option.default not in (None, ()):
        told = f"{told} [default: {option.format(option.default)}]"
    if isinstance(option.default, tuple):
        return click.option(_flag(option.name, prefix), option.name, multiple=True, metavar=option.metavar, help=told)
    if isinstance(option.default, bool):
        flags = f"{_flag(option.name, prefix)}/{_flag('no_' + option.name.removeprefix(prefix))}"
        return click.option(flags, option.name, default=None, help=told)
    metavar = "|".join(option.choices) or option.metavar
    return click.option(_flag(option.name, prefix), option.name, metavar=metavar, help=told)
