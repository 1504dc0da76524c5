"""The tree of RFC 9162 §2.1 with SHA-256, by its recursive definition. Entries are leaves as bytes."""

from collections.abc import Sequence

from tests.reference.crypto import sha256


def hash_leaf(entry: bytes) -> bytes:
    """SHA-256(0x00 ‖ entry)."""
    return sha256(b"\0", entry)


def hash_node(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right)."""
    return sha256(b"\1", left, right)


def split(size: int) -> int:
    """The largest power of two smaller than ``size`` (2 or more)."""
    return 1 << (size - 1).bit_length() - 1


def root(entries: Sequence[bytes]) -> bytes:
    """MTH(D): the root of the tree of one or more entries (§2.1.1)."""
    if len(entries) == 1:
        return hash_leaf(entries[0])
    k = split(len(entries))
    return hash_node(root(entries[:k]), root(entries[k:]))


def path(index: int, entries: Sequence[bytes]) -> list[bytes]:
    """PATH(index, D): the inclusion path of an entry, from the leaf up (§2.1.3.1)."""
    if len(entries) == 1:
        return []
    k = split(len(entries))
    if index < k:
        return [*path(index, entries[:k]), root(entries[k:])]
    return [*path(index - k, entries[k:]), root(entries[:k])]


def path_length(index: int, size: int) -> int:
    """Number of nodes on the path of the leaf at ``index`` in a tree of ``size`` leaves."""
    if size == 1:
        return 0
    k = split(size)
    return 1 + (path_length(index, k) if index < k else path_length(index - k, size - k))


def root_of_path(index: int, size: int, leaf_hash: bytes, nodes: Sequence[bytes]) -> bytes:
    """The root that a path of the right length leads to: PATH's definition read backwards."""
    if size == 1:
        return leaf_hash
    k = split(size)
    if index < k:
        return hash_node(root_of_path(index, k, leaf_hash, nodes[:-1]), nodes[-1])
    return hash_node(nodes[-1], root_of_path(index - k, size - k, leaf_hash, nodes[:-1]))


def is_included(index: int, size: int, leaf_hash: bytes, nodes: Sequence[bytes], tree_root: bytes) -> bool:
    """Whether ``leaf_hash`` is the leaf at ``index`` in the tree of ``size`` leaves with ``tree_root`` (§2.1.3.2)."""
    if index >= size or len(nodes) != path_length(index, size):
        return False
    return root_of_path(index, size, leaf_hash, nodes) == tree_root
