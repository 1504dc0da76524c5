"""The health pages of a real host."""

import os
import signal
import socket

from tests.host.running import fetch_health, find_web, log_of, wait_for
from tests.hosts import Realm, run_cli, serve


def test_health_pages(realm: Realm) -> None:
    with serve(realm, "--workers", "2", "--web", "127.0.0.1:0", "--timeout-graceful-shutdown", "3s") as host:
        address = find_web(host)
        # The recorder is not waited for: a host serves without it.
        wait_for(lambda: fetch_health(address, "readyz")[1]["recorder_ready"])
        assert fetch_health(address, "readyz") == (200, {
            "ready": True, "draining": False, "workers": 2, "workers_ready": 2, "recorder_ready": True,
        })  # fmt: skip
        worker = host.worker_pids()[0]
        os.kill(worker, signal.SIGSTOP)
        host.process.send_signal(signal.SIGTERM)
        wait_for(lambda: fetch_health(address, "readyz")[0] == 503)
        status, told = fetch_health(address, "healthz")
        assert (status, told["draining"]) == (200, True)
        os.kill(worker, signal.SIGCONT)
        assert host.process.wait(30) == 0


def test_a_disk_that_is_almost_full_does_not_show(realm: Realm) -> None:
    with serve(realm, "--web", "127.0.0.1:0", "--low-water", "1024TiB") as host:
        wait_for(lambda: "is almost full" in log_of(host))
        assert fetch_health(find_web(host), "readyz")[0] == 200


def test_health_pages_on_a_used_port(realm: Realm) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        web = f"127.0.0.1:{used.getsockname()[1]}"
        code, told, _ = run_cli("serve", "--listen", "127.0.0.1:0", "--web", web, home=realm.home)
    assert (code, told["name"]) == (1, "ADDRESS_IN_USE")
    assert web in told["message"]
    assert "web for the health pages" in told["cure"]
