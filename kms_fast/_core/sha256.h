/* SHA-256 (FIPS 180-4): SHA-NI where the processor has it, plain C elsewhere, chosen at run time by kf_sha256_use().
 *
 * Pointers in, pointers out; nothing is allocated, nothing fails. A midstate is the eight words after whole blocks,
 * kept by whoever hashes many messages with the same beginning. */
#ifndef KF_SHA256_H
#define KF_SHA256_H

#include "cpu.h"
#include "memory.h"

typedef struct {
    uint32_t h[8];
} kf_sha256_state;

static const kf_sha256_state kf_sha256_start = {
    {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};

static const uint32_t kf_sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static inline uint32_t kf_rotr(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void kf_sha256_blocks_c(kf_sha256_state *state, const uint8_t *p, size_t blocks)
{
    for (; blocks; blocks--, p += 64) {
        uint32_t w[64];
        for (int i = 0; i < 16; i++)
            w[i] = kf_load_be32(p + 4 * i);
        for (int i = 16; i < 64; i++) {
            uint32_t s0 = kf_rotr(w[i - 15], 7) ^ kf_rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
            uint32_t s1 = kf_rotr(w[i - 2], 17) ^ kf_rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        uint32_t a = state->h[0], b = state->h[1], c = state->h[2], d = state->h[3];
        uint32_t e = state->h[4], f = state->h[5], g = state->h[6], h = state->h[7];
        for (int i = 0; i < 64; i++) {
            uint32_t s1 = kf_rotr(e, 6) ^ kf_rotr(e, 11) ^ kf_rotr(e, 25);
            uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + kf_sha256_k[i] + w[i];
            uint32_t s0 = kf_rotr(a, 2) ^ kf_rotr(a, 13) ^ kf_rotr(a, 22);
            uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
        }
        state->h[0] += a, state->h[1] += b, state->h[2] += c, state->h[3] += d;
        state->h[4] += e, state->h[5] += f, state->h[6] += g, state->h[7] += h;
    }
}

static void kf_sha256_two_c(kf_sha256_state states[2], const uint8_t *const p[2], size_t blocks)
{
    kf_sha256_blocks_c(&states[0], p[0], blocks);
    kf_sha256_blocks_c(&states[1], p[1], blocks);
}

#if KF_X86
/* Several messages of the same number of blocks side by side, since a round waits for the one before it. */
__attribute__((target("sha,sse4.1,ssse3"), always_inline)) static inline void
kf_sha256_lanes_shani(kf_sha256_state *states, const uint8_t *const *p, size_t blocks, const int lanes)
{
    const __m128i swap_words = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    __m128i abef[2], cdgh[2];
    for (int lane = 0; lane < lanes; lane++) {
        /* SHA256RNDS2 wants the words as (A B E F) and (C D G H), highest first. */
        __m128i low = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)&states[lane].h[0]), 0xb1);
        __m128i high = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)&states[lane].h[4]), 0x1b);
        abef[lane] = _mm_alignr_epi8(low, high, 8);
        cdgh[lane] = _mm_blend_epi16(high, low, 0xf0);
    }
    for (size_t block = 0; block < blocks; block++) {
        __m128i abef_before[2], cdgh_before[2];
        __m128i w[2][4]; /* the newest 16 words of the message schedule, w[lane][i % 4] for rounds 4i..4i+3 */
        for (int lane = 0; lane < lanes; lane++) {
            abef_before[lane] = abef[lane];
            cdgh_before[lane] = cdgh[lane];
        }
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
#pragma GCC unroll 2
            for (int lane = 0; lane < lanes; lane++) {
                __m128i *now = &w[lane][i % 4];
                if (i < 4) {
                    const uint8_t *words = p[lane] + 64 * block + 16 * i;
                    *now = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)words), swap_words);
                } else {
                    __m128i one_before = w[lane][(i + 3) % 4], two_before = w[lane][(i + 2) % 4];
                    __m128i sum = _mm_sha256msg1_epu32(*now, w[lane][(i + 1) % 4]);
                    sum = _mm_add_epi32(sum, _mm_alignr_epi8(one_before, two_before, 4));
                    *now = _mm_sha256msg2_epu32(sum, one_before);
                }
                __m128i wk = _mm_add_epi32(*now, _mm_loadu_si128((const __m128i *)&kf_sha256_k[4 * i]));
                cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], wk);
                abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], _mm_shuffle_epi32(wk, 0x0e));
            }
        }
        for (int lane = 0; lane < lanes; lane++) {
            abef[lane] = _mm_add_epi32(abef[lane], abef_before[lane]);
            cdgh[lane] = _mm_add_epi32(cdgh[lane], cdgh_before[lane]);
        }
    }
    for (int lane = 0; lane < lanes; lane++) {
        __m128i low = _mm_shuffle_epi32(abef[lane], 0x1b);
        __m128i high = _mm_shuffle_epi32(cdgh[lane], 0xb1);
        _mm_storeu_si128((__m128i *)&states[lane].h[0], _mm_blend_epi16(low, high, 0xf0));
        _mm_storeu_si128((__m128i *)&states[lane].h[4], _mm_alignr_epi8(high, low, 8));
    }
}

__attribute__((target("sha,sse4.1,ssse3"))) static void kf_sha256_blocks_shani(kf_sha256_state *state, const uint8_t *p,
                                                                              size_t blocks)
{
    kf_sha256_lanes_shani(state, &p, blocks, 1);
}

__attribute__((target("sha,sse4.1,ssse3"))) static void kf_sha256_two_shani(kf_sha256_state states[2],
                                                                           const uint8_t *const p[2], size_t blocks)
{
    kf_sha256_lanes_shani(states, p, blocks, 2);
}
#endif

static void (*kf_sha256_blocks)(kf_sha256_state *state, const uint8_t *p, size_t blocks) = kf_sha256_blocks_c;
static void (*kf_sha256_two)(kf_sha256_state states[2], const uint8_t *const p[2], size_t blocks) = kf_sha256_two_c;

/* Chooses the back end; callers ask for SHA-NI only where kf_cpu_has_sha(). */
static inline void kf_sha256_use(int shani)
{
    kf_sha256_blocks = kf_sha256_blocks_c;
    kf_sha256_two = kf_sha256_two_c;
#if KF_X86
    if (shani) {
        kf_sha256_blocks = kf_sha256_blocks_shani;
        kf_sha256_two = kf_sha256_two_shani;
    }
#endif
}

/* Hashes the last `n` bytes of a message of which `before` bytes, whole blocks, are in `state` already. */
static inline void kf_sha256_finish(kf_sha256_state state, uint64_t before, const uint8_t *p, size_t n, uint8_t out[32])
{
    uint8_t tail[128];
    size_t whole = n / 64, left = n % 64, padded = left < 56 ? 64 : 128;
    if (whole)
        kf_sha256_blocks(&state, p, whole);
    if (left)
        memcpy(tail, p + 64 * whole, left);
    tail[left] = 0x80;
    memset(tail + left + 1, 0, padded - left - 9);
    kf_store_be64(tail + padded - 8, (before + n) * 8);
    kf_sha256_blocks(&state, tail, padded / 64);
    for (int i = 0; i < 8; i++)
        kf_store_be32(out + 4 * i, state.h[i]);
}

static inline void kf_sha256(const uint8_t *p, size_t n, uint8_t out[32])
{
    kf_sha256_finish(kf_sha256_start, 0, p, n, out);
}

#endif
