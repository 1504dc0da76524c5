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

/* A state that opens as well as it seals: the steps of its MAC can be taken back. */
typedef struct {
    kf_siv_state state;
    kf_aes128 mac_inverse;
} kf_siv_opener;

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

/* The blocks that end a MAC: `whole`, and after it `padded` unless the message was a number of whole blocks. */
typedef struct {
    __m128i whole, padded;
} kf_cmac_last;

/* Of a message that ends with 16 + left bytes, left < 16: the first and the last 16 of them, the last xored with `end`
 * first. */
KF_AES_INLINE kf_cmac_last kf_cmac_make_last(const kf_cmac_key *key, __m128i first, __m128i last, size_t left,
                                             __m128i end)
{
    const __m128i padding = _mm_cvtsi32_si128(0x80);
    kf_cmac_last made = {_mm_xor_si128(first, kf_moved(end, (ptrdiff_t)left)), kf_load_block(key->k2)};
    if (left == 0)
        made.whole = _mm_xor_si128(made.whole, kf_load_block(key->k1));
    last = kf_moved(_mm_xor_si128(last, end), (ptrdiff_t)left - 16);
    made.padded = _mm_xor_si128(made.padded, _mm_xor_si128(last, kf_moved(padding, (ptrdiff_t)left)));
    return made;
}

