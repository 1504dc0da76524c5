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

/* Two messages of `n` bytes, 56 to 119, so that each pads to two blocks; `blocks` holds them and is padded here. */
static inline void kf_merkle_hash_two(uint8_t blocks[2][128], size_t n, uint8_t *out)
{
    kf_sha256_state states[2] = {kf_sha256_start, kf_sha256_start};
    const uint8_t *const p[2] = {blocks[0], blocks[1]};
    for (int lane = 0; lane < 2; lane++) {
        blocks[lane][n] = 0x80;
        memset(blocks[lane] + n + 1, 0, 119 - n);
        kf_store_be64(blocks[lane] + 120, 8 * n);
    }
    kf_sha256_two(states, p, 2);
    for (int i = 0; i < 16; i++)
        kf_store_be32(out + 4 * i, states[i / 8].h[i % 8]);
}

/* Hashes `count` leaves of `n` bytes that lie `stride` bytes apart to the start of `nodes`; 63 <= n <= 118. */
static inline void kf_merkle_leaf_hashes(uint8_t *nodes, const uint8_t *leaf, size_t stride, size_t n, size_t count)
{
    uint8_t blocks[2][128];
    blocks[0][0] = blocks[1][0] = 0x00;
    for (; count >= 2; count -= 2, leaf += 2 * stride, nodes += 64) {
        memcpy(blocks[0] + 1, leaf, n);
        memcpy(blocks[1] + 1, leaf + stride, n);
        kf_merkle_hash_two(blocks, n + 1, nodes);
    }
    if (count)
        kf_merkle_leaf_hash(leaf, n, nodes);
}

/* Fills in the levels above the `n` leaf hashes at the start of `nodes`, 1 <= n <= KF_MERKLE_MAX_LEAVES; returns the
 * root. */
static inline const uint8_t *kf_merkle_build(uint8_t *nodes, size_t n)
{
    uint8_t blocks[2][128];
    blocks[0][0] = blocks[1][0] = 0x01;
    while (n > 1) {
        uint8_t *above = nodes + 32 * n;
        size_t i = 0;
        for (; i + 2 <= n / 2; i += 2) {
            memcpy(blocks[0] + 1, nodes + 64 * i, 64);
            memcpy(blocks[1] + 1, nodes + 64 * i + 64, 64);
            kf_merkle_hash_two(blocks, 65, above + 32 * i);
        }
        if (i < n / 2)
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
