/* Runs the kernels without the interpreter, so that valgrind and the sanitizers see nothing else. Every buffer is
 * allocated at its exact size: a read or write one byte too far is an error they report.
 *
 * kernels        checks known answers; prints what ran, exits 1 at the first wrong one
 * kernels aes    reads lines "KEY PLAINTEXT" in hex, prints each block's AES-128 encryption */
#include <stdio.h>
#include <stdlib.h>

#include "hmac.h"
#include "merkle.h"
#include "siv.h"

static void check(int right, const char *what)
{
    if (right)
        return;
    printf("WRONG: %s\n", what);
    exit(1);
}

/* The bytes of a hex string in an allocation of just that size. */
static uint8_t *unhex(const char *hex)
{
    size_t n = strlen(hex) / 2;
    uint8_t *bytes = malloc(n ? n : 1);
    for (size_t i = 0; i < n; i++) {
        unsigned value;
        check(sscanf(hex + 2 * i, "%2x", &value) == 1, "hex digits");
        bytes[i] = (uint8_t)value;
    }
    return bytes;
}

static uint8_t *counting(size_t n)
{
    uint8_t *bytes = malloc(n ? n : 1);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(i * 7 + n);
    return bytes;
}

static void check_hex(const uint8_t *got, const char *wanted, const char *what)
{
    uint8_t *bytes = unhex(wanted);
    check(kf_equal(got, bytes, strlen(wanted) / 2), what);
    free(bytes);
}

