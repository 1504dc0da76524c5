"""A year of three machines and their host, as real processes whose clocks the test moves.

Three services renew; the host is gone for 215 days in between; at the end a clock is set back and a home is copied to
other hardware. Every look of a service is asked for by HUP and its end awaited, as a service manager is told of it, so
nothing depends on how fast this machine is.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

from kms_fast.client import Client
from kms_fast.results import find_result
from tests.client.world import SETUP_KEYS
from tests.client_services import RunningService, look_all, run_service
from tests.faked import DAY_S, FakedClock, replace_file, require_clock
from tests.hosts import RunningHost, make_realm, run_cli, serve

HOUR_S = 3600
THRESHOLD = 3
# A renewal comes 7 days after the last one, and up to 10 % later.
WEEK_S = 7.71 * DAY_S
RETRY_S = 2.21 * HOUR_S


@dataclass
class Machine:
    """One machine: a home of its own, and its service."""

    home: Path
    clock: FakedClock
    service: RunningService

    def count_attempts(self) -> int:
        return sum(attempt.times for _, attempts in Client(home=self.home).history() for attempt in attempts)

    def status(self) -> dict[str, Any]:
        [product] = run(self.clock, self.home, "status")["products"]
        return dict(product)

    def story(self) -> list[tuple[str, int]]:
        """The history, grants in a row as one."""
        [(_, attempts)] = Client(home=self.home).history()
        told: list[tuple[str, int]] = []
        for attempt in attempts:
            name, times = find_result(attempt.code).name, attempt.times
            if told and told[-1][0] == name:
                times += told.pop()[1]
            told.append((name, times))
        return told


def run(clock: FakedClock, home: Path, *arguments: str, before: Sequence[str] = ()) -> dict[str, Any]:
    """``kms-fast client ARGUMENTS --json`` at a time; ``before``: a program that starts it."""
    _, told, errors = run_cli("client", *arguments, home=home, prefix=[*before, *clock.command])
    assert "Traceback" not in errors
    return told


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str, FakedClock, RunningHost], Machine]]:
    """Call it with a name: a machine that has key and host, and whose service runs and has asked once."""
    with ExitStack() as started:

        def start_machine(name: str, clock: FakedClock, host: RunningHost) -> Machine:
            home = tmp_path / name
            run(clock, home, "install-key", SETUP_KEYS["desktop"], "--publisher", str(host.realm.publisher_json))
            run(clock, home, "set-host", "{}:{}".format(*host.address))
            return Machine(home, clock, started.enter_context(run_service(home, environment=clock.environment)))

        yield start_machine


def test_a_year(
    tmp_path: Path,
    start: Callable[[str, FakedClock, RunningHost], Machine],
    unavailable: Callable[[str], NoReturn],
) -> None:
    clock = require_clock(tmp_path, unavailable)("year")
    set_back = require_clock(tmp_path, unavailable)("set-back")
    other_id = tmp_path / "machine-id"
    other_id.write_text("0123456789abcdef0123456789abcdef\n")
    other_hardware = replace_file("/etc/machine-id", other_id, unavailable)
    realm = make_realm(tmp_path, threshold=THRESHOLD, days=400)

    def pass_time(span_s: float, *machines: Machine) -> None:
        before = [machine.count_attempts() for machine in machines]
        clock.set(clock.ahead_s + span_s)
        look_all([machine.service for machine in machines])
        assert [machine.count_attempts() for machine in machines] == [count + 1 for count in before]

    with serve(realm, environment=clock.environment) as host:
        # The threshold is met by the third machine; the others are granted when they ask again.
        a, b, c = machines = [start(name, clock, host) for name in "abc"]
        assert [machine.story()[-1][0] for machine in machines] == ["COUNT_TOO_LOW", "COUNT_TOO_LOW", "ACTIVATED"]
        assert a.status()["state"] == 2
        pass_time(RETRY_S, a, b)
        for _ in range(13):
            pass_time(WEEK_S, *machines)
        assert {machine.status()["state"] for machine in machines} == {1}
        assert host.stop() == 0
    outage_s = clock.ahead_s
    assert 100 * DAY_S < outage_s < 102 * DAY_S

    # Nobody answers any more. The lease lasts for 180 days, and its end is told beforehand, once each time.
    for day, state in ((120, 1), (151, 1), (152, 1), (174, 1), (179.5, 1), (181, 3), (200, 3), (211, 5)):
        pass_time(outage_s + day * DAY_S - clock.ahead_s, a)
        assert a.status()["state"] == state
    assert re.findall(r"expires within (.*?) and", a.service.log) == ["30 days", "7 days", "1 day"]
    assert a.status()["reason"]["name"] == "GRACE_ENDED"
    assert "WARNING Desktop 3: out of tolerance grace" in a.service.log
    assert "WARNING Desktop 3: notification" in a.service.log

    # The host is back. It has forgotten the machines, so the threshold is met anew.
    with serve(realm, environment=clock.environment, listen="{}:{}".format(*host.address)):
        pass_time(4 * DAY_S, *machines)
        early = [machine for machine in machines if machine.status()["state"] == 5]
        assert len(early) == THRESHOLD - 1
        pass_time(RETRY_S, *early)
        assert {machine.status()["state"] for machine in machines} == {1}
        while clock.ahead_s < 365 * DAY_S:
            pass_time(WEEK_S, *machines)

        # The clock of one machine is set back by twenty days.
        set_back.set(clock.ahead_s - 20 * DAY_S)
        [product] = run(set_back, c.home, "status")["products"]
        assert (product["state"], product["reason"]["name"]) == (5, "CLOCK_SET_BACK")
        assert run(set_back, c.home, "activate")["name"] == "CLOCKS_DIFFER"
        assert c.status()["state"] == 1

        # A home that is copied is not licensed on the other machine, until it activates itself.
        copied = tmp_path / "copied"
        shutil.copytree(b.home / "client", copied / "client")
        [product] = run(clock, copied, "status", before=other_hardware)["products"]
        assert (product["state"], product["reason"]["name"]) == (3, "HARDWARE_CHANGED")
        assert run(clock, copied, "activate", before=other_hardware)["state"] == 1
        assert b.status()["state"] == 1

        # Nor should it go on with the other's machine ID.
        assert run(clock, copied, "rearm", before=other_hardware)["rearms_left"] == 4
        [product] = run(clock, copied, "status", before=other_hardware)["products"]
        assert (product["state"], product["cmid"] != b.status()["cmid"]) == (2, True)
        assert run(clock, copied, "activate", before=other_hardware)["state"] == 1

    [product] = run(clock, a.home, "history")["products"]
    assert sum(attempt["times"] for attempt in product["attempts"]) == a.count_attempts()
    assert a.story() == [
        ("COUNT_TOO_LOW", 1),
        ("ACTIVATED", 14),
        ("NO_HOST_REACHED", 8),
        *([("COUNT_TOO_LOW", 1)] if a in early else []),
        ("ACTIVATED", 8),
    ]
    assert c.story()[-1] == ("CLOCKS_DIFFER", 1)
