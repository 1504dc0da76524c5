# HMAC-SHA256 over a precomputed key. The kernels take pointers, need no GIL and cannot fail; the owner of a kf_hmac_key
# wipes it.

cdef extern from "hmac.h" nogil:
    ctypedef struct kf_hmac_key:
        pass
    void kf_hmac_init(kf_hmac_key* out, const uint8_t* key, size_t n)
    void kf_hmac_sha256(const kf_hmac_key* key, const uint8_t* p, size_t n, uint8_t* out)
    void kf_hmac_sha256_two(const kf_hmac_key** keys, const uint8_t** p, size_t n, uint8_t* out)


def hmac_sha256(bytes key not None, bytes data not None) -> bytes:
    """HMAC-SHA256 of `data` under a key of any length: 32 bytes."""
    cdef kf_hmac_key state
    cdef uint8_t mac[32]
    kf_hmac_init(&state, key, len(key))
    kf_hmac_sha256(&state, data, len(data), mac)
    kf_wipe(&state, sizeof(state))
    return mac[:32]
