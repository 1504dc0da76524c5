# AES back end and CMAC: AES-NI rounds of aes.h where the processor has them, else `cryptography`.
#
# The choice is made once at import; KMS_FAST_NO_AESNI=1 in the environment forces `cryptography`. The kernels take
# pointers, need no GIL and cannot fail; the functions for Python own the key schedules they make and wipe them.

cdef extern from "memory.h" nogil:
    void kf_wipe(void* at, size_t n)
    int kf_equal(const uint8_t* a, const uint8_t* b, size_t n)

cdef extern from "cpu.h" nogil:
    int kf_cpu_has_aes()
    int kf_cpu_has_sha()

cdef extern from "siv.h" nogil:
    ctypedef struct kf_cmac_key:
        pass
    void kf_cmac_init(kf_cmac_key* out, const uint8_t* key)
    void kf_cmac(const kf_cmac_key* key, const uint8_t* p, size_t n, uint8_t* out)


cdef bint aes_native = kf_cpu_has_aes() and os.environ.get("KMS_FAST_NO_AESNI") != "1"


def backend() -> dict[str, str]:
    """Which code runs: {"aes": "aesni" or "cryptography", "sha256": "shani" or "c"}."""
    return {"aes": "aesni" if aes_native else "cryptography", "sha256": "shani" if sha256_native else "c"}


def _use_backend(*, str aes=None, str sha256=None) -> None:
    """For tests: change back ends by the names backend() gives. Keys keep the back end they were made with.

    Raises ValueError for a name that is unknown or that this processor cannot run.
    """
    global aes_native, sha256_native
    if aes not in (None, "aesni", "cryptography") or aes == "aesni" and not kf_cpu_has_aes():
        raise ValueError(f"this machine has no AES back end {aes!r}")
    if sha256 not in (None, "shani", "c") or sha256 == "shani" and not kf_cpu_has_sha():
        raise ValueError(f"this machine has no SHA-256 back end {sha256!r}")
    if aes is not None:
        aes_native = aes == "aesni"
    if sha256 is not None:
        sha256_native = sha256 == "shani"
        kf_sha256_use(sha256_native)


def equal(bytes a not None, bytes b not None) -> bool:
    """Whether two byte strings are equal, in a time that depends on their lengths only."""
    return len(a) == len(b) and kf_equal(a, b, len(a)) == 1


def cmac(bytes key not None, bytes data not None) -> bytes:
    """AES-CMAC (SP 800-38B) of `data` under a 16-byte key: 16 bytes. Raises ValueError for another key length."""
    cdef kf_cmac_key schedule
    cdef uint8_t mac[16]
    if len(key) != 16:
        raise ValueError(f"AES-CMAC takes a key of 16 bytes, not {len(key)}")
    if not aes_native:
        fallback = FallbackCmac(FallbackAes(key))
        fallback.update(data)
        return fallback.finalize()
    kf_cmac_init(&schedule, key)
    kf_cmac(&schedule, data, len(data), mac)
    kf_wipe(&schedule, sizeof(schedule))
    return mac[:16]
