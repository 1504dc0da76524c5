"""``kms-fast version``."""

import platform

import click

from kms_fast import __version__
from kms_fast._core import backend
from kms_fast.cli.output import Output, json_option


@click.command
@json_option
def command(out: Output) -> None:
    """Print version and compiled back ends.

    \b
    Examples:
      kms-fast version
      KMS_FAST_NO_AESNI=1 kms-fast version --json
    """
    running = backend()
    parts = ", ".join(f"{part} by {name}" for part, name in running.items())
    out.result(
        {
            "version": __version__,
            "backend": running,
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
        f"kms-fast {__version__} ({parts}; Python {platform.python_version()} on {platform.machine()})",
    )
