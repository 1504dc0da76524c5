"""``kms-fast load``."""

import ipaddress
import secrets
import socket
import sys
from pathlib import Path

import click

from kms_fast.cli.address import check_address
from kms_fast.cli.output import EXIT_FAILED, EXIT_INTERRUPTED, Output, json_option
from kms_fast.cli.report import check_report, describe_command, report_option, write_report
from kms_fast.discovery.address import parse_address
from kms_fast.errors import NoHost
from kms_fast.load.page import make_page
from kms_fast.load.plan import LoadPlan, LoadResult, find_product
from kms_fast.load.processes import Interrupted, run_load
from kms_fast.load.report import draw_load, find_failure, format_progress, make_figures
from kms_fast.load.timeline import Timeline
from kms_fast.model.publisher_file import PublisherFile

STOPPED = "Stopped by Ctrl-C; the figures are those until then."


class VerifyShare(click.ParamType[float]):
    """``all``, ``none`` or a percentage such as ``1%``; gives the percentage."""

    name = "all|none|N%"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        text = str(value).strip().lower()
        if text in ("all", "none"):
            return 100.0 if text == "all" else 0.0
        try:
            percent = float(text.removesuffix("%"))
        except ValueError:
            percent = -1.0
        if not text.endswith("%") or not 0 <= percent <= 100:
            self.fail(f"{value} is not all, none or a percentage such as 1%.", param, ctx)
        return percent


class Progress:
    """Shows how a load goes on the progress line of stderr, and keeps it in a timeline."""

    def __init__(self, out: Output, timeline: Timeline) -> None:
        self._out = out
        self._timeline = timeline
        self._before = LoadResult()

    def __call__(self, result: LoadResult) -> None:
        self._timeline.add(result)
        if not result.finished:
            self._out.progress(format_progress(result, self._before))
            self._before = result


@click.command
@click.argument("host", metavar="HOST[:PORT]", callback=check_address)
@click.option(
    "--publisher",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="The publisher's publisher.json.",
)
@click.option("--key", required=True, help="Client setup key of the product to activate.")
@click.option(
    "--connections", type=click.IntRange(1, 60_000), default=256, show_default=True, help="Connections at once."
)
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), help="How long; 10 unless --activations says how much."
)
@click.option("--activations", type=click.IntRange(1), help="How many activations.")
@click.option(
    "--per-connection",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Activations on one connection before it is closed; 0 keeps it open.",
)
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Offer so many a second, whatever the host does.")
@click.option(
    "--clients", type=click.IntRange(1, 10**10), default=100_000, show_default=True, help="Distinct machines that ask."
)
@click.option(
    "--verify", type=VerifyShare(), default="all", show_default=True, help="Share of answers that are checked."
)
@click.option(
    "--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that make the load."
)
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a JSON line for each acknowledged activation: request hash, CMID, batch, index.",
)
@report_option
@click.option("--i-may-load-this-host", "allowed", is_flag=True, help="Load an address outside of this machine.")
@json_option
def command(
    host: str,
    publisher: Path,
    key: str,
    connections: int,
    seconds: float | None,
    activations: int | None,
    per_connection: int,
    rate: float | None,
    clients: int,
    verify: float,
    processes: int,
    record: Path | None,
    report: Path | None,
    allowed: bool,
    out: Output,
) -> None:
    """Measure the host at HOST: activations per second and latency, every answer checked.

    Each activation seals a fresh request of one of many simulated machines. Without --rate a connection sends its next
    request when the last is answered (closed loop). With --rate requests are due at fixed times, and latency counts
    from the time a request was due.

    \b
    Examples:
      kms-fast load 127.0.0.1 --publisher publisher.json --key XXXXX-XXXXX-XXXXX-XXXXX-XXXXX
      kms-fast load 127.0.0.1:1688 --publisher publisher.json --key ... --rate 20000 --seconds 30
      kms-fast load 127.0.0.1 --publisher publisher.json --key ... --per-connection 1 --connections 64
      kms-fast load 127.0.0.1 --publisher publisher.json --key ... --rate 20000 --report load.html
    """
    ctx = click.get_current_context()
    if min(connections, clients, activations or connections) < processes:
        raise click.UsageError("--processes: each process needs a connection, a machine and an activation of its own.")
    product = find_product(PublisherFile.parse(publisher.read_bytes()), key)
    address, port = resolve(host, allowed=allowed)
    if record:
        record.write_bytes(b"")
    if report:
        check_report(report)
    plan = LoadPlan(
        address=address,
        port=port,
        product=product,
        connections=connections,
        per_connection=per_connection,
        clients=(0, clients),
        machine_seed=secrets.token_bytes(32),
        seconds=seconds or (0.0 if activations else 10.0),
        activations=activations or 0,
        rate=rate or 0.0,
        verify_percent=verify,
        record=str(record.absolute()) if record else None,
    )
    timeline, stopped = Timeline(), False
    try:
        result = run_load(plan, processes=processes, report=Progress(out, timeline))
    except Interrupted as interrupted:
        result, stopped = interrupted.result, True
    ctx.exit(show_result(plan, result, timeline, report, out, stopped=stopped))


def show_result(
    plan: LoadPlan, result: LoadResult, timeline: Timeline, report: Path | None, out: Output, *, stopped: bool
) -> int:
    """Write the page, if there is to be one, and print the figures; the exit code.

    ``stopped``: by Ctrl-C. Raises the `KmsFastError` of a load that got nothing it asked for.
    """
    failure = None if stopped else find_failure(plan, result)
    notice = STOPPED if stopped else failure.message if failure else ""
    title, command_line = f"Load of {plan.host}", describe_command(sys.argv[1:])
    written = report is None or write_report(
        report, make_page(plan, result, timeline.finish(result), title=title, command=command_line, notice=notice), out
    )
    if failure is not None:
        raise failure
    figures = make_figures(result) | ({"ok": False, "interrupted": True} if stopped else {})
    out.result(figures, draw_load(plan, result))
    if stopped:
        out.warning(STOPPED)
        return EXIT_INTERRUPTED
    return 0 if figures["ok"] and written else EXIT_FAILED


def resolve(host: str, *, allowed: bool) -> tuple[str, int]:
    """The literal address and the port that ``HOST[:PORT]`` means.

    Raises `ConfigurationError` for what is no address, click.UsageError for another machine's unless that is
    ``allowed``, `NoHost` for a name without addresses.
    """
    wanted = parse_address(host)
    try:
        address = str(socket.getaddrinfo(wanted.name, wanted.port, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise NoHost(f"{wanted.name}: {error.strerror}") from None
    if not ipaddress.ip_address(address).is_loopback and not allowed:
        raise click.UsageError(
            f"{host} ({address}) is not this machine, and a load can take a host down. "
            "If you may do that: --i-may-load-this-host."
        )
    return address, wanted.port
