"""The publisher's records: the schema of an earlier version, the log's bound, names of keys, numbers left out."""

import stat
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from kms_fast.errors import ConfigurationError
from kms_fast.model.exchange import HostKeySecrets
from kms_fast.publisher import records as records_module
from kms_fast.publisher.database import MIGRATIONS
from kms_fast.publisher.records import Entitlement, Records, RequestRecord
from tests.publishing import NOW_MS


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records(tmp_path / "publisher.db", create=True)
    yield opened
    opened.close()


def make_secrets(number: int, last_five: str) -> HostKeySecrets:
    return HostKeySecrets(bytes([number]) * 8, last_five, bytes(32), bytes(32))


def describe_tables(path: Path) -> set[tuple[str, ...]]:
    connection = apsw.Connection(str(path))
    rows = connection.execute("SELECT m.name, c.name, c.type FROM sqlite_master m, pragma_table_info(m.name) c")
    return set(rows.fetchall())


def test_a_file_of_the_first_version_is_brought_up(tmp_path: Path, records: Records) -> None:
    old = tmp_path / "old.db"
    connection = apsw.Connection(str(old))
    connection.execute(f"{MIGRATIONS[0]}; PRAGMA user_version = 1")
    connection.execute(
        "INSERT INTO host_keys VALUES (zeroblob(8), 'ABCDE', zeroblob(32), zeroblob(32), '{\"1\": 2}', 6, 9, 0, '', 5)"
    )
    connection.close()
    for _ in range(2):
        opened = Records(old)
        (key,) = opened.list_host_keys()
        assert (key.secrets.last_five, key.entitlement.families, key.disabled_ms) == ("ABCDE", {1: 2}, None)
        opened.disable_key(key.secrets.key_id, None)
        assert opened.list_requests(limit=10) == []
        opened.close()
    assert describe_tables(old) == describe_tables(tmp_path / "publisher.db")


def test_a_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "publisher.db"
    apsw.Connection(str(path)).execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(ConfigurationError, match="newer version"):
        Records(path)


@pytest.mark.parametrize("content", [None, b""])
def test_a_file_that_was_lost_is_not_replaced(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "lost.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"kms-fast publisher restore"):
        Records(path)
    assert (path.read_bytes() if path.exists() else None) == content


def test_only_its_owner_may_read_it(tmp_path: Path, records: Records) -> None:
    assert stat.S_IMODE((tmp_path / "publisher.db").stat().st_mode) == 0o600


def test_keys_that_end_alike_are_named_by_their_id(records: Records) -> None:
    for number, last_five in ((1, "ABCDE"), (2, "ABCDE"), (3, "VWXYZ")):
        records.add_host_key(make_secrets(number, last_five), Entitlement({1: 1}, 6, 10), NOW_MS)
    assert records.name_host_key(" vwxyz").secrets.key_id == b"\3" * 8
    with pytest.raises(ConfigurationError, match=r"0101010101010101, 0202020202020202"):
        records.name_host_key("ABCDE")
    assert records.name_host_key("02" * 8).secrets.key_id == b"\2" * 8
    with pytest.raises(ConfigurationError, match="no host key that ends in 00000"):
        records.name_host_key("00000")


def test_the_log_keeps_so_many_refusals(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "KEPT_REFUSALS", 10)
    for number in range(25):
        records.add_request(RequestRecord(number, "::1", "ABCDE", None, None, 5, None))
    assert [row.time_ms for row in records.list_requests(limit=100)] == list(range(24, 14, -1))
    assert [row.time_ms for row in records.list_requests(limit=3, since_ms=20)] == [24, 23, 22]
    assert records.list_requests(limit=100, refused=False) == []


def test_the_log_of_a_key_has_no_other_keys_rows(records: Records) -> None:
    logged = ("12345", "ABCDE, 12345", "VWXYZ", "a12345a12345a123", "")
    for keys in logged:
        records.add_request(RequestRecord(NOW_MS, "", keys, None, None, 5, None))
    assert [row.keys for row in records.list_requests(limit=9, key="12345")] == ["ABCDE, 12345", "12345"]
    assert [row.keys for row in records.list_requests(limit=9)] == [*reversed(logged)]


def test_numbers_are_left_out(records: Records) -> None:
    with records.transaction():
        assert [records.number_for("catalog", digest) for digest in (b"a", b"b", b"b")] == [1, 2, 2]
        assert [records.number_for("catalog", b"b", taken=taken) for taken in (1, 2, 2, 7)] == [2, 3, 3, 8]
    records.skip_numbers()
    skipped = records_module.SKIPPED_NUMBERS
    assert (records.next_serial(), records.next_revocation_number()) == (skipped + 1, skipped + 1)
    with records.transaction():
        assert records.number_for("catalog", b"b") == skipped + 9
        assert records.number_for("publisher", b"c") == skipped + 1
    records.add_revocation_list(records.next_revocation_number(), b"list")
    assert records.next_revocation_number() == skipped + 2
