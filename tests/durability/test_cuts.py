"""A real host that lost its power comes up again with everything it answered."""

import random
from pathlib import Path

import pytest

from kms_fast.errors import KmsFastError
from tests.durability.checker import CheckerProcess
from tests.durability.cuts import cut_power, draw_places, rebuild, recover
from tests.durability.disk import PowerCuts
from tests.durability.recording import Recording
from tests.durability.staging import Script
from tests.hosts import make_realm


def test_nothing_is_lost(checker: CheckerProcess, recording: Recording, tmp_path: Path) -> None:
    realm = make_realm(tmp_path / "realm")
    tally = cut_power(recording, realm, Script(), 40, checker, tmp_path, random.Random(2), continued=2)
    assert (tally.cuts, tally.continued, tally.findings.texts) == (40, 2, [])


def test_places_ascend_and_are_in_the_trace(recording: Recording) -> None:
    places = draw_places(recording, 50, random.Random(1))
    assert places == sorted(places)
    assert recording.events()[0].place < places[0]
    assert places[-1] <= recording.events()[-1].place + 1


def test_a_damaged_ledger_is_no_recovery(recording: Recording, tmp_path: Path) -> None:
    """The negative control of `recover`: a byte in the middle of a segment that was certain."""
    home = tmp_path / "home"
    rebuild(PowerCuts(recording.disk()).cut(1 << 62, "kept", random.Random(0)), home)
    segment = home / "host" / "ledger" / "segment-00000001.kfl"
    data = bytearray(segment.read_bytes())
    data[data.index(b"KFL1") + 200] ^= 1
    segment.write_bytes(data)
    with pytest.raises(KmsFastError):
        recover(home)
