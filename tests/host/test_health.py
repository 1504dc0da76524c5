"""The health pages of a real host."""

import json
import os
import signal
import socket
import urllib.error
import urllib.request

from tests.host.running import log_of, wait_for
from tests.hosts import Realm, run_cli, serve


def fetch(address: str, page: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(f"http://{address}/{page}", timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_health_pages(realm: Realm) -> None:
    with serve(realm, "--workers", "2", "--web", "127.0.0.1:0", "--timeout-graceful-shutdown", "3s") as host:
        address = log_of(host).partition("http://")[2].partition("/")[0]
        # The recorder is not waited for: a host serves without it.
        wait_for(lambda: fetch(address, "readyz")[1]["recorder_ready"])
        assert fetch(address, "readyz") == (200, {
            "ready": True, "draining": False, "workers": 2, "workers_ready": 2, "recorder_ready": True,
        })  # fmt: skip
        worker = host.worker_pids()[0]
        os.kill(worker, signal.SIGSTOP)
        host.process.send_signal(signal.SIGTERM)
        wait_for(lambda: fetch(address, "readyz")[0] == 503)
        status, told = fetch(address, "healthz")
        assert (status, told["draining"]) == (200, True)
        os.kill(worker, signal.SIGCONT)
        assert host.process.wait(30) == 0


def test_health_pages_on_a_used_port(realm: Realm) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        web = f"127.0.0.1:{used.getsockname()[1]}"
        code, told, _ = run_cli("serve", "--listen", "127.0.0.1:0", "--web", web, home=realm.home)
    assert (code, told["name"]) == (1, "ADDRESS_IN_USE")
    assert web in told["message"]
    assert "web for the health pages" in told["cure"]
