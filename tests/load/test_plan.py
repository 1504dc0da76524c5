"""Dividing a load over processes, and putting together what they saw."""

import msgspec
import pytest

from kms_fast.errors import ConfigurationError, KeyInvalid
from kms_fast.load.plan import LoadPlan, LoadResult, find_product, merge_results
from kms_fast.model.keys import KeyKind, new_key
from kms_fast.model.publisher_file import PublisherFile
from tests.hosts import PUBLISHER_ID, SKUS, Realm, make_realm
from tests.load.toy_host import PRODUCT

PLAN = LoadPlan(
    address="127.0.0.1",
    port=1688,
    product=PRODUCT,
    machine_seed=bytes(32),
    connections=10,
    activations=101,
    clients=(5, 1007),
    rate=900.0,
)


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Realm:
    return make_realm(tmp_path_factory.mktemp("plan"))


@pytest.mark.parametrize("processes", [1, 2, 3, 7, 10])
def test_the_shares_are_the_whole(processes: int) -> None:
    shares = PLAN.split(processes)
    assert sum(share.connections for share in shares) == 10
    assert sum(share.activations for share in shares) == 101
    assert sum(share.rate for share in shares) == pytest.approx(900)
    machines = [number for share in shares for number in range(*share.clients)]
    assert machines == list(range(5, 1007))
    assert all(share.connections and share.activations for share in shares)


def test_plan_and_result_travel_as_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(PLAN), type=LoadPlan) == PLAN
    result = LoadResult(latencies=((5, 1),), errors={"NO_ANSWER": (2, "x")}, refusals={7: 1}, failure=("a", "b"))
    assert msgspec.json.decode(msgspec.json.encode(result), type=LoadResult) == result


def test_keys_are_not_in_a_repr() -> None:
    assert repr(PRODUCT.request_key) not in repr(PLAN)
    assert repr(PRODUCT.answer_secret) not in repr(PLAN)


def test_results_merge() -> None:
    one = LoadResult(
        requests=3, activations=2, verified=1, failed=1, batches=0.5, batch_max=9, start_ns=100, end_ns=200, cpu_s=1.0,
        latencies=((10, 1), (20, 1)), latency_max_ns=20, errors={"NO_ANSWER": (1, "first")}, finished=True,
    )  # fmt: skip
    other = LoadResult(
        requests=2, activations=1, refused=1, batches=0.25, batch_max=4, start_ns=90, end_ns=190, cpu_s=0.5,
        latencies=((20, 1),), latency_max_ns=21, errors={"NO_ANSWER": (2, "later"), "RPC_REFUSED": (1, "y")},
        refusals={5: 1}, finished=False,
    )  # fmt: skip
    merged = merge_results([one, other])
    assert (merged.requests, merged.activations, merged.verified, merged.refused, merged.failed) == (5, 3, 1, 1, 1)
    assert (merged.start_ns, merged.end_ns, merged.seconds) == (90, 200, 110 / 1e9)
    assert (merged.batches, merged.batch_max, merged.cpu_s) == (0.75, 9, 1.5)
    assert merged.latencies == ((10, 1), (20, 2))
    assert merged.latency_max_ns == 21
    assert merged.errors == {"NO_ANSWER": (3, "first"), "RPC_REFUSED": (1, "y")}
    assert merged.refusals == {5: 1}
    assert not merged.finished


def test_a_process_that_has_not_begun_does_not_shift_the_start() -> None:
    assert merge_results([LoadResult(), LoadResult(start_ns=90, end_ns=100)]).start_ns == 90


def test_a_setup_key_names_its_product(realm: Realm) -> None:
    publisher = PublisherFile.parse(realm.publisher_json.read_bytes())
    sku = SKUS["desktop"]
    product = find_product(publisher, sku.setup_key(PUBLISHER_ID).text)
    assert (product.sku_id, product.family, product.generation) == (sku.id.bytes, sku.family, sku.generation)
    assert (product.request_key, product.answer_secret) == sku.derive_keys(PUBLISHER_ID)


def test_a_key_of_another_kind_or_product_is_refused(realm: Realm) -> None:
    publisher = PublisherFile.parse(realm.publisher_json.read_bytes())
    with pytest.raises(KeyInvalid, match="host key"):
        find_product(publisher, new_key(KeyKind.HOST, PUBLISHER_ID).text)
    with pytest.raises(ConfigurationError, match="no product"):
        find_product(publisher, new_key(KeyKind.CLIENT_SETUP, PUBLISHER_ID, reference=99).text)
