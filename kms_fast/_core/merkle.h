/* The Merkle tree of RFC 9162 section 2.1 (the tree of RFC 6962) over SHA-256.
 *
 * A tree is one caller's buffer of 32-byte nodes, level after level: the n leaf hashes, then ceil(n/2) nodes, and so
 * on down to the root, which is the last node. Each node is the hash of the pair below it; a last node without a
 * partner moves up unchanged. That is the RFC's tree: it splits n leaves at k, the largest power of two below n. The
 * first k leaves are paired level by level into one node after log2(k) levels. Below that level they are an even
 * number of nodes, so the other n - k leaves are paired among themselves, by induction into their own RFC tree; its
 * root, once alone, moves up unchanged until the level of width two, where it meets the first. The width of level j is ceil(n / 2^j), so
 * 1,024 leaves need at most 2,047 nodes. */
#ifndef KF_MERKLE_H
#define KF_MERKLE_H

#include "sha256.h"

#define KF_MERKLE_MAX_LEAVES 1024
#define KF_MERKLE_MAX_NODES 2047
#define KF_MERKLE_MAX_PATH 10

/* SHA-256(0x00 || leaf). A leaf of 64 to 118 bytes makes exactly two blocks. */
static inline void kf_merkle_leaf_hash(const uint8_t *leaf, size_t n, uint8_t out[32])
{
    uint8_t block[64] = {0x00};
    if (n < 63) {
        if (n)
            memcpy(block + 1, leaf, n);
        kf_sha256(block, n + 1, out);
        return;
    }
    kf_sha256_state state = kf_sha256_start;
    memcpy(block + 1, leaf, 63);
    kf_sha256_blocks(&state, block, 1);
    kf_sha256_finish(state, 64, leaf + 63, n - 63, out);
}

/* SHA-256(0x01 || left || right). `out` may be either of them. */
static inline void kf_merkle_node_hash(const uint8_t left[32], const uint8_t right[32], uint8_t out[32])
{
    uint8_t pair[65];
    pair[0] = 0x01;
    memcpy(pair + 1, left, 32);
    memcpy(pair + 33, right, 32);
    kf_sha256(pair, sizeof pair, out);
}

/* Fills in the levels above the `n` leaf hashes at the start of `nodes`, 1 <= n <= KF_MERKLE_MAX_LEAVES; returns the
 * root. */
static inline const uint8_t *kf_merkle_build(uint8_t *nodes, size_t n)
{
    while (n > 1) {
        uint8_t *above = nodes + 32 * n;
        for (size_t i = 0; i < n / 2; i++)
            kf_merkle_node_hash(nodes + 64 * i, nodes + 64 * i + 32, above + 32 * i);
        if (n % 2)
            memcpy(above + 32 * (n / 2), nodes + 32 * (n - 1), 32);
        nodes = above;
        n = (n + 1) / 2;
    }
    return nodes;
}

/* Copies the inclusion path of leaf `index` < n, lowest sibling first, to `out`; returns its number of nodes. */
static inline size_t kf_merkle_path(const uint8_t *nodes, size_t n, size_t index, uint8_t *out)
{
    size_t length = 0;
    for (; n > 1; nodes += 32 * n, n = (n + 1) / 2, index /= 2) {
        size_t sibling = index ^ 1;
        if (sibling < n)
            memcpy(out + 32 * length++, nodes + 32 * sibling, 32);
    }
    return length;
}

/* RFC 9162 section 2.1.3.2, step by step: 1 if the path proves the leaf hash under the root, else 0. */
static inline int kf_merkle_verify(const uint8_t leaf_hash[32], uint64_t index, uint64_t size, const uint8_t *path,
                                   size_t path_nodes, const uint8_t root[32])
{
    if (index >= size)
        return 0;
    uint64_t fn = index, sn = size - 1;
    uint8_t r[32];
    memcpy(r, leaf_hash, 32);
    for (; path_nodes; path_nodes--, path += 32) {
        if (sn == 0)
            return 0;
        if ((fn & 1) || fn == sn) {
            kf_merkle_node_hash(path, r, r);
            while (!(fn & 1) && fn)
                fn >>= 1, sn >>= 1;
        } else {
            kf_merkle_node_hash(r, path, r);
        }
        fn >>= 1, sn >>= 1;
    }
    return sn == 0 && kf_equal(r, root, 32);
}

#endif
