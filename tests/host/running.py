"""What tests do to a real host: read its log, activate at each of its workers, renew its certificate."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from kms_fast.model import signing
from kms_fast.model.certificate import CertifiedFamily, issue_host_certificate
from kms_fast.model.policy import DAY_MS
from tests.hosts import DESKTOP, Realm, RunningHost, make_key
from tests.reference.rpc import Connection
from tests.reference.verify import Verified
from tests.system.asker import Asker, now_ms


def log_of(host: RunningHost) -> str:
    return (host.realm.home.parent / "serve.log").read_text()


def wait_for(condition: Callable[[], bool]) -> None:
    """Until something that is bound to happen has."""
    end_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def find_web(host: RunningHost) -> str:
    """ADDR:PORT of the health pages of a host."""
    return log_of(host).partition("http://")[2].partition("/")[0]


def fetch_health(address: str, page: str) -> tuple[int, dict[str, object]]:
    """Status and content of a health page."""
    try:
        with urllib.request.urlopen(f"http://{address}/{page}", timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def activate(connection: Connection, asker: Asker) -> Verified:
    """One new machine is granted."""
    asked = asker.ask()
    verified = asker.check(asked, connection.call(asked.request)[0])
    assert verified.leaf.result == 0
    return verified


def renew(realm: Realm, serial: int, *, days: int = 100) -> None:
    """Install another certificate for the host's key."""
    path = realm.home / "host" / "host.cert"
    certificate = issue_host_certificate(
        realm.issuer_key,
        realm.issuer,
        public_key=signing.public_bytes(make_key("host")),
        serial=serial,
        not_before_ms=now_ms() - DAY_MS,
        not_after_ms=now_ms() + days * DAY_MS,
        families=[CertifiedFamily(DESKTOP, 3, 1, 259_200)],
    )
    path.write_bytes(certificate.to_bytes() + realm.issuer.to_bytes())


def connect_to_each(host: RunningHost, asker: Asker) -> dict[int, Connection]:
    """A connection to each worker, by the segment that its answers are in."""
    found: dict[int, Connection] = {}
    for _ in range(200):
        connection = Connection(host.address)
        connection.bind()
        segment = activate(connection, asker).header.segment
        if segment in found:
            connection.socket.close()
        found.setdefault(segment, connection)
        if len(found) == len(host.worker_pids()):
            break
    return found
