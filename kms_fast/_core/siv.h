/* AES-CMAC (SP 800-38B, RFC 4493) and AES-SIV (RFC 5297) with an AES-128 pair, on the rounds of aes.h.
 *
 * Pointers in, pointers out; nothing is allocated. The states hold keys: their owner wipes them with kf_wipe. Callers
 * check kf_cpu_has_aes() first; on a processor without rounds in aes.h the functions abort, and siv.pxi never calls
 * them. */
#ifndef KF_SIV_H
#define KF_SIV_H

#include "aes.h"

typedef struct {
    kf_aes128 aes;
    uint8_t k1[16]; /* xored into a last block that is whole */
    uint8_t k2[16]; /* xored into a last block that was padded */
} kf_cmac_key;

/* A key and S2V's D after the leading associated-data components. Copy it to continue in several ways. */
typedef struct {
    kf_cmac_key mac;
    kf_aes128 ctr;
    uint8_t d[16];
} kf_siv_state;

#if KF_X86

/* Doubling in GF(2^128), RFC 5297 section 2.3. */
KF_AES_INLINE __m128i kf_dbl(__m128i block)
{
    __m128i number = kf_reversed(block);
    /* the sign of the top word selects the polynomial 0x87, bit 63 is carried to bit 64 */
    __m128i sign = _mm_srai_epi32(number, 31);
    __m128i carry = _mm_and_si128(_mm_shuffle_epi32(sign, 0x13), _mm_set_epi32(0, 1, 0, 0x87));
    return kf_reversed(_mm_xor_si128(_mm_add_epi64(number, number), carry));
}

/* The last n < 16 bytes of a message, padded with 10*. */
KF_AES_INLINE __m128i kf_padded(const uint8_t *p, size_t n)
{
    uint8_t block[16] = {0};
    memcpy(block, p, n);
    block[n] = 0x80;
    return kf_load_block(block);
}

KF_AES_INLINE void kf_cmac_expand(kf_cmac_key *out, const uint8_t key[16])
{
    kf_aes128_expand(&out->aes, key);
    __m128i k1 = kf_dbl(kf_aes128_encrypt(&out->aes, _mm_setzero_si128()));
    kf_store_block(out->k1, k1);
    kf_store_block(out->k2, kf_dbl(k1));
}

/* Takes n / 16 > 0 whole blocks into a chain: the chaining value xor round key 0, which it begins with. */
KF_AES_INLINE __m128i kf_cmac_absorb(const kf_aes128 *aes, __m128i chain, const uint8_t *p, size_t n)
{
    const __m128i whitening = kf_round_key(aes, 0);
    chain = _mm_xor_si128(chain, kf_load_block(p));
    for (size_t i = 16; i < n; i += 16)
        chain = kf_aes128_rounds(aes, chain, _mm_xor_si128(kf_load_block(p + i), whitening));
    return kf_aes128_rounds(aes, chain, whitening);
}

/* A block moved n <= 16 bytes towards its end, or -n towards its beginning; zeros move in. Through a mask and not
 * through memory, where a load that spans two stores would wait for both. */
KF_AES_INLINE __m128i kf_moved(__m128i block, ptrdiff_t n)
{
    static const uint8_t masks[48] = {
        0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
        0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
    };
    return _mm_shuffle_epi8(block, kf_load_block(masks + 16 - n));
}

/* CMAC of what `chain` took and the last n >= 16 bytes at `p`, whose last 16 are xored with `end` first. */
KF_AES_INLINE __m128i kf_cmac_finish(const kf_cmac_key *key, __m128i chain, const uint8_t *p, size_t n, __m128i end)
{
    const __m128i padding = _mm_cvtsi32_si128(0x80), zero = _mm_setzero_si128();
    size_t left = n % 16, head = n - 16 - left; /* of a last block that is padded; whole blocks without `end` */
    if (head)
        chain = kf_cmac_absorb(&key->aes, chain, p, head);
    chain = _mm_xor_si128(chain, _mm_xor_si128(kf_load_block(p + head), kf_moved(end, (ptrdiff_t)left)));
    if (left == 0)
        return kf_aes128_rounds(&key->aes, _mm_xor_si128(chain, kf_load_block(key->k1)), zero);
    __m128i last = kf_moved(_mm_xor_si128(kf_load_block(p + n - 16), end), (ptrdiff_t)left - 16);
    last = _mm_xor_si128(_mm_xor_si128(last, kf_moved(padding, (ptrdiff_t)left)), kf_load_block(key->k2));
    chain = kf_aes128_rounds(&key->aes, chain, _mm_xor_si128(last, kf_round_key(&key->aes, 0)));
    return kf_aes128_rounds(&key->aes, chain, zero);
}

