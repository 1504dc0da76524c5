"""The vectors are what their program makes, and the compiled core agrees with every one of them."""

import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from kms_fast import _core
from kms_fast.results import BY_NAME
from tests.reference import merkle
from tests.reference.request import SkuKeys, Unreadable, open_request
from tests.vectors.answers import ERRORS
from tests.vectors.generate import FILES, FOLDER, load, render
from tests.vectors.judges import JUDGES, Judge


@pytest.fixture(params=JUDGES)
def make_judge(request: pytest.FixtureRequest) -> Callable[[dict[str, Any]], Judge]:
    """A judge of answers: once the reference, once the core."""
    return JUDGES[request.param]


def core_keys(vector: dict[str, Any]) -> _core.SkuKeys:
    return _core.SkuKeys(*(bytes.fromhex(vector[name]) for name in SkuKeys._fields))


@pytest.mark.parametrize("name", FILES)
def test_files_are_made_again_byte_for_byte(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == render(name)


def test_no_file_is_without_its_maker() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(FILES)


@pytest.mark.parametrize("vector", load("requests")["vectors"], ids=lambda vector: vector["nonce"])
def test_the_core_seals_and_opens_requests(vector: dict[str, Any]) -> None:
    fields, nonce = bytes.fromhex(vector["fields_bytes"]), bytes.fromhex(vector["nonce"])
    assert core_keys(vector).seal_request(fields, nonce).hex() == vector["request"]
    assert core_keys(vector).open_request(bytes.fromhex(vector["request"])) == fields


@pytest.mark.parametrize("vector", load("refused_requests")["vectors"], ids=lambda vector: vector["what"])
def test_unreadable_requests_do_not_open(vector: dict[str, Any]) -> None:
    request = bytes.fromhex(vector["request"])
    assert core_keys(vector).open_request(request) is None
    keys = SkuKeys(*(bytes.fromhex(vector[name]) for name in SkuKeys._fields))
    with pytest.raises(Unreadable):
        open_request(keys, request)


@pytest.mark.parametrize("vector", load("leaves")["vectors"], ids=lambda vector: vector["fields"]["result"])
def test_the_core_hashes_and_opens_leaves(vector: dict[str, Any]) -> None:
    leaf, header_hash = bytes.fromhex(vector["leaf"]), _core.sha256(bytes.fromhex(vector["header"]))
    assert _core.sha256(b"\0" + leaf).hex() == vector["leaf_hash"]
    key = bytes.fromhex(vector["answer_key"])
    assert _core.siv_seal(key, leaf, header_hash).hex() == vector["sealed"]
    assert _core.siv_open(key, bytes.fromhex(vector["sealed"]), header_hash) == leaf


@pytest.mark.parametrize("vector", load("trees")["vectors"], ids=lambda vector: f"{vector['index']}/{vector['size']}")
def test_the_core_grows_the_same_trees(vector: dict[str, Any]) -> None:
    entries = [i.to_bytes(2, "little") for i in range(vector["size"])]
    assert _core.merkle_root(entries).hex() == vector["root"]
    path = _core.merkle_path(entries, vector["index"])
    assert [node.hex() for node in path] == vector["path"]
    leaf_hash = merkle.hash_leaf(entries[vector["index"]])
    assert _core.merkle_verify(leaf_hash, vector["index"], vector["size"], path, bytes.fromhex(vector["root"]))


@pytest.mark.parametrize("vector", load("answers")["vectors"], ids=lambda vector: vector["what"])
def test_accepted_answers(make_judge: Callable[[dict[str, Any]], Judge], vector: dict[str, Any]) -> None:
    judge = make_judge(vector)
    assert judge(bytes.fromhex(vector["answer"])) == vector["result"]
    assert judge(bytes.fromhex(vector["answer"]), accept=False) == vector["result"]


@pytest.mark.parametrize(
    "vector", load("refusals")["vectors"], ids=lambda vector: f"step {vector['step']}: {vector['what']}"
)
def test_answers_to_refuse(make_judge: Callable[[dict[str, Any]], Judge], vector: dict[str, Any]) -> None:
    judge = make_judge(vector)
    assert judge(bytes.fromhex(vector["answer"])) == vector["error"]
    # Steps 24 and 25 belong to acceptance only: a stored lease has nothing of them.
    later = judge(bytes.fromhex(vector["answer"]), accept=False)
    assert later == vector["error"] if vector["step"] < 24 else isinstance(later, int)


def test_every_step_is_refused_at_least_twice_and_has_its_error_in_the_table() -> None:
    steps = [vector["step"] for vector in load("refusals")["vectors"]]
    assert all(steps.count(step) >= 2 for step in range(1, 26))
    assert set(steps) == set(range(1, 26))
    assert set(ERRORS) <= set(BY_NAME)


def test_the_page_lists_the_same_steps() -> None:
    page = (FOLDER.parents[1] / "docs" / "protocol.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| .* \| `([A-Z_]+)` \|$", page, re.MULTILINE)
    assert rows == [(str(step), name) for step, name in enumerate(ERRORS, 1)]


def test_what_the_core_remembers_changes_no_verdict() -> None:
    """One Verifier for all answers of a client, good ones and bad ones in turn."""
    vectors = load("answers")["vectors"] + load("refusals")["vectors"]
    known = [name for name in vectors[0] if name not in ("what", "result", "answer")]
    first = {name: vectors[0][name] for name in known}
    same = [vector for vector in vectors if {name: vector[name] for name in known} == first]
    assert len({vector.get("step") for vector in same}) > 15
    random.Random(5).shuffle(same)
    judge = JUDGES["core"](first)
    for vector in same * 2:
        assert judge(bytes.fromhex(vector["answer"])) == vector.get("error", vector.get("result")), vector["what"]
