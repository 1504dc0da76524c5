"""AES-SIV and CMAC against `cryptography`, and what a key object must refuse."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.cmac import CMAC
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kms_fast import _core

KEY = bytes(range(32))
SHARED_FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def filled(n: int) -> bytes:
    return bytes((7 * i + n) & 0xFF for i in range(n))


def test_every_length_agrees_with_cryptography(each_aes):
    oracle = AESSIV(KEY)
    header, nonce = b"header", bytes(range(16))
    for n in range(1101):
        plain = filled(n)
        sealed = oracle.encrypt(plain, [header, nonce])
        key = _core.SivKey(KEY, header)
        assert key.encrypt(plain, nonce) == sealed, n
        assert key.decrypt(sealed, nonce) == plain, n


@SHARED_FIXTURE
@given(
    key=st.binary(min_size=32, max_size=32),
    plain=st.binary(max_size=1100),
    components=st.lists(st.binary(max_size=100), max_size=4),
)
@example(key=KEY, plain=b"", components=[])
@example(key=KEY, plain=b"", components=[b"", b""])
def test_components_agree_with_cryptography(each_aes, key, plain, components):
    sealed = AESSIV(key).encrypt(plain, components)
    assert _core.siv_seal(key, plain, *components) == sealed
    assert _core.siv_open(key, sealed, *components) == plain
    for split in (0, len(components)):  # all components per call where there is one, all precomputed
        if len(components) - split <= 1:
            assert _core.SivKey(key, *components[:split]).encrypt(plain, *components[split:]) == sealed
    if components:
        assert _core.SivKey(key, *components[:-1]).decrypt(sealed, components[-1]) == plain


@SHARED_FIXTURE
@given(key=st.binary(min_size=16, max_size=16), data=st.binary(max_size=1100))
def test_cmac_agrees_with_cryptography(each_aes, key, data):
    oracle = CMAC(AES128(key))
    oracle.update(data)
    assert _core.cmac(key, data) == oracle.finalize()


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 64, 65, 118, 168])
def test_any_flipped_bit_is_refused(each_aes, n):
    key, nonce = _core.SivKey(KEY, b"header"), b"nonce"
    sealed = key.encrypt(filled(n), nonce)
    for bit in range(8 * len(sealed)):
        forged = bytearray(sealed)
        forged[bit // 8] ^= 1 << bit % 8
        assert key.decrypt(bytes(forged), nonce) is None, bit
    assert key.decrypt(sealed, b"noncf") is None
    assert key.decrypt(sealed) is None


def test_too_short_for_a_tag_is_refused(each_aes):
    for n in range(16):
        assert _core.siv_open(KEY, bytes(n)) is None
        assert _core.siv_open(KEY, bytes(n), b"") is None
        assert _core.SivKey(KEY).decrypt(bytes(n), b"") is None


def test_an_empty_component_is_not_the_same_as_none(each_aes):
    assert len({_core.siv_seal(KEY, b"x"), _core.siv_seal(KEY, b"x", b""), _core.siv_seal(KEY, b"x", b"", b"")}) == 3


def test_wrong_arguments(each_aes):
    for n in (0, 16, 31, 33, 48, 64):
        with pytest.raises(ValueError, match=f"32 bytes.*not {n}"):
            _core.SivKey(bytes(n))
    for bad in (None, "text", bytearray(4)):
        with pytest.raises(TypeError):
            _core.SivKey(KEY, bad)
        with pytest.raises(TypeError):
            _core.siv_seal(KEY, b"", bad)
        with pytest.raises(TypeError):
            _core.siv_open(KEY, bytes(16), bad)


def test_a_key_keeps_the_backend_it_was_made_with():
    if _core.backend()["aes"] != "aesni":
        pytest.skip("one AES back end only on this machine")
    try:
        _core._use_backend(aes="cryptography")
        made_with_fallback = _core.SivKey(KEY, b"header")
    finally:
        _core._use_backend(aes="aesni")
    made_native = _core.SivKey(KEY, b"header")
    assert made_with_fallback.encrypt(b"x", b"n") == made_native.encrypt(b"x", b"n")


def test_repr_does_not_show_the_key():
    shown = repr(_core.SivKey(KEY, b"header"))
    assert KEY.hex() not in shown
    assert repr(KEY)[2:-1] not in shown