static void check_sha256(const char *name)
{
    uint8_t *digest = malloc(32);
    kf_sha256((const uint8_t *)"abc", 3, digest);
    check_hex(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "FIPS 180-4 abc");

    uint8_t *key = unhex("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b");
    kf_hmac_key hmac;
    kf_hmac_init(&hmac, key, 20);
    kf_hmac_sha256(&hmac, (const uint8_t *)"Hi There", 8, digest);
    check_hex(digest, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7", "RFC 4231 case 1");
    free(key);

    for (size_t n = 0; n < 300; n++) { /* the plain C kernel is the yardstick of the other */
        uint8_t *data = counting(n), expected[32];
        kf_sha256(data, n, digest);
        kf_sha256_state state = kf_sha256_start;
        if (n >= 64)
            kf_sha256_blocks_c(&state, data, n / 64);
        kf_sha256_finish(state, n / 64 * 64, data + n / 64 * 64, n % 64, expected);
        check(kf_equal(digest, expected, 32), "midstate");
        free(data);
    }
    free(digest);
    printf("sha256=%s ok\n", name);
}

static void check_merkle(void)
{
    uint8_t *leaves = counting(264 * KF_MERKLE_MAX_LEAVES), *path = malloc(32 * KF_MERKLE_MAX_PATH);
    for (size_t n = 1; n <= KF_MERKLE_MAX_LEAVES; n = n < 40 ? n + 1 : 2 * n - 31 + n % 3) {
        size_t total = n;
        for (size_t width = n; width > 1; total += width)
            width = (width + 1) / 2;
        check(total <= KF_MERKLE_MAX_NODES, "size of a tree");
        uint8_t *nodes = malloc(32 * total), alone[32];
        for (size_t i = 0; i < n; i++)
            leaves[264 * i] = (uint8_t)i;
        kf_merkle_leaf_hashes(nodes, leaves, 264, 118, n);
        for (size_t i = 0; i < n; i++) {
            kf_merkle_leaf_hash(leaves + 264 * i, 118, alone);
            check(memcmp(nodes + 32 * i, alone, 32) == 0, "a leaf's hash beside others");
        }
        const uint8_t *root = kf_merkle_build(nodes, n);
        check(root == nodes + 32 * (total - 1), "the root is the last node");
        for (size_t i = 0; i < n; i++) {
            size_t length = kf_merkle_path(nodes, n, i, path);
            check(length <= KF_MERKLE_MAX_PATH, "length of a path");
            check(kf_merkle_verify(nodes + 32 * i, i, n, path, length, root), "inclusion");
            check(!kf_merkle_verify(nodes + 32 * i, i + 1, n, path, length, root), "inclusion under another index");
        }
        free(nodes);
    }
    free(leaves);
    free(path);
    printf("merkle ok\n");
}

static void check_siv_lengths(const kf_siv_opener *cipher)
{
    for (size_t i = 0; i < 600; i++) {
        size_t n = i / 2, nonce_size = i % 2 ? 16 : n % 33;
        uint8_t *plain = counting(n), *sealed = malloc(n ? n : 1), *opened = malloc(n ? n : 1);
        uint8_t *nonce = counting(nonce_size), *tag = malloc(16);
        kf_siv_seal(&cipher->state, nonce, nonce_size, plain, n, tag, sealed);
        check(kf_siv_open(cipher, nonce, nonce_size, tag, sealed, n, opened), "open what was sealed");
        check(kf_equal(opened, plain, n), "plaintext");
        tag[n % 16] ^= 1;
        check(!kf_siv_open(cipher, nonce, nonce_size, tag, sealed, n, opened), "another tag is refused");
        for (size_t j = 0; j < n; j++)
            check(opened[j] == 0, "wiped after a refusal");
        tag[n % 16] ^= 1;
        for (size_t j = i % 5; j < n; j += 5) { /* every block of every length */
            sealed[j] ^= 1;
            check(!kf_siv_open(cipher, nonce, nonce_size, tag, sealed, n, opened), "another ciphertext is refused");
            sealed[j] ^= 1;
        }
        check(kf_siv_open(cipher, nonce, nonce_size, tag, sealed, n, sealed), "open in place");
        check(kf_equal(sealed, plain, n), "plaintext in place");
        free(plain), free(sealed), free(opened), free(nonce), free(tag);
    }
}

static void check_siv(void)
{
    if (!kf_cpu_has_aes()) {
        printf("aes=none\n");
        return;
    }
    kf_siv_opener cipher;
    uint8_t tag[16];
    uint8_t *key = unhex("7f7e7d7c7b7a79787776757473727170404142434445464748494a4b4c4d4e4f");
    uint8_t *first = unhex("00112233445566778899aabbccddeeffdeaddadadeaddadaffeeddccbbaa99887766554433221100");
    uint8_t *second = unhex("102030405060708090a0"), *nonce = unhex("09f911029d74e35bd84156c5635688c0");
    uint8_t *plain = (uint8_t *)"this is some plaintext to encrypt using SIV-AES", *sealed = malloc(47);
    kf_siv_opener_init(&cipher, key);
    kf_siv_absorb(&cipher.state, first, 40);
    kf_siv_absorb(&cipher.state, second, 10);
    kf_siv_seal(&cipher.state, nonce, 16, plain, 47, tag, sealed);
    check_hex(tag, "7bdb6e3b432667eb06f4d14bff2fbd0f", "RFC 5297 A.2 tag");
    check_hex(sealed, "cb900f2fddbe404326601965c889bf17dba77ceb094fa663b7a3f748ba8af829ea64ad544a272e9c485b62a3fd5c0d",
              "RFC 5297 A.2 ciphertext");
    check_siv_lengths(&cipher);
    kf_wipe(&cipher, sizeof cipher);
    for (size_t i = 0; i < sizeof cipher; i++)
        check(((uint8_t *)&cipher)[i] == 0, "wiped key");
    free(key), free(first), free(second), free(nonce), free(sealed);
    printf("aes=aesni ok\n");
}

#if KF_X86
KF_AES_TARGET static void encrypt_lines(void)
{
    char key_hex[33], plain_hex[33];
    while (scanf("%32s %32s", key_hex, plain_hex) == 2) {
        kf_aes128 schedule;
        uint8_t *key = unhex(key_hex), *block = unhex(plain_hex);
        kf_aes128_expand(&schedule, key);
        kf_store_block(block, kf_aes128_encrypt(&schedule, kf_load_block(block)));
        for (int i = 0; i < 16; i++)
            printf("%02x", block[i]);
        printf("\n");
        free(key), free(block);
    }
}
#else
static void encrypt_lines(void) {}
#endif

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "aes") == 0) {
        encrypt_lines();
        return 0;
    }
    check_sha256("c");
    if (kf_cpu_has_sha()) {
        kf_sha256_use(1);
        check_sha256("shani");
    }
    check_merkle();
    check_siv();
    return 0;
}
