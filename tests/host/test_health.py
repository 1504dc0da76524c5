"""The health pages of a real host."""

import os
import signal
import socket

from kms_fast.results import BY_NAME
from tests.host.running import fetch_health, find_web, log_of, wait_for
from tests.hosts import Realm, run_cli, serve
from tests.ledgers import change, offsets, write_segment


def test_health_pages(realm: Realm) -> None:
    with serve(realm, "--workers", "2", "--web", "127.0.0.1:0", "--timeout-graceful-shutdown", "3s") as host:
        address = find_web(host)
        # The recorder is not waited for: a host serves without it.
        wait_for(lambda: fetch_health(address, "readyz")[1]["recorder_ready"])
        assert fetch_health(address, "readyz") == (200, {
            "ready": True, "draining": False, "busy": None, "store_ready": True, "workers": 2, "workers_ready": 2,
            "recorder_ready": True, "segments_left": 0, "certificate_days_left": 364, "renewal_failed": None,
        })  # fmt: skip
        worker = host.worker_pids()[0]
        os.kill(worker, signal.SIGSTOP)
        host.process.send_signal(signal.SIGTERM)
        wait_for(lambda: fetch_health(address, "readyz")[0] == 503)
        status, told = fetch_health(address, "healthz")
        assert (status, told["draining"]) == (200, True)
        os.kill(worker, signal.SIGCONT)
        assert host.process.wait(30) == 0


def test_a_host_whose_disk_is_almost_full_is_not_ready(realm: Realm) -> None:
    config = realm.home.parent / "host.toml"
    config.write_text('low_water = "1024TiB"\n')
    with serve(realm, "--web", "127.0.0.1:0", "--config", str(config)) as host:
        address = find_web(host)
        wait_for(lambda: fetch_health(address, "readyz")[0] == 503)
        status, told = fetch_health(address, "healthz")
        assert (status, told["ready"], told["workers_ready"], told["store_ready"]) == (200, False, 1, True)
        said = f"the disk of {realm.home}/host/ledger is almost full: "
        assert told["busy"].startswith(said)
        assert told["busy"].endswith(" MiB are free, low_water is 1024TiB")
        assert f"{told['busy']}; requests are answered SERVER_BUSY" in log_of(host)
        config.write_text('low_water = "1MiB"\n')
        assert run_cli("host", "reload", home=realm.home)[0] == 0
        wait_for(lambda: fetch_health(address, "readyz")[0] == 200)
        assert fetch_health(address, "readyz")[1]["busy"] is None


def test_a_host_whose_recorder_meets_damage_serves_on_and_tells(realm: Realm, requests: list[bytes]) -> None:
    path = write_segment(realm, requests)
    write_segment(realm, requests)
    change(path, offsets()[1] + 200)
    with serve(realm, "--web", "127.0.0.1:0") as host:
        address = find_web(host)
        wait_for(lambda: fetch_health(address, "readyz")[1]["segments_left"] == 1)
        assert fetch_health(address, "readyz")[0] == 200
        assert host.stop() == 0
        lines = [line for line in log_of(host).splitlines() if "not recorded any further" in line]
    assert len(lines) == 1
    assert str(path) in lines[0]
    assert BY_NAME["LEDGER_DAMAGED"].cure in lines[0]


def test_health_pages_on_a_used_port(realm: Realm) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        web = f"127.0.0.1:{used.getsockname()[1]}"
        code, told, _ = run_cli("serve", "--listen", "127.0.0.1:0", "--web", web, home=realm.home)
    assert (code, told["name"]) == (1, "ADDRESS_IN_USE")
    assert web in told["message"]
    assert "web for the health pages" in told["cure"]
