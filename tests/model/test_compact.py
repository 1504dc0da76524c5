"""Compact requests and answers: the same as the files, and what is refused."""

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from kms_fast.errors import ConfigurationError
from kms_fast.model import signing
from kms_fast.model.catalog_file import CatalogFile, build_catalog_file
from kms_fast.model.certificate import CertifiedFamily, issue_host_certificate
from kms_fast.model.compact import CompactAnswer, pack_request, unpack_request
from kms_fast.model.document import hash_document
from kms_fast.model.exchange import HostAnswer, HostKeySecrets, HostRequest, build_host_request
from kms_fast.model.keys import KeyKind, ProductKey
from kms_fast.model.publisher_file import PublisherFile
from tests.model.test_catalog import CATALOG, make_publisher_file
from tests.model.test_exchange import AUTHORITY, HOST, OTHER_SECRETS, SECRETS, make_request
from tests.publishing import DAY_MS, NOW_MS, PUBLISHER_ID, make_authority, make_private_key

CATALOG_DATA = CATALOG.to_signed_json(AUTHORITY.issuer_key, AUTHORITY.issuer)
PUBLISHER_DATA = make_publisher_file().to_signed_json(AUTHORITY.root_key)
CERTIFICATE = issue_host_certificate(
    AUTHORITY.issuer_key,
    AUTHORITY.issuer,
    public_key=signing.public_bytes(HOST),
    serial=1,
    not_before_ms=NOW_MS,
    not_after_ms=NOW_MS + DAY_MS,
    families=[CertifiedFamily(1, 2, 25, 259_200)],
)
ANSWER = CompactAnswer.of(CERTIFICATE, AUTHORITY.issuer, catalog=CATALOG_DATA, publisher_data=PUBLISHER_DATA)
CATALOG_FILE = build_catalog_file(CATALOG_DATA, PUBLISHER_DATA, publisher_id=PUBLISHER_ID, secrets=SECRETS)
KEYS = {SECRETS.key_id: SECRETS}


def complete(
    answer: CompactAnswer = ANSWER,
    *,
    catalogs: tuple[bytes, ...] = (CATALOG_DATA,),
    publishers: tuple[bytes, ...] = (PUBLISHER_DATA,),
    trusted: PublisherFile | None = None,
    public_key: bytes = signing.public_bytes(HOST),
) -> HostAnswer:
    return answer.complete(
        catalogs=catalogs,
        publishers=publishers,
        trusted=trusted or make_publisher_file(),
        public_key=public_key,
        now_ms=NOW_MS,
    )


@settings(deadline=None)
@given(
    secrets=st.lists(st.binary(min_size=10, max_size=10), min_size=1, max_size=8, unique=True),
    host=st.binary(min_size=32, max_size=32),
    installation=st.binary(min_size=16, max_size=16),
    created_ms=st.integers(0, 2**53 - 1),
)
def test_a_compact_request_becomes_the_same_file_again(
    secrets: list[bytes], host: bytes, installation: bytes, created_ms: int
) -> None:
    keys = [HostKeySecrets.derive(ProductKey(KeyKind.HOST, 0, 0, secret), PUBLISHER_ID) for secret in secrets]
    private_key = Ed25519PrivateKey.from_private_bytes(host)
    file = build_host_request(
        private_key, keys, publisher_id=PUBLISHER_ID, installation_id=installation, created_ms=created_ms
    )
    compact = pack_request(HostRequest.parse(file))
    assert len(compact) == 140 + 40 * len(keys)
    assert unpack_request(compact).to_json() == file


def test_a_changed_compact_request_does_not_verify() -> None:
    compact = pack_request(HostRequest.parse(make_request()))
    for at in range(4, len(compact)):
        changed = compact[:at] + bytes([compact[at] ^ 1]) + compact[at + 1 :]
        with pytest.raises(ConfigurationError):
            HostRequest.parse(unpack_request(changed).to_json()).check_mac(SECRETS)


@pytest.mark.parametrize("compact", [pack_request(HostRequest.parse(make_request(SECRETS))), ANSWER.pack()])
def test_every_truncated_form_is_refused_and_every_longer_one(compact: bytes) -> None:
    read = unpack_request if compact[1] == 1 else CompactAnswer.unpack
    for wrong in [*(compact[:size] for size in range(len(compact))), compact + b"\0"]:
        for data in (wrong, wrong[:2] + len(wrong).to_bytes(2, "little") + wrong[4:]):
            with pytest.raises(ConfigurationError) as caught:
                read(data)
            assert caught.value.result.name == "OFFLINE_DATA_MALFORMED"