/* CMAC of `n` bytes at `p` whose last 16 are xored with `end` first (S2V's xorend); with n < 16, `end` must be zero. */
KF_AES_INLINE __m128i kf_cmac_blocks(const kf_cmac_key *key, const uint8_t *p, size_t n, __m128i end)
{
    const __m128i whitening = kf_round_key(&key->aes, 0);
    if (n < 16)
        return kf_aes128_encrypt(&key->aes, _mm_xor_si128(kf_padded(p, n), kf_load_block(key->k2)));
    const size_t left = n % 16, head = n - 16 - left; /* `head`: whole blocks without `end` */
    kf_cmac_last blocks = kf_cmac_make_last(key, kf_load_block(p + head), kf_load_block(p + n - 16), left, end);
    __m128i chain = whitening;
    if (head)
        chain = kf_cmac_absorb(&key->aes, chain, p, head);
    chain = _mm_xor_si128(chain, blocks.whole);
    if (left)
        chain = kf_aes128_rounds(&key->aes, chain, _mm_xor_si128(blocks.padded, whitening));
    return kf_aes128_rounds(&key->aes, chain, _mm_setzero_si128());
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

KF_AES_TARGET static void kf_siv_opener_init(kf_siv_opener *out, const uint8_t key[32])
{
    kf_siv_init(&out->state, key);
    kf_aes128_invert(&out->mac_inverse, &out->state.mac.aes);
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

/* 1 when both are the same; otherwise 0, and what was decrypted is zeroed. */
KF_AES_INLINE int kf_siv_check(__m128i a, __m128i b, uint8_t *out, size_t n)
{
    __m128i difference = _mm_xor_si128(a, b);
    if (_mm_testz_si128(difference, difference))
        return 1;
    kf_wipe(out, n);
    return 0;
}

/* Two chaining values of one MAC on their way to each other, each with the whitening of its next round. */
typedef struct {
    __m128i front; /* from the beginning of the message */
    __m128i back;  /* from the tag */
} kf_cmac_halves;

/* Takes n / 16 whole blocks at `p` into the front, and takes as many that end at `q` off the back. */
KF_AES_INLINE kf_cmac_halves kf_cmac_approach(const kf_siv_opener *key, kf_cmac_halves halves, const uint8_t *p,
                                              const uint8_t *q, size_t n)
{
    const __m128i whitening = kf_round_key(&key->state.mac.aes, 0);
    const __m128i inverse_whitening = kf_round_key(&key->mac_inverse, 0);
    for (size_t i = 0; i < n; i += 16) {
        halves.front = kf_aes128_rounds(&key->state.mac.aes, _mm_xor_si128(halves.front, kf_load_block(p + i)), whitening);
        halves.back = kf_aes128_inverse_rounds(&key->mac_inverse, halves.back,
                                               _mm_xor_si128(kf_load_block(q - 16 - i), inverse_whitening));
    }
    return halves;
}

/* The counter of the block at an offset. It has bit 63 clear, so its low half never carries over. */
KF_AES_INLINE __m128i kf_siv_counter_at(__m128i counter, size_t offset)
{
    return _mm_add_epi64(counter, _mm_set_epi64x(0, (int64_t)(offset / 16)));
}

/* Decrypts the last 16 + left bytes of a message, left < 16: the chaining value before them, by way of the tag. */
KF_AES_INLINE __m128i kf_siv_open_end(const kf_siv_opener *key, __m128i d, __m128i tag, __m128i counter,
                                      const uint8_t *sealed, size_t left, uint8_t *out)
{
    const __m128i whitening = kf_round_key(&key->mac_inverse, 0);
    __m128i first = kf_load_block(sealed), last = kf_load_block(sealed + left), stream[2];
    kf_aes128_keystream(&key->state.ctr, counter, stream, 2);
    first = _mm_xor_si128(first, stream[0]);
    last = _mm_xor_si128(last, kf_moved(stream[0], -(ptrdiff_t)left));
    last = _mm_xor_si128(last, kf_moved(stream[1], 16 - (ptrdiff_t)left));
    kf_store_block(out, first);
    kf_store_block(out + left, last);
    kf_cmac_last blocks = kf_cmac_make_last(&key->state.mac, first, last, left, d);
    __m128i chain = _mm_xor_si128(tag, whitening);
    if (left)
        chain = kf_aes128_inverse_rounds(&key->mac_inverse, chain, _mm_xor_si128(blocks.padded, whitening));
    return kf_aes128_inverse_rounds(&key->mac_inverse, chain, _mm_xor_si128(blocks.whole, whitening));
}

/* Opens n >= 16 bytes; `d` is what S2V made of the components. A MAC is a chain in which each block waits for the one
 * before. But the tag says where it ends, and who has the key can take every step back: so it is computed from both
 * ends, decrypting by turns, and the tag is right if and only if they meet. */
KF_AES_INLINE int kf_siv_open_blocks(const kf_siv_opener *key, __m128i d, const uint8_t tag[16], const uint8_t *sealed,
                                     size_t n, uint8_t *out)
{
    const __m128i iv = kf_load_block(tag), counter = kf_siv_counter(iv);
    const size_t left = n % 16;
    size_t low = 0, high = n - 16 - left; /* what is neither decrypted nor in one of the chains */
    kf_cmac_halves halves = {
        kf_round_key(&key->state.mac.aes, 0),
        kf_siv_open_end(key, d, iv, kf_siv_counter_at(counter, high), sealed + high, left, out + high),
    };
    for (; high - low >= 128; low += 64, high -= 64) {
        const size_t at = high - 64;
        kf_aes128_ctr_chunk(&key->state.ctr, kf_siv_counter_at(counter, low), sealed + low, out + low, 64, 4);
        kf_aes128_ctr_chunk(&key->state.ctr, kf_siv_counter_at(counter, at), sealed + at, out + at, 64, 4);
        halves = kf_cmac_approach(key, halves, out + low, out + high, 64);
    }
    if (high > low) {
        const size_t half = (high - low) / 32 * 16;
        kf_aes128_ctr(&key->state.ctr, kf_siv_counter_at(counter, low), sealed + low, out + low, high - low);
        halves = kf_cmac_approach(key, halves, out + low, out + high, half);
        if (low + half < high - half)
            halves.front = kf_cmac_absorb(&key->state.mac.aes, halves.front, out + low + half, 16);
    }
    return kf_siv_check(_mm_xor_si128(halves.front, kf_round_key(&key->state.mac.aes, 0)),
                        _mm_xor_si128(halves.back, kf_round_key(&key->mac_inverse, 0)), out, n);
}

/* Opens what requests have. Compiled for these sizes, and by itself, so that it keeps no round keys on the stack: the
 * less there is to do, the sooner the processor is at what comes next. */
KF_AES_TARGET static __attribute__((noinline)) int kf_siv_open_request(const kf_siv_opener *key, const uint8_t ad[16],
                                                                       const uint8_t tag[16],
                                                                       const uint8_t sealed[168], uint8_t out[168])
{
    return kf_siv_open_blocks(key, kf_s2v_step(&key->state, kf_load_block(key->state.d), ad, 16), tag, sealed, 168, out);
}

/* Opens `n` bytes of ciphertext: 1 and the plaintext in `out`, or 0 and `out` zeroed. `out` may be `sealed`. */
KF_AES_TARGET static int kf_siv_open(const kf_siv_opener *key, const uint8_t *ad, size_t ad_len, const uint8_t tag[16],
                                     const uint8_t *sealed, size_t n, uint8_t *out)
{
    if (ad && ad_len == 16 && n == 168)
        return kf_siv_open_request(key, ad, tag, sealed, out);
    __m128i iv = kf_load_block(tag), d = kf_load_block(key->state.d);
    if (ad)
        d = kf_s2v_step(&key->state, d, ad, ad_len);
    if (n >= 16)
        return kf_siv_open_blocks(key, d, tag, sealed, n, out);
    kf_aes128_ctr(&key->state.ctr, kf_siv_counter(iv), sealed, out, n);
    return kf_siv_check(iv, kf_s2v_finish(&key->state, d, out, n), out, n);
}

#else
#include <stdlib.h>

static void kf_cmac_init(kf_cmac_key *out, const uint8_t key[16]) { abort(); }
static void kf_cmac(const kf_cmac_key *key, const uint8_t *p, size_t n, uint8_t out[16]) { abort(); }
static void kf_siv_init(kf_siv_state *out, const uint8_t key[32]) { abort(); }
static void kf_siv_opener_init(kf_siv_opener *out, const uint8_t key[32]) { abort(); }
static void kf_siv_absorb(kf_siv_state *state, const uint8_t *ad, size_t ad_len) { abort(); }
static void kf_siv_seal(const kf_siv_state *state, const uint8_t *ad, size_t ad_len, const uint8_t *plain, size_t n,
                        uint8_t tag[16], uint8_t *out) { abort(); }
static int kf_siv_open(const kf_siv_opener *key, const uint8_t *ad, size_t ad_len, const uint8_t tag[16],
                       const uint8_t *sealed, size_t n, uint8_t *out) { abort(); }

#endif
#endif
