"""The kernels, one call each; the numbers include the call from Python. Compare with `--benchmark-compare`."""

import secrets
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from kms_fast import _core

KEY = secrets.token_bytes(32)
NONCE = secrets.token_bytes(16)
FIELDS = b"\1" * 16 + bytes(100) + b"\2" + bytes(51)
HEADER = secrets.token_bytes(116)
LEAVES = [secrets.token_bytes(118) for _ in range(256)]

Benchmark = Callable[..., Any]


@pytest.mark.parametrize("size", [32, 64, 220, 1024])
def bench_sha256(benchmark: Benchmark, size: int) -> None:
    benchmark(_core.sha256, bytes(size))


def bench_hmac_sha256_with_its_key_schedule(benchmark: Benchmark) -> None:
    benchmark(_core.hmac_sha256, KEY, NONCE)


@pytest.mark.parametrize("size", [16, 168, 1024])
def bench_cmac(benchmark: Benchmark, size: int) -> None:
    benchmark(_core.cmac, KEY[:16], bytes(size))


def bench_seal_a_request(benchmark: Benchmark) -> None:
    benchmark(_core.SkuKeys(NONCE, KEY, KEY).seal_request, FIELDS, NONCE)


def bench_open_a_request(benchmark: Benchmark) -> None:
    keys = _core.SkuKeys(NONCE, KEY, KEY)
    benchmark(keys.open_request, keys.seal_request(FIELDS, NONCE))


def bench_open_a_request_with_cryptography(benchmark: Benchmark) -> None:
    request = _core.SkuKeys(NONCE, KEY, KEY).seal_request(FIELDS, NONCE)
    benchmark(AESSIV(KEY).decrypt, request[36:], [request[:20], request[20:36]])


def bench_seal_a_leaf_under_a_fresh_key(benchmark: Benchmark) -> None:
    benchmark(_core.siv_seal, KEY, LEAVES[0], HEADER[:32])


@pytest.mark.parametrize("leaves", [1, 64, 256])
def bench_build_a_tree(benchmark: Benchmark, leaves: int) -> None:
    benchmark(_core.merkle_root, LEAVES[:leaves])


def bench_sign_a_header(benchmark: Benchmark) -> None:
    benchmark(Ed25519PrivateKey.generate().sign, HEADER)