/* CMAC of `n` bytes at `p` whose last 16 are xored with `end` first (S2V's xorend); with n < 16, `end` must be zero. */
KF_AES_INLINE __m128i kf_cmac_blocks(const kf_cmac_key *key, const uint8_t *p, size_t n, __m128i end)
{
    const __m128i chain = kf_round_key(&key->aes, 0);
    if (n >= 16)
        return kf_cmac_finish(key, chain, p, n, end);
    __m128i last = _mm_xor_si128(kf_padded(p, n), kf_load_block(key->k2));
    return kf_aes128_rounds(&key->aes, _mm_xor_si128(chain, last), _mm_setzero_si128());
}

/* D after one more component: dbl(D) xor CMAC(component). */
KF_AES_INLINE __m128i kf_s2v_step(const kf_siv_state *state, __m128i d, const uint8_t *ad, size_t ad_len)
{
    return _mm_xor_si128(kf_dbl(d), kf_cmac_blocks(&state->mac, ad, ad_len, _mm_setzero_si128()));
}

/* S2V's last step, over the plaintext: the synthetic IV, which is also the tag. */
KF_AES_INLINE __m128i kf_s2v_finish(const kf_siv_state *state, __m128i d, const uint8_t *plain, size_t n)
{
    if (n >= 16)
        return kf_cmac_blocks(&state->mac, plain, n, d);
    uint8_t last[16];
    kf_store_block(last, _mm_xor_si128(kf_dbl(d), kf_padded(plain, n)));
    return kf_cmac_blocks(&state->mac, last, 16, _mm_setzero_si128());
}

/* The counter from the IV, as a number: bits 31 and 63 cleared, RFC 5297 section 2.5. */
KF_AES_INLINE __m128i kf_siv_counter(__m128i iv)
{
    return _mm_and_si128(kf_reversed(iv), _mm_set_epi32(-1, -1, 0x7fffffff, 0x7fffffff));
}

KF_AES_TARGET static void kf_cmac_init(kf_cmac_key *out, const uint8_t key[16]) { kf_cmac_expand(out, key); }

KF_AES_TARGET static void kf_cmac(const kf_cmac_key *key, const uint8_t *p, size_t n, uint8_t out[16])
{
    kf_store_block(out, kf_cmac_blocks(key, p, n, _mm_setzero_si128()));
}

/* `key` is 32 bytes: the S2V key, then the CTR key. */
KF_AES_TARGET static void kf_siv_init(kf_siv_state *out, const uint8_t key[32])
{
    static const uint8_t zero[16];
    kf_aes128_expand(&out->ctr, key + 16);
    kf_cmac_expand(&out->mac, key);
    kf_store_block(out->d, kf_cmac_blocks(&out->mac, zero, 16, _mm_setzero_si128()));
}

/* Takes one more leading component into the state. An empty component counts: it is not the same as none. */
KF_AES_TARGET static void kf_siv_absorb(kf_siv_state *state, const uint8_t *ad, size_t ad_len)
{
    kf_store_block(state->d, kf_s2v_step(state, kf_load_block(state->d), ad, ad_len));
}

