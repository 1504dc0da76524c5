"""``kms-fast config``: the host's settings."""

from pathlib import Path

import click
import msgspec
from rich.table import Table

from kms_fast.cli.output import Output, home_option, json_option
from kms_fast.cli.settings import LoadedSettings, render_example, settings_options
from kms_fast.model.settings import host_options


@click.group
def command() -> None:
    """Show, check and print the host's settings.

    \b
    Examples:
      kms-fast config example > kms-fast.toml
      kms-fast config validate --config kms-fast.toml
      KMS_FAST_RETENTION=2d kms-fast config show --config kms-fast.toml
    """


@command.command
@home_option
@settings_options
@json_option
def show(loaded: LoadedSettings, home: Path, out: Output) -> None:
    """Print each setting, its value and where the value comes from; a password in an URL as ***.

    \b
    Examples:
      kms-fast config show
      kms-fast config show --config kms-fast.toml --json
    """
    table = Table("option", box=None, pad_edge=False)
    for column in ("value", "from"):
        table.add_column(column, overflow="fold")
    rows = {}
    for name, option in host_options().items():
        value = getattr(loaded.settings, option.field)
        table.add_row(name, "not set" if value is None else option.show(value), loaded.sources[name])
        rows[name] = {"value": msgspec.json.decode(option.show(value)), "source": loaded.sources[name]}
    out.result({"settings": rows}, table)


@command.command
@home_option
@settings_options
@json_option
def validate(loaded: LoadedSettings, home: Path, out: Output) -> None:
    """Check the settings as serve would read them; a failure names what is wrong and where.

    \b
    Example:
      kms-fast config validate --config kms-fast.toml
    """
    given = [f"{name} ({source})" for name, source in loaded.sources.items() if source != "default"]
    out.result({"given": given}, f"The settings are valid: {', '.join(given) or 'all at their defaults'}.")


@command.command
@json_option
def example(out: Output) -> None:
    """Print a complete configuration file with every option explained.

    \b
    Example:
      kms-fast config example > kms-fast.toml
    """
    out.result({"example": render_example()}, render_example())
