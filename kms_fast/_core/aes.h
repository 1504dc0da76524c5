/* AES-128 (FIPS 197) with AES-NI: key schedules, chained blocks both ways, counter mode. There is no table-driven AES in
 * kms_fast: where these instructions are missing, `cryptography` does the work (siv.pxi).
 *
 * Pointers in, pointers out; nothing is allocated, nothing fails; no alignment is asked for. Callers check
 * kf_cpu_has_aes() first. */
#ifndef KF_AES_H
#define KF_AES_H

#include "cpu.h"
#include "memory.h"

typedef struct {
    uint8_t round_keys[11][16];
} kf_aes128;

#if KF_X86
#define KF_AES_TARGET __attribute__((target("aes,sse4.1")))
#define KF_AES_INLINE static inline __attribute__((always_inline, target("aes,sse4.1")))

KF_AES_INLINE __m128i kf_load_block(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)p); }
KF_AES_INLINE void kf_store_block(uint8_t *p, __m128i block) { _mm_storeu_si128((__m128i *)p, block); }
KF_AES_INLINE __m128i kf_round_key(const kf_aes128 *key, int i) { return kf_load_block(key->round_keys[i]); }

/* The next round key. All four columns of `last` hold RotWord of the last word, so AESENCLAST's ShiftRows changes
 * nothing and it yields SubWord xor Rcon: cheaper than AESKEYGENASSIST, and every answer has a fresh key. */
KF_AES_INLINE __m128i kf_next_round_key(__m128i key, __m128i rcon)
{
    const __m128i rotate_last_word = _mm_set1_epi32(0x0c0f0e0d);
    __m128i last = _mm_aesenclast_si128(_mm_shuffle_epi8(key, rotate_last_word), rcon);
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    key = _mm_xor_si128(key, _mm_slli_si128(key, 8));
    return _mm_xor_si128(key, last);
}

KF_AES_INLINE void kf_aes128_expand(kf_aes128 *out, const uint8_t key[16])
{
    static const int rcon[10] = {0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x1b, 0x36};
    __m128i round_key = kf_load_block(key);
    kf_store_block(out->round_keys[0], round_key);
#pragma GCC unroll 10
    for (int i = 0; i < 10; i++) {
        round_key = kf_next_round_key(round_key, _mm_set1_epi32(rcon[i]));
        kf_store_block(out->round_keys[i + 1], round_key);
    }
}

/* Rounds 1..10 of a block that already carries round key 0, xored with `next`. In a chain `next` is the following
 * block xor round key 0, so that the xors stay out of the chain's latency; at its end it is zero. */
KF_AES_INLINE __m128i kf_aes128_rounds(const kf_aes128 *key, __m128i whitened, __m128i next)
{
#pragma GCC unroll 9
    for (int i = 1; i < 10; i++)
        whitened = _mm_aesenc_si128(whitened, kf_round_key(key, i));
    return _mm_aesenclast_si128(whitened, _mm_xor_si128(kf_round_key(key, 10), next));
}

/* The round keys of the equivalent inverse cipher in the order of their use, FIPS 197 section 5.3.5. */
KF_AES_INLINE void kf_aes128_invert(kf_aes128 *out, const kf_aes128 *key)
{
    kf_store_block(out->round_keys[0], kf_round_key(key, 10));
#pragma GCC unroll 9
    for (int i = 1; i < 10; i++)
        kf_store_block(out->round_keys[i], _mm_aesimc_si128(kf_round_key(key, 10 - i)));
    kf_store_block(out->round_keys[10], kf_round_key(key, 0));
}

/* kf_aes128_rounds the other way, with a key from kf_aes128_invert. */
KF_AES_INLINE __m128i kf_aes128_inverse_rounds(const kf_aes128 *inverse, __m128i whitened, __m128i next)
{
#pragma GCC unroll 9
    for (int i = 1; i < 10; i++)
        whitened = _mm_aesdec_si128(whitened, kf_round_key(inverse, i));
    return _mm_aesdeclast_si128(whitened, _mm_xor_si128(kf_round_key(inverse, 10), next));
}

KF_AES_INLINE __m128i kf_aes128_encrypt(const kf_aes128 *key, __m128i block)
{
    return kf_aes128_rounds(key, _mm_xor_si128(block, kf_round_key(key, 0)), _mm_setzero_si128());
}

/* A block as a number of 128 bits, which blocks hold with the highest byte first; or the other way. */
KF_AES_INLINE __m128i kf_reversed(__m128i block)
{
    return _mm_shuffle_epi8(block, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

/* `width` counter blocks at once: a round of one block waits 3 to 4 cycles for the last, so eight hide each other's
 * wait. */
KF_AES_INLINE void kf_aes128_keystream(const kf_aes128 *key, __m128i counter, __m128i *block, const int width)
{
    __m128i round_key = kf_round_key(key, 0);
#pragma GCC unroll 8
    for (int i = 0; i < width; i++)
        block[i] = _mm_xor_si128(kf_reversed(_mm_add_epi64(counter, _mm_set_epi64x(0, i))), round_key);
#pragma GCC unroll 9
    for (int r = 1; r < 10; r++) {
        round_key = kf_round_key(key, r);
#pragma GCC unroll 8
        for (int i = 0; i < width; i++)
            block[i] = _mm_aesenc_si128(block[i], round_key);
    }
    round_key = kf_round_key(key, 10);
#pragma GCC unroll 8
    for (int i = 0; i < width; i++)
        block[i] = _mm_aesenclast_si128(block[i], round_key);
}

/* Xors n <= 16 * width bytes with the keystream. */
KF_AES_INLINE void kf_aes128_ctr_chunk(const kf_aes128 *key, __m128i counter, const uint8_t *in, uint8_t *out, size_t n,
                                       const int width)
{
    __m128i block[8];
    kf_aes128_keystream(key, counter, block, width);
#pragma GCC unroll 8
    for (int i = 0; i < width; i++) {
        if (n < 16) {
            uint8_t last[16];
            kf_store_block(last, block[i]);
            for (size_t j = 0; j < n; j++)
                out[j] = in[j] ^ last[j];
            return;
        }
        kf_store_block(out, _mm_xor_si128(kf_load_block(in), block[i]));
        in += 16, out += 16, n -= 16;
    }
}

/* Counter mode as RFC 5297 section 2.5 uses it: the counter, here a number and not yet a block, has bit 63 clear on
 * entry, so adding to its low half never carries over. `out` may be `in`, but they may not overlap in any other way. */
KF_AES_INLINE void kf_aes128_ctr(const kf_aes128 *key, __m128i counter, const uint8_t *in, uint8_t *out, size_t n)
{
    for (; n > 64; in += 128, out += 128) {
        size_t chunk = n < 128 ? n : 128;
        kf_aes128_ctr_chunk(key, counter, in, out, chunk, 8);
        counter = _mm_add_epi64(counter, _mm_set_epi64x(0, 8));
        n -= chunk;
        if (n == 0)
            return;
    }
    kf_aes128_ctr_chunk(key, counter, in, out, n, 4);
}

#endif
#endif
