/* The kernels' times without the interpreter (bench/kernels.py compiles and runs this, with the extension's flags).
 *
 *   kernels ROUNDS MILLISECONDS     prints lines "NAME BYTES NANOSECONDS CYCLES", one for each kernel and round
 *
 * NAME's words are joined by underscores. BYTES is the size of what one call takes, the times are those of one call.
 * CYCLES are ticks of the time-stamp counter, which runs at a fixed frequency whatever the core's own is; 0 where there
 * is none. Calls go over many different messages, so that no branch predictor learns one by heart. */
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "hmac.h"
#include "merkle.h"
#include "siv.h"

enum {
    MESSAGES = 256,
    FIELDS_SIZE = 168,
    REQUEST_SIZE = 220,
    NONCE_SIZE = 16,
    LEAF_SIZE = 118,
    ENTRY_SIZE = 264,
    LEAVES = 256,
};

static uint8_t messages[MESSAGES][ENTRY_SIZE], sealed[MESSAGES][FIELDS_SIZE], tags[MESSAGES][16];
static uint8_t nodes[32 * KF_MERKLE_MAX_NODES], out[ENTRY_SIZE];
static kf_siv_opener siv;
static kf_cmac_key cmac;
static kf_hmac_key hmac;
static int opened = 1;

static void seal(size_t i)
{
    kf_siv_seal(&siv.state, messages[i], NONCE_SIZE, messages[i] + NONCE_SIZE, FIELDS_SIZE, tags[i], sealed[i]);
}

static void open(size_t i)
{
    opened &= kf_siv_open(&siv, messages[i], NONCE_SIZE, tags[i], sealed[i], FIELDS_SIZE, out);
}

static void make_cmac(size_t i) { kf_cmac(&cmac, messages[i], FIELDS_SIZE, out); }
static void make_hmac(size_t i) { kf_hmac_sha256(&hmac, messages[i], NONCE_SIZE, out); }
static void make_long_hmac(size_t i) { kf_hmac_sha256(&hmac, messages[i], FIELDS_SIZE, out); }
static void hash(size_t i) { kf_sha256(messages[i], REQUEST_SIZE, out); }

static void build_tree(size_t i)
{
    messages[0][0] = (uint8_t)i;
    kf_merkle_leaf_hashes(nodes, messages[0], ENTRY_SIZE, LEAF_SIZE, LEAVES);
    memcpy(out, kf_merkle_build(nodes, LEAVES), 32);
}

static const struct kernel {
    const char *name;
    size_t bytes;
    void (*call)(size_t i);
    int needs_aes;
} kernels[] = {
    {"AES-SIV_seal", FIELDS_SIZE, seal, 1},
    {"AES-SIV_open", FIELDS_SIZE, open, 1},
    {"AES-CMAC", FIELDS_SIZE, make_cmac, 1},
    {"HMAC-SHA256", NONCE_SIZE, make_hmac, 0},
    {"HMAC-SHA256", FIELDS_SIZE, make_long_hmac, 0},
    {"SHA-256", REQUEST_SIZE, hash, 0},
    {"tree_of_256_leaves", LEAVES *LEAF_SIZE, build_tree, 0},
};

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e9 * now.tv_sec + now.tv_nsec;
}

static double now_cycles(void)
{
#if KF_X86
    return (double)__rdtsc();
#else
    return 0;
#endif
}

static void measure(const struct kernel *kernel, double limit_ns)
{
    size_t calls = 0;
    for (size_t i = 0; i < MESSAGES; i++)
        kernel->call(i);
    double started_ns = now_ns(), started_cycles = now_cycles(), spent_ns;
    do {
        for (size_t i = 0; i < MESSAGES; i++)
            kernel->call(i);
        calls += MESSAGES;
        spent_ns = now_ns() - started_ns;
    } while (spent_ns < limit_ns);
    double cycles = now_cycles() - started_cycles;
    printf("%s %zu %.2f %.1f\n", kernel->name, kernel->bytes, spent_ns / calls, cycles / calls);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: kernels ROUNDS MILLISECONDS\n");
        return 2;
    }
    int has_aes = kf_cpu_has_aes();
    for (size_t i = 0; i < sizeof messages; i++)
        ((uint8_t *)messages)[i] = (uint8_t)(i * 2654435761u >> 13);
    kf_sha256_use(kf_cpu_has_sha());
    kf_hmac_init(&hmac, messages[0], 32);
    if (has_aes) {
        kf_siv_opener_init(&siv, messages[0]);
        kf_siv_absorb(&siv.state, messages[1], 20);
        kf_cmac_init(&cmac, messages[0]);
    }
    for (int round = 0; round < atoi(argv[1]); round++)
        for (size_t k = 0; k < sizeof kernels / sizeof *kernels; k++)
            if (has_aes || !kernels[k].needs_aes)
                measure(&kernels[k], 1e6 * atof(argv[2]));
    if (!opened) {
        fprintf(stderr, "what was sealed did not open\n");
        return 1;
    }
    return 0;
}
