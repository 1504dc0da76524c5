# SHA-256: SHA-NI or plain C, both in sha256.h. KMS_FAST_NO_SHANI=1 in the environment at import forces plain C.
#
# The kernel takes pointers, needs no GIL and cannot fail.

cdef extern from "sha256.h" nogil:
    void kf_sha256(const uint8_t* p, size_t n, uint8_t* out)
    void kf_sha256_use(int shani)


cdef bint sha256_native = kf_cpu_has_sha() and os.environ.get("KMS_FAST_NO_SHANI") != "1"
kf_sha256_use(sha256_native)


def sha256(bytes data not None) -> bytes:
    """SHA-256 of `data`: 32 bytes."""
    cdef uint8_t digest[32]
    kf_sha256(data, len(data), digest)
    return digest[:32]