/* Seals `n` bytes; `ad` is the last component, NULL if there is none. `out` may be `plain`. */
KF_AES_TARGET static void kf_siv_seal(const kf_siv_state *state, const uint8_t *ad, size_t ad_len, const uint8_t *plain,
                                      size_t n, uint8_t tag[16], uint8_t *out)
{
    __m128i d = kf_load_block(state->d);
    if (ad)
        d = kf_s2v_step(state, d, ad, ad_len);
    __m128i iv = kf_s2v_finish(state, d, plain, n);
    kf_aes128_ctr(&state->ctr, kf_siv_counter(iv), plain, out, n);
    kf_store_block(tag, iv);
}

/* 1 when the tag is what it should be; otherwise 0, and what was decrypted is zeroed. */
KF_AES_INLINE int kf_siv_check(__m128i tag, __m128i expected, uint8_t *out, size_t n)
{
    __m128i difference = _mm_xor_si128(tag, expected);
    if (_mm_testz_si128(difference, difference))
        return 1;
    kf_wipe(out, n);
    return 0;
}

/* Opens n >= 16 bytes; `d` is what S2V made of the components. Decrypts and authenticates by turns: the chain is what
 * takes time, and the less stands between the chains of two calls, the earlier a processor that waits for one of them
 * begins the next. */
KF_AES_INLINE int kf_siv_open_blocks(const kf_siv_state *state, __m128i d, const uint8_t tag[16], const uint8_t *sealed,
                                     size_t n, uint8_t *out)
{
    const __m128i iv = kf_load_block(tag);
    __m128i chain = kf_round_key(&state->mac.aes, 0), counter = kf_siv_counter(iv);
    size_t done = 0;
    for (; n - done >= 80; done += 64) {
        kf_aes128_ctr_chunk(&state->ctr, counter, sealed + done, out + done, 64, 4);
        chain = kf_cmac_absorb(&state->mac.aes, chain, out + done, 64);
        counter = _mm_add_epi64(counter, _mm_set_epi64x(0, 4));
    }
    kf_aes128_ctr(&state->ctr, counter, sealed + done, out + done, n - done);
    return kf_siv_check(iv, kf_cmac_finish(&state->mac, chain, out + done, n - done, d), out, n);
}

/* Opens `n` bytes of ciphertext: 1 and the plaintext in `out`, or 0 and `out` zeroed. `out` may be `sealed`. */
KF_AES_TARGET static int kf_siv_open(const kf_siv_state *state, const uint8_t *ad, size_t ad_len, const uint8_t tag[16],
                                     const uint8_t *sealed, size_t n, uint8_t *out)
{
    __m128i iv = kf_load_block(tag), d = kf_load_block(state->d);
    /* What requests have is compiled for these sizes, so that the processor is that much sooner at the next one. */
    if (ad && ad_len == 16 && n == 168)
        return kf_siv_open_blocks(state, kf_s2v_step(state, d, ad, 16), tag, sealed, 168, out);
    if (ad)
        d = kf_s2v_step(state, d, ad, ad_len);
    if (n >= 16)
        return kf_siv_open_blocks(state, d, tag, sealed, n, out);
    kf_aes128_ctr(&state->ctr, kf_siv_counter(iv), sealed, out, n);
    return kf_siv_check(iv, kf_s2v_finish(state, d, out, n), out, n);
}

#else
#include <stdlib.h>

static void kf_cmac_init(kf_cmac_key *out, const uint8_t key[16]) { abort(); }
static void kf_cmac(const kf_cmac_key *key, const uint8_t *p, size_t n, uint8_t out[16]) { abort(); }
static void kf_siv_init(kf_siv_state *out, const uint8_t key[32]) { abort(); }
static void kf_siv_absorb(kf_siv_state *state, const uint8_t *ad, size_t ad_len) { abort(); }
static void kf_siv_seal(const kf_siv_state *state, const uint8_t *ad, size_t ad_len, const uint8_t *plain, size_t n,
                        uint8_t tag[16], uint8_t *out) { abort(); }
static int kf_siv_open(const kf_siv_state *state, const uint8_t *ad, size_t ad_len, const uint8_t tag[16],
                       const uint8_t *sealed, size_t n, uint8_t *out) { abort(); }

#endif
#endif
