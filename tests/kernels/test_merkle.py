"""Merkle trees against RFC 9162 section 2.1 written down as it stands there."""

import hashlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kms_fast import _core


def leaf_hash(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + leaf).digest()


def split(n: int) -> int:
    """The largest power of two smaller than n."""
    return 1 << (n - 1).bit_length() - 1


class Reference:
    """MTH and PATH of RFC 9162 over one list of leaves, with subtree roots kept so that many indexes stay cheap."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.leaves = leaves
        self.roots: dict[tuple[int, int], bytes] = {}

    def root(self, start: int, n: int) -> bytes:
        if (start, n) not in self.roots:
            if n == 1:
                value = leaf_hash(self.leaves[start])
            else:
                k = split(n)
                value = hashlib.sha256(b"\x01" + self.root(start, k) + self.root(start + k, n - k)).digest()
            self.roots[start, n] = value
        return self.roots[start, n]

    def path(self, index: int, start: int, n: int) -> list[bytes]:
        if n == 1:
            return []
        k = split(n)
        if index < k:
            return [*self.path(index, start, k), self.root(start + k, n - k)]
        return [*self.path(index - k, start + k, n - k), self.root(start, k)]


LEAVES = [i.to_bytes(2, "big") * 59 for i in range(1024)]


def test_root_of_every_size(each_sha256):
    reference = Reference(LEAVES)
    for n in range(1, 1025):
        assert _core.merkle_root(LEAVES[:n]) == reference.root(0, n), n


def test_path_of_every_index_of_small_trees(each_sha256):
    reference = Reference(LEAVES)
    for n in range(1, 41):
        root = reference.root(0, n)
        for index in range(n):
            path = _core.merkle_path(LEAVES[:n], index)
            assert path == reference.path(index, 0, n), (n, index)
            assert _core.merkle_verify(leaf_hash(LEAVES[index]), index, n, path, root)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), n=st.integers(1, 1024))
def test_path_of_any_tree(each_sha256, data, n):
    index = data.draw(st.integers(0, n - 1))
    reference = Reference(LEAVES[:n])
    root, path = reference.root(0, n), _core.merkle_path(LEAVES[:n], index)
    assert path == reference.path(index, 0, n)
    assert len(path) <= 10
    proof = leaf_hash(LEAVES[index])
    assert _core.merkle_verify(proof, index, n, path, root)
    other = data.draw(st.integers(0, n - 1))
    assert _core.merkle_verify(proof, other, n, path, root) == (other == index)
    assert not _core.merkle_verify(proof, index, n, [*path, root], root)
    assert not _core.merkle_verify(proof, n, n, path, root)
    if path:
        assert not _core.merkle_verify(proof, index, n, path[:-1], root)
        bent = data.draw(st.integers(0, len(path) - 1))
        path[bent] = bytes([path[bent][0] ^ 1]) + path[bent][1:]
        assert not _core.merkle_verify(proof, index, n, path, root)


def test_leaves_of_every_length(each_sha256):
    for n in range(300):
        assert _core.merkle_root([bytes(n)]) == leaf_hash(bytes(n)), n


def test_sizes_and_indexes_that_do_not_exist():
    for leaves in ([], [b""] * 1025):
        with pytest.raises(ValueError, match="1 to 1024 leaves"):
            _core.merkle_root(leaves)
    for index in (-1, 3):
        with pytest.raises(IndexError, match="tree of 3"):
            _core.merkle_path([b"a", b"b", b"c"], index)
    with pytest.raises(OverflowError):
        _core.merkle_verify(bytes(32), -1, 1, [], bytes(32))
    with pytest.raises(TypeError):
        _core.merkle_root([b"a", "b"])


def test_nodes_of_another_length_prove_nothing():
    root = _core.merkle_root([b"a", b"b"])
    path = _core.merkle_path([b"a", b"b"], 0)
    assert _core.merkle_verify(leaf_hash(b"a"), 0, 2, path, root)
    assert not _core.merkle_verify(leaf_hash(b"a"), 0, 2, [path[0][:31]], root)
    assert not _core.merkle_verify(leaf_hash(b"a") + b"\x00", 0, 2, path, root)
    assert not _core.merkle_verify(leaf_hash(b"a"), 0, 2, path, root[:31])
