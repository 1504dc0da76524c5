"""A host's private key, and how another one takes its place."""

import os
from pathlib import Path
from typing import Any

import pytest

from kms_fast.errors import KmsFastError
from kms_fast.host import enrolment
from kms_fast.host.enrolment import apply_answer, make_request, read_certificate, read_installation
from kms_fast.host.presence import HostProcess, Presence
from kms_fast.host.private_key import read_host_key
from kms_fast.model import signing
from kms_fast.publisher.issuing import certify
from kms_fast.publisher.publisher import Publisher
from tests.publishing import NOW_MS, PASSPHRASE, certify_host


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return tmp_path / "host"


@pytest.fixture
def key(publisher: Publisher) -> str:
    return publisher.make_host_key(now_ms=NOW_MS).key.text


def test_a_new_private_key_waits_until_it_is_certified(publisher: Publisher, host: Path, key: str) -> None:
    old = certify_host(publisher, host, key).certificate
    (host / "ledger").mkdir()
    issuer_key = publisher.read_issuer_key(PASSPHRASE)
    requests = [make_request(host, new_key=True, now_ms=NOW_MS + number) for number in range(2)]
    assert read_installation(host).certificate == old
    # The same new key: an answer that got lost costs no second activation.
    answers = [certify(publisher, request, issuer_key, now_ms=NOW_MS) for request in requests]
    assert [answer.renewal for answer in answers] == [False, True]
    # A renewal of the old one, as a host that runs asks for by itself, does not get in the way.
    certify_host(publisher, host, key)
    assert read_certificate(host).host_id == old.host_id
    last = certify(publisher, requests[1], issuer_key, now_ms=NOW_MS)
    presence = Presence(host, HostProcess(pid=os.getpid(), version="", started_ms=0, addresses=(), workers=1))
    with pytest.raises(KmsFastError) as caught:
        apply_answer(host, last.answer, now_ms=NOW_MS)
    assert caught.value.result.name == "HOST_RUNNING"
    presence.close()
    apply_answer(host, last.answer, now_ms=NOW_MS)
    assert read_installation(host).certificate == last.certificate
    kept = host / f"former-{old.host_id.hex()}"
    assert sorted(path.name for path in kept.iterdir()) == ["host.cert", "host.key", "ledger"]
    assert signing.public_bytes(read_host_key(kept)) == old.public_key
    assert not (host / "pending" / "host.key").exists()


@pytest.mark.parametrize("step", ["put_aside", "install_key"])
def test_a_key_that_was_half_replaced_is_replaced_by_the_same_answer(
    publisher: Publisher, host: Path, key: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = certify_host(publisher, host, key).certificate
    (host / "ledger").mkdir()
    request = make_request(host, new_key=True, now_ms=NOW_MS)
    answer = certify(publisher, request, publisher.read_issuer_key(PASSPHRASE), now_ms=NOW_MS).answer
    with monkeypatch.context() as patch:
        whole = getattr(enrolment, step)

        def stop(*args: Any) -> None:
            whole(*args)
            raise OSError(5, "power is gone", "x")

        patch.setattr(enrolment, step, stop)
        with pytest.raises(OSError, match="power is gone"):
            apply_answer(host, answer, now_ms=NOW_MS)
    apply_answer(host, answer, now_ms=NOW_MS)
    assert read_installation(host).certificate.host_id != old.host_id
    assert (host / f"former-{old.host_id.hex()}" / "host.key").exists()
