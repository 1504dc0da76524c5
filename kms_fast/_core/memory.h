/* Wiping, constant-time comparison and big-endian words, for the kernels. Never fails, never allocates. */
#ifndef KF_MEMORY_H
#define KF_MEMORY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Zeroes `n` bytes in a way the compiler may not drop as a dead store. */
static inline void kf_wipe(void *at, size_t n)
{
    memset(at, 0, n);
    __asm__ __volatile__("" : : "r"(at) : "memory");
}

/* 1 if the `n` bytes are equal, else 0; the time depends on `n` alone. */
static inline int kf_equal(const uint8_t *a, const uint8_t *b, size_t n)
{
    uint8_t difference = 0;
    for (size_t i = 0; i < n; i++)
        difference |= a[i] ^ b[i];
    __asm__ __volatile__("" : "+r"(difference)); /* or the loop may be turned into an early exit */
    return difference == 0;
}

static inline uint32_t kf_load_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void kf_store_be32(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)(value >> 24);
    p[1] = (uint8_t)(value >> 16);
    p[2] = (uint8_t)(value >> 8);
    p[3] = (uint8_t)value;
}

static inline uint64_t kf_load_be64(const uint8_t *p)
{
    return (uint64_t)kf_load_be32(p) << 32 | kf_load_be32(p + 4);
}

static inline void kf_store_be64(uint8_t *p, uint64_t value)
{
    kf_store_be32(p, (uint32_t)(value >> 32));
    kf_store_be32(p + 4, (uint32_t)value);
}

#endif