@settings(deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for prefix in (b"", b"\1\1", b"\1\2", bytes([1, 1, *(len(data) + 4).to_bytes(2, "little")])):
        for read in (unpack_request, CompactAnswer.unpack):
            try:
                read(prefix + data)
            except ConfigurationError as error:
                assert error.result.name == "OFFLINE_DATA_MALFORMED"  # noqa: PT017


def test_a_request_and_an_answer_are_not_taken_for_each_other() -> None:
    with pytest.raises(ConfigurationError, match="This is a host answer, but a host request belongs here"):
        unpack_request(ANSWER.pack())
    with pytest.raises(ConfigurationError, match="update kms_fast"):
        CompactAnswer.unpack(b"\2" + ANSWER.pack()[1:])


def test_a_compact_answer_is_whole_with_the_files_it_names() -> None:
    assert CompactAnswer.unpack(ANSWER.pack()) == ANSWER
    assert len(ANSWER.pack()) == 396 + 12
    opened = complete()
    assert (opened.catalog, opened.publisher) == (CATALOG, make_publisher_file())
    assert opened.chain_data == CERTIFICATE.to_bytes() + AUTHORITY.issuer.to_bytes()
    assert (opened.catalog_data, opened.publisher_data) == (CATALOG_DATA, PUBLISHER_DATA)


def test_files_are_known_by_content_not_by_layout() -> None:
    other_layout = json.dumps(json.loads(PUBLISHER_DATA), indent=4, sort_keys=True).encode()
    assert hash_document(other_layout) == hash_document(PUBLISHER_DATA)
    assert complete(publishers=(other_layout,)).publisher_data == other_layout


def test_the_catalog_file_has_both_files_for_every_host_of_the_key() -> None:
    opened = CatalogFile.open(CATALOG_FILE, trusted=make_publisher_file(), keys=KEYS)
    assert complete(catalogs=(opened.catalog_data,), publishers=(opened.publisher_data,)) == complete()
    assert CATALOG.skus[0].secret.hex() not in CATALOG_FILE.decode()


@pytest.mark.parametrize(
    ("changes", "name", "problem"),
    [
        ({"catalogs": ()}, "CATALOG_FILE_NEEDED", f"catalog {CATALOG.number}, which is not here"),
        ({"publishers": ()}, "CATALOG_FILE_NEEDED", "publisher file 6, which is not here"),
        (
            {
                "catalogs": (
                    replace(CATALOG, issued_ms=NOW_MS + 1).to_signed_json(AUTHORITY.issuer_key, AUTHORITY.issuer),
                )
            },
            "CATALOG_FILE_NEEDED",
            "which is not here",
        ),
        (
            {"catalogs": (replace(CATALOG, number=1).to_signed_json(AUTHORITY.issuer_key, AUTHORITY.issuer),)},
            "CATALOG_FILE_NEEDED",
            "there is only catalog 1",
        ),
        (
            {"catalogs": (replace(CATALOG, number=99).to_signed_json(AUTHORITY.issuer_key, AUTHORITY.issuer),)},
            "VERSION_WENT_BACK",
            "has catalog 99 already",
        ),
        ({"catalogs": (CATALOG_DATA[:-2],)}, "OFFLINE_DATA_MALFORMED", "not readable"),
        ({"trusted": make_publisher_file(number=7)}, "VERSION_WENT_BACK", "number 6, the installed one 7"),
        ({"trusted": make_publisher_file(publisher_id=bytes(16))}, "OFFLINE_DATA_MALFORMED", "not one of Example"),
        ({"trusted": make_publisher_file(make_authority("other"))}, "ROOT_UNKNOWN", "not trusted here"),
        ({"public_key": bytes(32)}, "OFFLINE_DATA_MALFORMED", "belongs to another host"),
    ],
)
def test_what_does_not_go_with_an_answer_is_named(changes: dict[str, object], name: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        complete(**changes)  # type: ignore[arg-type]
    assert caught.value.result.name == name


def test_every_changed_byte_of_an_answer_is_refused() -> None:
    compact = ANSWER.pack()
    for at in range(len(compact)):
        changed = compact[:at] + bytes([compact[at] ^ 1]) + compact[at + 1 :]
        with pytest.raises(ConfigurationError):
            complete(CompactAnswer.unpack(changed))


@pytest.mark.parametrize(
    ("trusted", "keys", "problem"),
    [
        (make_publisher_file(publisher_id=bytes(16)), KEYS, "not one of Example"),
        (make_publisher_file(), {OTHER_SECRETS.key_id: OTHER_SECRETS}, "sealed for another host key"),
        (make_publisher_file(), {SECRETS.key_id: OTHER_SECRETS}, "does not open"),
    ],
)
def test_a_catalog_file_for_somebody_else_is_refused(
    trusted: PublisherFile, keys: dict[bytes, HostKeySecrets], problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        CatalogFile.open(CATALOG_FILE, trusted=trusted, keys=keys)


def test_a_private_key_of_another_host_signs_nothing_here() -> None:
    request = unpack_request(pack_request(HostRequest.parse(make_request())))
    other = make_private_key("other host")
    forged = replace(request, signature=signing.sign(other, signing.HOST_REQUEST, b"anything"))
    with pytest.raises(ConfigurationError, match="not signed by its host"):
        HostRequest.parse(forged.to_json())
