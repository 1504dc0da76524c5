"""``kms-fast publisher serve``: the activation service that hosts ask over HTTPS."""

import asyncio
import signal
import ssl
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kms_fast import systemd
from kms_fast.cli.certify import days_option
from kms_fast.cli.logs import logging_options
from kms_fast.cli.output import Output, home_option, json_option
from kms_fast.cli.passphrase import Passphrase, passphrase_options
from kms_fast.errors import ConfigurationError
from kms_fast.files import read_bounded
from kms_fast.messages import log
from kms_fast.model.activation_url import is_loopback
from kms_fast.model.names import format_address, parse_listen_address

if TYPE_CHECKING:
    from kms_fast.publisher.web import ActivationPages

_LIMIT_BYTES = 1 << 20


def _check_address(ctx: click.Context, param: click.Parameter, value: str) -> str:
    try:
        parse_listen_address(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None
    return value


@click.command
@click.option(
    "--listen",
    metavar="ADDR:PORT",
    default="127.0.0.1:8443",
    show_default=True,
    callback=_check_address,
    help="Where to listen; without TLS on loopback only, for a proxy in front.",
)
@click.option(
    "--tls-cert", type=click.Path(dir_okay=False, path_type=Path), help="PEM file of the TLS certificate and its chain."
)
@click.option("--tls-key", type=click.Path(dir_okay=False, path_type=Path), help="PEM file of the TLS private key.")
@days_option
@click.option(
    "--peer-limit", type=click.IntRange(1), default=240, show_default=True, help="Requests an hour of one address."
)
@click.option(
    "--key-limit", type=click.IntRange(1), default=60, show_default=True, help="Requests an hour with one host key."
)
@logging_options
@home_option
@passphrase_options
@json_option
def serve(
    listen: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    days: int,
    peer_limit: int,
    key_limit: int,
    home: Path,
    passphrase: Passphrase,
    out: Output,
) -> None:
    """Run the activation service until TERM, which answers who asked and ends with exit code 0.

    It needs the issuer key, and never the root key. publisher.json is taken up as soon as it is exported; HUP takes up
    a new TLS certificate.

    \b
    Examples:
      kms-fast publisher serve --listen 0.0.0.0:8443 --tls-cert tls.pem --tls-key tls.key --key-file issuer.pass
      kms-fast publisher serve --listen 127.0.0.1:8080      # behind a proxy that has the TLS certificate
    """
    from kms_fast.publisher.publisher import Publisher
    from kms_fast.publisher.service import ActivationService
    from kms_fast.publisher.web import ActivationPages

    load_tls = _choose_tls(listen, tls_cert, tls_key)
    tls = load_tls() if load_tls else None
    with closing(Publisher(home / "publisher")) as publisher:
        service = ActivationService(
            publisher,
            publisher.read_issuer_key(passphrase.read()),
            days=days,
            peer_per_hour=peer_limit,
            key_per_hour=key_limit,
        )
        asyncio.run(_serve(ActivationPages(service, tls), listen, load_tls, out))


def _load_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """A context of its own for what is in the files now: one that fails to load is left without a key.

    Raises OSError or `ConfigurationError`.
    """
    for path in (certificate, key):
        read_bounded(path, _LIMIT_BYTES)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"{certificate} and {key} are not a TLS certificate and its private key, unencrypted PEM: "
            f"{error.reason or error}.",
            file=str(certificate),
        ) from None
    return context


def _choose_tls(listen: str, certificate: Path | None, key: Path | None) -> Callable[[], ssl.SSLContext] | None:
    if certificate is not None and key is not None:
        return partial(_load_tls, certificate, key)
    if certificate is not None or key is not None:
        raise click.UsageError("Give --tls-cert and --tls-key together.")
    host, _ = parse_listen_address(listen)
    if not is_loopback(host):
        raise click.UsageError(f"Without --tls-cert and --tls-key it listens on loopback only, not on {listen}.")
    return None


async def _serve(
    pages: "ActivationPages", listen: str, load_tls: Callable[[], ssl.SSLContext] | None, out: Output
) -> None:
    loop, stop, interrupt = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, interrupt.set)
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(_reload(pages, load_tls))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    address, port = await pages.open(listen)
    url = f"{'https' if load_tls else 'http'}://{format_address(address, port)}"
    log("SERVICE_STARTED", url=url, installed=await pages.describe())
    out.line({"event": "listening", "address": address, "port": port, "url": url}, f"listening on {url}")
    systemd.notify("READY=1")
    waiting = [asyncio.create_task(event.wait()) for event in (stop, interrupt)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    systemd.notify("STOPPING=1")
    await pages.close()
    if interrupt.is_set():
        raise KeyboardInterrupt
    log("SERVICE_STOPPED")


async def _reload(pages: "ActivationPages", load_tls: Callable[[], ssl.SSLContext] | None) -> None:
    try:
        if load_tls is not None:
            pages.tls = load_tls()
    except (ConfigurationError, OSError) as error:
        log("TLS_NOT_RELOADED", error=error)
    else:
        log("RELOADED", installed=await pages.describe())
