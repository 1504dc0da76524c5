# Merkle trees of RFC 9162 section 2.1 over 1 to 1,024 leaves; the layout of a tree in memory is told in merkle.h.
#
# The kernels work in the caller's buffer of KF_MERKLE_MAX_NODES * 32 bytes, need no GIL and cannot fail. The
# functions for Python take leaves, not leaf hashes, and build the tree anew at each call: they are for tests and cold
# callers.

cdef extern from "merkle.h" nogil:
    const size_t KF_MERKLE_MAX_LEAVES
    const size_t KF_MERKLE_MAX_NODES
    const size_t KF_MERKLE_MAX_PATH
    void kf_merkle_leaf_hash(const uint8_t* leaf, size_t n, uint8_t* out)
    void kf_merkle_leaf_hashes(uint8_t* nodes, const uint8_t* leaf, size_t stride, size_t n, size_t count)
    const uint8_t* kf_merkle_build(uint8_t* nodes, size_t n)
    size_t kf_merkle_path(const uint8_t* nodes, size_t n, size_t index, uint8_t* out)
    int kf_merkle_verify(const uint8_t* leaf_hash, uint64_t index, uint64_t size, const uint8_t* path,
                         size_t path_nodes, const uint8_t* root)


cdef bytearray merkle_tree(list leaves):
    """A new tree's nodes, the root last. Raises ValueError unless there are 1 to 1,024 leaves."""
    cdef Py_ssize_t n = len(leaves), width = n, total = n, i
    cdef bytes leaf
    if not 1 <= n <= <Py_ssize_t>KF_MERKLE_MAX_LEAVES:
        raise ValueError(f"a tree has 1 to {KF_MERKLE_MAX_LEAVES} leaves, not {n}")
    while width > 1:
        width = (width + 1) // 2
        total += width
    tree = bytearray(32 * total)
    cdef uint8_t* nodes = <uint8_t*>PyByteArray_AS_STRING(tree)
    for i in range(n):
        leaf = <bytes?>leaves[i]
        kf_merkle_leaf_hash(leaf, len(leaf), nodes + 32 * i)
    kf_merkle_build(nodes, n)
    return tree


def merkle_root(list leaves not None) -> bytes:
    """Root of the tree over `leaves`: 32 bytes. Raises ValueError unless there are 1 to 1,024."""
    tree = merkle_tree(leaves)
    return bytes(tree[len(tree) - 32:])


def merkle_path(list leaves not None, Py_ssize_t index) -> list[bytes]:
    """Inclusion path of leaf `index`, lowest sibling first: 0 to 10 nodes of 32 bytes.

    Raises ValueError unless there are 1 to 1,024 leaves, IndexError for an index that is not below their number.
    """
    cdef uint8_t path[10 * 32]
    cdef size_t length, i
    tree = merkle_tree(leaves)
    if not 0 <= index < len(leaves):
        raise IndexError(f"no leaf {index} in a tree of {len(leaves)}")
    length = kf_merkle_path(<const uint8_t*>PyByteArray_AS_STRING(tree), len(leaves), index, path)
    return [path[32 * i:32 * i + 32] for i in range(length)]


def merkle_verify(
    bytes leaf_hash not None, uint64_t index, uint64_t size, list path not None, bytes root not None
) -> bool:
    """Whether the path proves `leaf_hash` at `index` of a tree of `size` leaves under `root`.

    The algorithm of RFC 9162 section 2.1.3.2. Hashes that are not of 32 bytes prove nothing. Raises OverflowError for
    numbers outside 0..2**64-1.
    """
    cdef bytes joined = b"".join(path)
    if len(leaf_hash) != 32 or len(root) != 32 or any(len(node) != 32 for node in path):
        return False
    return kf_merkle_verify(leaf_hash, index, size, joined, len(path), root) == 1
