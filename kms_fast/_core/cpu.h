/* What the processor offers, asked at run time; builds never assume more than the baseline.
 *
 * ARMv8: its AES and SHA-2 instructions belong here as a second branch (getauxval(AT_HWCAP) on Linux, sysctl on
 * macOS), with rounds beside the x86 ones in aes.h and sha256.h. The place is empty because nobody has run such code
 * for this project yet: until then these machines use `cryptography` and plain C, which are slower and known to be
 * right. */
#ifndef KF_CPU_H
#define KF_CPU_H

/* KF_PORTABLE builds as if for an unknown processor; the tests use it to keep that branch compiling. */
#if defined(__x86_64__) && !defined(KF_PORTABLE)
#define KF_X86 1
#include <cpuid.h>
#include <immintrin.h>

static inline int kf_cpu_has_sse41(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSSE3) && (c & bit_SSE4_1);
}

static inline int kf_cpu_has_aes(void)
{
    unsigned a, b, c, d;
    return kf_cpu_has_sse41() && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_AES);
}

static inline int kf_cpu_has_sha(void)
{
    unsigned a, b, c, d;
    return kf_cpu_has_sse41() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 29));
}

#else
#define KF_X86 0

static inline int kf_cpu_has_aes(void) { return 0; }
static inline int kf_cpu_has_sha(void) { return 0; }

#endif
#endif
