"""``kms-fast host``: the group of its commands; here those for an exchange of files, and the reload."""

from pathlib import Path

import click

from kms_fast.cli.backup import backup, restore
from kms_fast.cli.clock_reset import clock_reset
from kms_fast.cli.configure import configure
from kms_fast.cli.dns import audit_dns, publish_dns, withdraw_dns
from kms_fast.cli.exchange import Forms, forms_options, read_answer
from kms_fast.cli.host_online import (
    RELOAD_LIMIT_S,
    activate,
    install_answer,
    install_key,
    keys_option,
    publisher_option,
    renew,
)
from kms_fast.cli.host_status import status
from kms_fast.cli.output import Output, following, home_option, json_option
from kms_fast.clock import wall_clock_ms
from kms_fast.files import read_bounded
from kms_fast.host.enrolment import make_request
from kms_fast.host.host_keys import read_keys_by_id
from kms_fast.host.presence import reload_running
from kms_fast.model.compact import pack_request
from kms_fast.model.exchange import HostRequest


@click.group
def command() -> None:
    """Install a host key, get a certificate online or by files; configure the host, publish it in DNS, back it up.

    \b
    Examples:
      kms-fast host activate --publisher publisher.json --key HOSTKEY
      kms-fast host request --publisher publisher.json --key HOSTKEY --out host.request
      kms-fast host apply host.answer
      kms-fast host status
    """


command.add_command(backup)
command.add_command(restore)
command.add_command(clock_reset)
command.add_command(configure)
command.add_command(status)
command.add_command(publish_dns)
command.add_command(withdraw_dns)
command.add_command(audit_dns)
command.add_command(install_key)
command.add_command(activate)
command.add_command(renew)


@command.command
@publisher_option
@keys_option
@forms_options("request")
@home_option
@json_option
def request(publisher_data: bytes | None, keys: list[str], forms: Forms, home: Path, out: Output) -> None:
    """Write a request for a host certificate; the first one makes this host's private key.

    It carries no secret: the host key itself never leaves this machine. File, text and QR codes are the same request.

    \b
    Examples:
      kms-fast host request --publisher publisher.json --key HOSTKEY --out host.request
      kms-fast host request --out renewal.request
      kms-fast host request --text -
      kms-fast host request --qr
    """
    folder = home / "host"
    data = make_request(folder, keys, publisher_data=publisher_data, now_ms=wall_clock_ms())
    parsed = HostRequest.parse(data)
    fields = forms.write(data, pack_request(parsed))
    known = read_keys_by_id(folder)
    used = [known[key_id].last_five for key_id in parsed.key_ids]
    forms.show(
        out,
        {**fields, "folder": folder, "keys": used},
        f"Made the request with the host key that ends in {', '.join(used)}{forms.list_files(fields)}\n"
        "Send it to the publisher.\n"
        f"Next, at the publisher: kms-fast publisher certify {forms.name} {forms.answer_options}",
    )


@command.command
@click.argument("answer", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "--catalog",
    "catalog_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The catalog file, where an answer as text or QR code names a catalog that this host does not have.",
)
@home_option
@json_option
def apply(answer: Path, catalog_path: Path | None, home: Path, out: Output) -> None:
    """Check the publisher's ANSWER in every respect and install certificate, catalog and publisher file.

    ANSWER is a file, of whichever form, or - for what is pasted: a block of text, or what scanned codes say.

    \b
    Examples:
      kms-fast host apply host.answer
      kms-fast host apply - --catalog host.catalog
    """
    catalog_file = read_bounded(catalog_path) if catalog_path else None
    fields, text = install_answer(home / "host", read_answer(answer, out), out, catalog_file)
    reload = following("kms-fast host reload")
    out.result(fields, f"{text}\nNext: {following('kms-fast serve')}, or if it runs: {reload}")


@command.command("reload")
@home_option
@json_option
def reload_command(home: Path, out: Output) -> None:
    """Let the running host take up certificate, catalog, keys and settings anew, without dropping a connection.

    It checks them first: when anything is wrong, exit code 1 says what, and the host goes on as before.

    \b
    Examples:
      kms-fast host apply host.answer && kms-fast host reload
    """
    running = reload_running(home / "host", limit_s=RELOAD_LIMIT_S)
    pids = [process.pid for process in running]
    out.result({"pids": pids}, f"Reloaded (process {', '.join(map(str, pids))}).")
