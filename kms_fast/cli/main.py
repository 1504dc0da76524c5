"""The root of the command line. Sub-commands load when they are called, so ``--help`` stays quick.

Exit codes: 0 done, 1 refused or failed with a code of docs/errors.md, 2 COMMAND_INVALID, 130 Ctrl-C, 141 nobody reads
the output any more.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import cast

import click
from click.shell_completion import CompletionItem

from kms_fast import __version__
from kms_fast.cli.output import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_UNREAD, EXIT_USAGE, Output
from kms_fast.errors import KmsFastError, translate_os_error

# Name of the command and of its module in kms_fast.cli, and its line in --help.
COMMANDS = {
    "serve": "Run the activation host.",
    "lab": "Make a publisher, run a host, load it and check every answer.",
    "load": "Measure a host: activations per second and latency.",
    "publisher": "Root and issuer keys, catalog, product keys, certificates.",
    "host": "Install a host key, ask for a certificate, apply it.",
    "client": "Install a setup key, activate this machine, show its state.",
    "ledger": "Verify and list what a host has signed.",
    "inventory": "Find machines that asked, and count them.",
    "store": "Prepare, back up, restore and check counts and inventory.",
    "config": "Show, check and print the host's settings.",
    "doctor": "Find out what is wrong with a host, a client or the way between them.",
    "explain": "Say what a result code means, or tell a machine's story.",
    "version": "Print version and compiled back ends.",
    "completion": "Print the completion script of a shell.",
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports the module of one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return cast(click.Command, importlib.import_module(f"kms_fast.cli.{cmd_name}").command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [
            CompletionItem(name, help=line) for name, line in COMMANDS.items() if name.startswith(incomplete)
        ] + options


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="kms-fast", message="%(prog)s %(version)s")
def cli() -> None:
    """A volume-activation host on the KMS model, for software its users publish or test.

    \b
    See it work:     kms-fast lab
    Every command:   kms-fast COMMAND --help, and --json for programs
    """


def run(args: Sequence[str]) -> int:
    """Run one command line and return its exit code; every failure a user can meet is printed, not raised."""
    options = args[: args.index("--")] if "--" in args else args
    out = Output(as_json="--json" in options)
    try:
        code = _invoke(args, out)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read our output has enough of it, as `head` does.
        _drop_stdout()
        return EXIT_UNREAD
    except OSError as error:
        known = translate_os_error(error)
        if known is None:
            raise
        out.error(known)
        try:
            sys.stdout.flush()
        except OSError:
            _drop_stdout()
        return EXIT_FAILED


def _drop_stdout() -> None:
    """Lead what stdout still holds nowhere, so that the interpreter's own flush at exit does not fail on it either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _invoke(args: Sequence[str], out: Output) -> int:
    try:
        # Not standalone: a command's return value or the code of its ctx.exit() comes back.
        code = cli.main(list(args), prog_name="kms-fast", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SystemExit as error:
        # Click's own way to end when nobody reads the output.
        raise BrokenPipeError from error
    except KmsFastError as error:
        out.error(error)
        return EXIT_USAGE if error.result.name == "COMMAND_INVALID" else EXIT_FAILED
    except (click.Abort, KeyboardInterrupt):
        out.error(KmsFastError("Stopped by Ctrl-C.", name="INTERRUPTED"))
        return EXIT_INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return EXIT_USAGE
    except click.ClickException as error:
        out.error(KmsFastError(_explain(error), name="COMMAND_INVALID"))
        return EXIT_USAGE


def _explain(error: click.ClickException) -> str:
    """What click says, and the range of a number where it says only that this is none."""
    message = error.format_message()
    wanted = error.param.type if isinstance(error, click.BadParameter) and error.param is not None else None
    if not isinstance(wanted, click.IntRange | click.FloatRange) or "in the range" in message:
        return message
    least = f"more than {wanted.min}" if wanted.min_open else f"at least {wanted.min}"
    allowed = least if wanted.max is None else f"from {wanted.min} to {wanted.max}"
    return f"{message.removesuffix(' range.')}; expected {allowed}"


def main() -> None:
    """Entry point of the console script."""
    # Streams that were closed at the start (``>&-``) are None here, and files opened next would get their numbers.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115
    sys.exit(run(sys.argv[1:]))
