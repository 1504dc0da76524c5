"""The proof of a ledger's newest records, as far back as there is time."""

from types import SimpleNamespace

import pytest

from kms_fast.errors import LedgerError
from kms_fast.host import audit
from kms_fast.host.audit import Verdict
from tests.hosts import PUBLISHER_ID, Realm
from tests.ledgers import change, offsets, verify, write_segment


@pytest.mark.usefixtures("small_steps", "small_ranges")
def test_the_newest_first_until_time_is_up(
    realm: Realm, requests: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = (1,) * 9
    paths = [write_segment(realm, requests, sizes) for _ in range(3)]
    folder = paths[0].parent

    def verify_newest(ranges: int) -> Verdict:
        ticks = iter(range(1000))
        monkeypatch.setattr(audit, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
        return audit.verify_newest(folder, roots=(realm.root,), publisher_id=PUBLISHER_ID, limit_s=ranges + 1)

    every = verify_newest(100)
    assert (every, every.unread_segments) == (verify(realm), 0)
    # Each segment has three ranges; one that was begun is not read to its end.
    assert [verify_newest(ranges).unread_segments for ranges in (0, 2, 3, 4, 6)] == [3, 3, 2, 2, 1]
    change(paths[1], offsets(sizes)[1] + 130)
    assert verify_newest(5).unread_segments == 2
    with pytest.raises(LedgerError, match="Batch 2/2"):
        verify_newest(6)
    change(paths[0], 100)
    with pytest.raises(LedgerError, match="first block"):
        verify_newest(0)
