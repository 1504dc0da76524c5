"""SHA-256, HMAC-SHA256 and comparison against the standard library."""

import hashlib
import hmac

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kms_fast import _core

SHARED_FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def test_sha256_of_every_length(each_sha256):
    data = bytes(i * i & 0xFF for i in range(1100))
    for n in range(1101):
        assert _core.sha256(data[:n]) == hashlib.sha256(data[:n]).digest(), n


@SHARED_FIXTURE
@given(key=st.binary(max_size=200), data=st.binary(max_size=1100))
def test_hmac_sha256(each_sha256, key, data):
    assert _core.hmac_sha256(key, data) == hmac.digest(key, data, "sha256")


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 128])
def test_hmac_sha256_of_keys_about_a_block_long(each_sha256, n):
    for size in range(130):
        assert _core.hmac_sha256(bytes(range(n)), bytes(size)) == hmac.digest(bytes(range(n)), bytes(size), "sha256")


@given(a=st.binary(max_size=40), b=st.binary(max_size=40))
def test_equal(a, b):
    assert _core.equal(a, b) is (a == b)
    assert _core.equal(a, bytes(bytearray(a))) is True


def test_equal_sees_every_bit():
    for bit in range(256):
        assert not _core.equal(bytes(32), (1 << bit).to_bytes(32, "big"))
