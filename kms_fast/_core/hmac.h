/* HMAC-SHA256 (RFC 2104, FIPS 198-1) with the two padded key blocks hashed once per key: a message of up to 55 bytes
 * then costs two compressions. Nothing is allocated, nothing fails; the key's owner wipes it with kf_wipe. */
#ifndef KF_HMAC_H
#define KF_HMAC_H

#include "sha256.h"

typedef struct {
    kf_sha256_state inner, outer;
} kf_hmac_key;

static inline void kf_hmac_init(kf_hmac_key *out, const uint8_t *key, size_t n)
{
    uint8_t block[64] = {0};
    if (n > 64)
        kf_sha256(key, n, block);
    else if (n)
        memcpy(block, key, n);
    for (int i = 0; i < 64; i++)
        block[i] ^= 0x36;
    out->inner = kf_sha256_start;
    kf_sha256_blocks(&out->inner, block, 1);
    for (int i = 0; i < 64; i++)
        block[i] ^= 0x36 ^ 0x5c;
    out->outer = kf_sha256_start;
    kf_sha256_blocks(&out->outer, block, 1);
    kf_wipe(block, sizeof block);
}

static inline void kf_hmac_sha256(const kf_hmac_key *key, const uint8_t *p, size_t n, uint8_t out[32])
{
    uint8_t digest[32];
    kf_sha256_finish(key->inner, 64, p, n, digest);
    kf_sha256_finish(key->outer, 64, digest, 32, out);
    kf_wipe(digest, sizeof digest);
}

/* The HMACs of two messages of `n` <= 55 bytes, each under a key of its own, side by side: 64 bytes. */
static inline void kf_hmac_sha256_two(const kf_hmac_key *const keys[2], const uint8_t *const p[2], size_t n,
                                      uint8_t *out)
{
    uint8_t blocks[2][64] = {{0}};
    const uint8_t *const at[2] = {blocks[0], blocks[1]};
    kf_sha256_state states[2] = {keys[0]->inner, keys[1]->inner};
    for (int lane = 0; lane < 2; lane++) {
        memcpy(blocks[lane], p[lane], n);
        blocks[lane][n] = 0x80;
        kf_store_be64(blocks[lane] + 56, (64 + n) * 8);
    }
    kf_sha256_two(states, at, 1);
    for (int lane = 0; lane < 2; lane++) {
        for (int i = 0; i < 8; i++)
            kf_store_be32(blocks[lane] + 4 * i, states[lane].h[i]);
        memset(blocks[lane] + 32, 0, 24);
        blocks[lane][32] = 0x80;
        kf_store_be64(blocks[lane] + 56, (64 + 32) * 8);
        states[lane] = keys[lane]->outer;
    }
    kf_sha256_two(states, at, 1);
    for (int i = 0; i < 16; i++)
        kf_store_be32(out + 4 * i, states[i / 8].h[i % 8]);
    kf_wipe(blocks, sizeof blocks);
    kf_wipe(states, sizeof states);
}

#endif
