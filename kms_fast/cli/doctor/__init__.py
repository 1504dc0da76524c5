"""``kms-fast doctor``: the checks that an expert would make, in order, each with a verdict and a cure."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from kms_fast.cli.address import check_optional_address
from kms_fast.cli.doctor.client import ACTIVATION_CHECKS, CLIENT_CHECKS, ClientContext
from kms_fast.cli.doctor.host import HOST_CHECKS, HostContext
from kms_fast.cli.doctor.ladder import Finding, Verdict, climb, fail, skip
from kms_fast.cli.doctor.lookup import Lookup, find_host_records, find_named, find_set_hosts
from kms_fast.cli.doctor.target import TARGET_CHECKS, TargetContext
from kms_fast.cli.output import EXIT_FAILED, Output, home_option, json_option
from kms_fast.cli.settings import CONFIG_OPTION
from kms_fast.client.trust import Trust
from kms_fast.clock import wall_clock_ms
from kms_fast.discovery.address import HostAddress
from kms_fast.errors import KmsFastError
from kms_fast.model.policy import SRV_NAME


@dataclass
class Examination:
    """What is looked at, and what was found so far. ``trusts`` and ``revocations``: what hosts are asked with."""

    out: Output
    findings: list[Finding] = field(default_factory=list)
    targets: dict[HostAddress, TargetContext] = field(default_factory=dict)
    trusts: Sequence[Trust] = ()
    revocations: bytes | None = None
    service: str = SRV_NAME

    def look_up(self, lookup: Lookup) -> None:
        """Take what was found, and the hosts to look at."""
        self.findings.append(lookup.finding)
        for host in lookup.hosts:
            self.add_target(host, lookup.trusts or self.trusts, is_only=bool(lookup.trusts) and len(lookup.hosts) == 1)

    def add_target(self, host: HostAddress, trusts: Sequence[Trust], *, about: str = "", is_only: bool = False) -> None:
        """Look at a host too, for these products; ``is_only``: they ask no other."""
        target = self.targets.setdefault(host, TargetContext(host, about or str(host), self.revocations))
        skus = [trust.sku.id for trust in trusts]
        target.trusts = [*(trust for trust in target.trusts if trust.sku.id not in skus), *trusts]
        target.needed_by |= set(skus if is_only else ())

    def pass_over(self, what: str, home: Path) -> None:
        """Note that this user may not look at the host or client in a home."""
        why = f"because the {what}'s folder is another user's: run the command as that user too, or as root"
        self.findings.append(replace(skip(why), about=f"{what} in {home}", check="folder"))

    def look_at_targets(self) -> None:
        """Climb the ladder of every host."""
        for target in self.targets.values():
            self.out.progress(f"looking at {target.about}")
            self.findings += climb(target.about, TARGET_CHECKS, target)


@click.command
@click.argument("where", required=False, metavar="[DOMAIN|HOST]", callback=check_optional_address)
@click.option("--activate", is_flag=True, help="At the end activate this machine's products for real.")
@click.option("--service", metavar="NAME", help="Look up this service instead of the publisher's, such as _vlmcs._tcp.")
@CONFIG_OPTION
@home_option
@json_option
def command(
    where: str | None, activate: bool, service: str | None, config: Path | None, home: Path, out: Output
) -> None:
    """Check this host, this client, or with DOMAIN or HOST the hosts there: what is wrong, and what to do.

    No count changes, and but for --activate no licence. A host notes a request of "kms-fast probe", which it refuses.
    Exit code 1 when a check failed.

    \b
    Examples:
      kms-fast doctor
      kms-fast doctor kms.example.com:1688
      kms-fast doctor example.com --json
      kms-fast doctor --activate
    """
    if where is not None and activate:
        raise click.UsageError("--activate asks the hosts that this client is set to: leave DOMAIN or HOST away.")
    examination = Examination(out)
    host, client = HostContext(home, config, wall_clock_ms()), ClientContext(home, wall_clock_ms())
    if where is None:
        _examine_home(examination, host, client, service)
    else:
        _examine_place(examination, host, client, where, service)
    examination.look_at_targets()
    if activate:
        examination.findings += climb("activation", ACTIVATION_CHECKS, client)
    _report(examination.findings, out)


def _examine_home(examination: Examination, host: HostContext, client: ClientContext, service: str | None) -> None:
    """The host's half, the client's half, or both, as the home has them."""
    is_host, is_client = _holds_anything(host.folder), _holds_anything(client.home / "client")
    if not is_host and not is_client:
        what = f"{host.home} is the home of neither a host nor a client."
        cure = "Name the home with --home; or begin: kms-fast host request, or kms-fast client install-key."
        if None in (is_host, is_client):
            what = f"What is in {host.home} belongs to another user."
            cure = "Run the command as that user, or as root."
        examination.findings.append(replace(fail(what, cure), about="home", check="home"))
        return
    if is_host:
        examination.out.progress("looking at this host")
        examination.findings += climb(f"host in {host.home}", HOST_CHECKS, host)
        _trust_as_host(examination, host)
        if host.nearby is not None:
            examination.add_target(host.nearby, examination.trusts, about=f"this host at {host.nearby}")
    elif is_host is None:
        examination.pass_over("host", host.home)
    if is_client:
        examination.out.progress("looking at this client")
        examination.findings += climb(f"client in {client.home}", CLIENT_CHECKS, client)
        _trust_as_client(examination, client)
    elif is_client is None:
        examination.pass_over("client", client.home)
    lookups: Sequence[Lookup] = ()
    if client.trusts:
        lookups = find_set_hosts(client, service or examination.service)
    elif host.installation is not None:
        lookups = find_host_records(host, service or examination.service)
    for lookup in lookups:
        examination.look_up(lookup)


def _holds_anything(folder: Path) -> bool | None:
    """Whether a folder of the home is in use: it may be missing, or empty, as systemd-tmpfiles makes it. None where
    this user may not look.
    """
    try:
        return any(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        return None


def _examine_place(
    examination: Examination, host: HostContext, client: ClientContext, where: str, service: str | None
) -> None:
    """Another host, with what this home knows of its publisher: nothing wrong here matters there."""
    if (client.home / "client").exists():
        climb("", [check for check in CLIENT_CHECKS if check.name == "keys"], client)
        _trust_as_client(examination, client)
    if not examination.trusts and host.folder.exists():
        climb("", [check for check in HOST_CHECKS if check.name == "certificate"], host)
        _trust_as_host(examination, host)
    examination.look_up(find_named(where, service or examination.service))


def _trust_as_client(examination: Examination, client: ClientContext) -> None:
    if client.trusts and client.state is not None:
        examination.trusts, examination.revocations = client.trusts, client.state.revocations
        examination.service = client.trusts[0].publisher.srv_name


def _trust_as_host(examination: Examination, host: HostContext) -> None:
    """A host has the secrets of its catalog's setup keys."""
    if (installed := host.installation) is None:
        return
    examination.service = installed.publisher.srv_name
    certified = {family.number: family.generation for family in installed.certificate.families}
    served = [sku for sku in installed.catalog.skus if sku.generation <= certified.get(sku.family, 0)]
    if served:
        key = served[0].setup_key(installed.publisher.publisher_id)
        examination.trusts = [Trust(installed.publisher, served[0], key)]


def _report(findings: Sequence[Finding], out: Output) -> None:
    counts = {verdict: sum(finding.verdict is verdict for finding in findings) for verdict in Verdict}
    failed = [finding.check for finding in findings if finding.verdict is Verdict.FAILED]
    told: dict[str, Any] = {"checks": [finding.to_json() for finding in findings]}
    if failed:
        message = f"{len(failed)} of {len(findings)} checks failed: {', '.join(failed)}."
        error = KmsFastError(message, name="CHECK_FAILED")
        told = error.to_json() | told
    summary = ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count)
    out.result(told, f"{_render(findings)}\n\n{summary}")
    if failed:
        click.get_current_context().exit(EXIT_FAILED)


def _render(findings: Sequence[Finding]) -> str:
    width = max(len(finding.check) for finding in findings)
    lines: list[str] = []
    about = None
    for finding in findings:
        if finding.about != about:
            about = finding.about
            lines += ["", about] if lines else [about]
        lines.append(f"  {finding.verdict.value:8} {finding.check:{width}}  {finding.what}")
        if finding.cure is not None:
            lines.append(f"  {'':8} {'':{width}}  What to do: {finding.cure}")
    return "\n".join(lines)
