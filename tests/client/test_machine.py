"""What the client tells of its machine."""

import pytest

from kms_fast.client.machine import Machine, SystemClock, pack_name, read_machine
from kms_fast.errors import KmsFastError
from tests.reference.request import digest_hardware


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("", b""),
        ("client-7", b"client-7"),
        ("näme", "näme".encode()),
        ("a\x00b\x1fc\x7fd\x9fe", b"abcde"),
        ("x" * 70, b"x" * 64),
        ("é" * 40, "é".encode() * 32),
        ("x" + "é" * 40, b"x" + "é".encode() * 31),
        ("a\udcffb", b"ab"),
    ],
)
def test_names_are_packed_into_64_bytes_of_clean_utf_8(name: str, packed: bytes) -> None:
    assert pack_name(name) == packed.ljust(64, b"\0")


def test_the_digest_is_keyed_by_the_cmid() -> None:
    machine = Machine("", False, {"b": b"2", "a": b"1"})
    digest = machine.digest(["a", "b"], b"c" * 16, b"p" * 16)
    assert digest == digest_hardware(b"c" * 16, b"p" * 16, b"a\x001\0b\x002\0")
    assert digest != machine.digest(["a", "b"], b"d" * 16, b"p" * 16)
    assert digest != machine.digest(["a"], b"c" * 16, b"p" * 16)


def test_a_source_that_cannot_be_read_is_named() -> None:
    with pytest.raises(KmsFastError, match="product-uuid") as caught:
        Machine("", False, {"a": b"1"}).digest(["a", "product-uuid"], bytes(16), bytes(16))
    assert caught.value.result.name == "NOT_ALLOWED"


def test_this_machine_is_the_same_each_time() -> None:
    machine = read_machine()
    assert machine == read_machine()
    assert set(machine.hardware_ids) <= {"machine-id", "product-uuid", "mac-address"}


def test_the_clocks_go_forward() -> None:
    clock = SystemClock()
    first, first_boot = clock.now_ms(), clock.since_boot()
    assert clock.now_ms() >= first > 1_600_000_000_000
    if first_boot is not None:
        later = clock.since_boot()
        assert later is not None
        assert later[0] == first_boot[0]
        assert later[1] >= first_boot[1]
