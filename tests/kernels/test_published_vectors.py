"""Every published vector of the key sizes in use, on every back end; other sizes are refused."""

import base64
import json

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kms_fast import _core

from .published import PUBLISHED, records, wycheproof

unhex = bytes.fromhex


def test_wycheproof_aes_siv(each_aes):
    ran = refused = 0
    for group, test in wycheproof("aes_siv_cmac"):
        key, ad, plain, sealed = (unhex(test[name]) for name in ("key", "aad", "msg", "ct"))
        if group["keySize"] != 256:
            with pytest.raises(ValueError, match="32 bytes"):
                _core.siv_seal(key, plain, ad)
            with pytest.raises(ValueError, match="32 bytes"):
                _core.siv_open(key, sealed, ad)
            refused += 1
            continue
        ran += 1
        valid = test["result"] == "valid"
        assert _core.siv_open(key, sealed, ad) == (plain if valid else None), test
        assert _core.SivKey(key, ad).decrypt(sealed) == (plain if valid else None), test
        assert _core.SivKey(key).decrypt(sealed, ad) == (plain if valid else None), test
        if valid:
            assert _core.siv_seal(key, plain, ad) == _core.SivKey(key, ad).encrypt(plain) == sealed, test
    assert (ran, refused) == (148, 294)


def test_rfc_5297_appendix_a(each_aes):
    cases = records("rfc/rfc-5297-appendix-a.txt", last="Ciphertext")
    for case in cases:
        key, plain, sealed = unhex(case["Key"]), unhex(case["Plaintext"]), unhex(case["Tag"] + case["Ciphertext"])
        components = [unhex(case[name]) for name in ("AAD", "AAD2", "AAD3") if name in case]
        assert _core.siv_seal(key, plain, *components) == sealed
        assert _core.siv_open(key, sealed, *components) == plain
        *leading, last = components
        assert _core.SivKey(key, *leading).encrypt(plain, last) == sealed
        assert _core.SivKey(key, *leading).decrypt(sealed, last) == plain
    assert len(cases) == 2


def test_wycheproof_cmac(each_aes):
    ran = refused = 0
    for group, test in wycheproof("aes_cmac"):
        key, data, tag = unhex(test["key"]), unhex(test["msg"]), unhex(test["tag"])
        if group["keySize"] != 128:
            with pytest.raises(ValueError, match="16 bytes"):
                _core.cmac(key, data)
            refused += 1
            continue
        ran += 1
        assert _core.equal(_core.cmac(key, data), tag) == (test["result"] == "valid"), test
    assert (ran, refused) == (102, 209)


def test_sp_800_38b_cmac(each_aes):
    cases = records("nist/nist-800-38b-aes128.txt", last="OUTPUT")
    for case in cases:
        assert _core.cmac(unhex(case["KEY"]), unhex(case["MESSAGE"])).hex() == case["OUTPUT"]
    assert len(cases) == 4


def test_wycheproof_hmac_sha256(each_sha256):
    cases = wycheproof("hmac_sha256")
    for group, test in cases:
        mac = _core.hmac_sha256(unhex(test["key"]), unhex(test["msg"]))[: group["tagSize"] // 8]
        assert _core.equal(mac, unhex(test["tag"])) == (test["result"] == "valid"), test
    assert len(cases) == 174


def test_rfc_4231_hmac_sha256(each_sha256):
    cases = records("rfc/rfc-4231-sha256.txt", last="MD")
    for case in cases:
        assert _core.hmac_sha256(unhex(case["Key"]), unhex(case["Msg"])).hex() == case["MD"]
    assert len(cases) == 6
    truncated = _core.hmac_sha256(b"\x0c" * 20, b"Test With Truncation")[:16]
    assert truncated.hex() == "a3b6167473100ee06e0c796c2955552b"


def test_nist_sha256_short_messages(each_sha256):
    cases = records("nist/SHA256ShortMsg.rsp", last="MD")
    for case in cases:
        assert _core.sha256(unhex(case["Msg"])[: int(case["Len"]) // 8]).hex() == case["MD"]
    assert len(cases) == 65


def test_nist_sha256_monte_carlo(each_sha256):
    cases = records("nist/SHA256Monte.rsp", last="MD")
    seed = unhex(cases[0]["Seed"])
    for case in cases:  # SHAVS section 6.4
        a = b = c = seed
        for _ in range(1000):
            a, b, c = b, c, _core.sha256(a + b + c)
        seed = c
        assert seed.hex() == case["MD"]
    assert len(cases) == 100


def test_merkle_inclusion(each_sha256):
    accepted = refused = 0
    for path in sorted((PUBLISHED / "merkle-inclusion").rglob("*.json")):
        case = json.loads(path.read_text())
        leaf_hash, root = (base64.b64decode(case[name] or "") for name in ("leafHash", "root"))
        proof = [base64.b64decode(node or "") for node in case["proof"] or []]
        verified = _core.merkle_verify(leaf_hash, case["leafIdx"], case["treeSize"], proof, root)
        assert verified == (not case["wantErr"]), path
        accepted, refused = accepted + verified, refused + (not verified)
    assert accepted + refused == 98
    assert accepted > 0


def test_wycheproof_hkdf_sha256():
    cases = wycheproof("hkdf_sha256")
    for _, test in cases:
        derived = None
        try:
            derived = HKDF(SHA256(), test["size"], unhex(test["salt"]), unhex(test["info"])).derive(unhex(test["ikm"]))
        except ValueError:
            assert test["result"] == "invalid", test
        assert (derived == unhex(test["okm"])) == (test["result"] == "valid"), test
    assert len(cases) == 86


def test_wycheproof_ed25519():
    cases = wycheproof("ed25519")
    for group, test in cases:
        key = Ed25519PublicKey.from_public_bytes(unhex(group["publicKey"]["pk"]))
        verified = True
        try:
            key.verify(unhex(test["sig"]), unhex(test["msg"]))
        except InvalidSignature:
            verified = False
        assert verified == (test["result"] == "valid"), test
    assert len(cases) == 151
