"""FamilyCount against a model in a few lines of Python."""

from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kms_fast._core import FamilyCount

RETENTION_MS = 1000
# Few machines, so that they come back; some differ in one half of the CMID only.
CMIDS = [bytes([n % 4]) * 8 + bytes([n // 4]) * 8 for n in range(16)]


class CountsMachine(RuleBasedStateMachine):
    """The model: an ordered dict of CMID -> last seen, oldest first."""

    @initialize(cap=st.integers(1, 8))
    def begin(self, cap: int) -> None:
        self.count = FamilyCount(1, cap, RETENTION_MS)
        self.model: OrderedDict[bytes, int] = OrderedDict()
        self.cap, self.now_ms = cap, 10 * RETENTION_MS

    def expire(self) -> None:
        for cmid, seen_ms in list(self.model.items()):
            if seen_ms < self.now_ms - RETENTION_MS:
                del self.model[cmid]

    def note(self, cmid: bytes, seen_ms: int) -> bool:
        is_new = cmid not in self.model
        if is_new and len(self.model) == self.cap:
            self.model.popitem(last=False)
        self.model[cmid] = seen_ms
        self.model.move_to_end(cmid)
        return is_new

    @rule(cmid=st.sampled_from(CMIDS))
    def see(self, cmid: bytes) -> None:
        assert self.count.see(cmid, self.now_ms) == self.note(cmid, self.now_ms)

    @rule(passed_ms=st.integers(0, RETENTION_MS + 1))
    def pass_time(self, passed_ms: int) -> None:
        self.now_ms += passed_ms

    @rule()
    def look(self) -> None:
        self.expire()
        assert self.count.current(self.now_ms) == len(self.model)

    @rule(rows=st.lists(st.tuples(st.sampled_from(CMIDS), st.integers(0, 500)), max_size=20))
    def load(self, rows: list[tuple[bytes, int]]) -> None:
        ordered = sorted(((cmid, self.now_ms - age_ms) for cmid, age_ms in rows), key=lambda row: row[1])
        self.count.load(ordered)
        self.model.clear()
        for cmid, seen_ms in ordered:
            self.note(cmid, seen_ms)

    @rule(age_ms=st.integers(0, 2 * RETENTION_MS))
    def list_since(self, age_ms: int) -> None:
        since_ms = self.now_ms - age_ms
        assert self.count.rows_since(since_ms) == [row for row in self.model.items() if row[1] >= since_ms]

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert self.count.rows_since(0) == list(self.model.items())


TestFamilyCount = CountsMachine.TestCase
TestFamilyCount.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@settings(max_examples=20, deadline=None)
@given(cap=st.sampled_from([1, 2, 3, 50, 700]), data=st.randoms(use_true_random=False))
def test_many_machines_share_few_buckets(cap: int, data: object) -> None:
    """More machines than buckets come and go; each eviction must find its machine in a chain of others."""
    count, model = FamilyCount(1, cap, RETENTION_MS), OrderedDict[bytes, int]()
    for number in range(3 * cap + 20):
        cmid = data.randbytes(16) if number % 3 else next(iter(model), bytes(15) + b"\1")  # type: ignore[attr-defined]
        is_new = cmid not in model
        if is_new and len(model) == cap:
            model.popitem(last=False)
        model[cmid] = number
        model.move_to_end(cmid)
        assert count.see(cmid, number) == is_new
    assert count.rows_since(0) == list(model.items())


def test_retention_is_inclusive() -> None:
    count = FamilyCount(1, 2, RETENTION_MS)
    count.see(CMIDS[0], 5000)
    assert count.current(5000 + RETENTION_MS) == 1
    assert count.current(5000 + RETENTION_MS + 1) == 0


@pytest.mark.parametrize(("threshold", "cap"), [(0, 1), (2, 1), (1, (1 << 24) + 1)])
def test_a_cap_below_its_threshold(threshold: int, cap: int) -> None:
    with pytest.raises(ValueError, match="threshold"):
        FamilyCount(threshold, cap, RETENTION_MS)


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_cmid_of_another_size(size: int) -> None:
    count = FamilyCount(1, 2, RETENTION_MS)
    with pytest.raises(ValueError, match="16 bytes"):
        count.see(bytes(size), 1)
    with pytest.raises(ValueError, match="16 bytes"):
        count.load([(bytes(size), 1)])
