# AES-SIV (RFC 5297) with 32-byte keys, the same on both back ends: kernels of siv.h, or `cryptography`'s AESSIV.
#
# Sealed data is tag (16 bytes) || ciphertext, everywhere. Opening gives True and the plaintext, or False and zeroes
# in `out`. Callers own all buffers. The GIL is held, since the fall-back needs it; an exception can only come from
# the fall-back.

cdef extern from "siv.h" nogil:
    ctypedef struct kf_siv_state:
        pass
    ctypedef struct kf_siv_opener:
        kf_siv_state state
    void kf_siv_init(kf_siv_state* out, const uint8_t* key32)
    void kf_siv_opener_init(kf_siv_opener* out, const uint8_t* key32)
    void kf_siv_absorb(kf_siv_state* state, const uint8_t* ad, size_t ad_len)
    void kf_siv_seal(const kf_siv_state* state, const uint8_t* ad, size_t ad_len, const uint8_t* plain, size_t n,
                     uint8_t* tag, uint8_t* out)
    int kf_siv_open(const kf_siv_opener* key, const uint8_t* ad, size_t ad_len, const uint8_t* tag,
                    const uint8_t* sealed, size_t n, uint8_t* out)


cdef int fallback_seal(object aessiv, list components, const uint8_t* plain, Py_ssize_t n, uint8_t* out) except -1:
    cdef bytes sealed = aessiv.encrypt(plain[:n], components)
    memcpy(out, <const uint8_t*>sealed, 16 + n)
    return 0


cdef bint fallback_open(object aessiv, list components, const uint8_t* sealed, Py_ssize_t n, uint8_t* out) except -1:
    cdef bytes plain
    try:
        plain = aessiv.decrypt(sealed[:n], components)
    except InvalidTag:
        memset(out, 0, n - 16)
        return False
    memcpy(out, <const uint8_t*>plain, n - 16)
    return True


@cython.final
cdef class SivKey:
    """An AES-SIV key with its leading associated-data components worked in, for many calls.

    SivKey(key, *leading): `key` is 32 bytes (S2V key, CTR key). Each call then adds one last component of its own.
    Raises ValueError for another key length.
    """

    cdef kf_siv_opener cipher
    cdef object aessiv  # the fall-back's key object; None with AES-NI
    cdef list leading

    def __cinit__(self, bytes key not None, *leading):
        cdef bytes component
        check_siv_key(key)
        self.leading = list(leading)
        if aes_native:
            kf_siv_opener_init(&self.cipher, key)
        else:
            self.aessiv = AESSIV(key)
        for component in leading:
            if component is None:
                raise TypeError("an associated-data component must be bytes, not None")
            if aes_native:
                kf_siv_absorb(&self.cipher.state, component, len(component))

    def __dealloc__(self):
        kf_wipe(&self.cipher, sizeof(self.cipher))

    cdef int seal(self, const uint8_t* ad, Py_ssize_t ad_len, const uint8_t* plain, Py_ssize_t n,
                  uint8_t* out) except -1:
        """Writes 16 + n bytes. `ad` is the last component; NULL for none."""
        if self.aessiv is None:
            kf_siv_seal(&self.cipher.state, ad, ad_len, plain, n, out, out + 16)
            return 0
        return fallback_seal(self.aessiv, self.leading + ([ad[:ad_len]] if ad != NULL else []), plain, n, out)

    cdef bint open(self, const uint8_t* ad, Py_ssize_t ad_len, const uint8_t* sealed, Py_ssize_t n,
                   uint8_t* out) except -1:
        """Opens `n` >= 16 bytes of tag || ciphertext into n - 16 bytes at `out`. `ad` as for seal."""
        if n < 16:
            return False
        if self.aessiv is None:
            return kf_siv_open(&self.cipher, ad, ad_len, sealed, sealed + 16, n - 16, out)
        return fallback_open(self.aessiv, self.leading + ([ad[:ad_len]] if ad != NULL else []), sealed, n, out)

    def encrypt(self, bytes plaintext not None, bytes last=None, /) -> bytes:
        """tag || ciphertext under the leading components and `last`, if given."""
        cdef bytes sealed = PyBytes_FromStringAndSize(NULL, 16 + len(plaintext))
        self.seal(pointer_or_null(last), 0 if last is None else len(last), plaintext, len(plaintext), sealed)
        return sealed

    def decrypt(self, bytes data not None, bytes last=None, /) -> bytes | None:
        """The plaintext of tag || ciphertext, or None when it does not verify."""
        cdef bytes plain
        if len(data) < 16:
            return None
        plain = PyBytes_FromStringAndSize(NULL, len(data) - 16)
        opened = self.open(pointer_or_null(last), 0 if last is None else len(last), data, len(data), plain)
        return plain if opened else None


cdef inline const uint8_t* pointer_or_null(bytes value) noexcept:
    if value is None:
        return NULL
    return <const uint8_t*>PyBytes_AS_STRING(value)


cdef int check_siv_key(bytes key) except -1:
    if len(key) != 32:
        raise ValueError(f"AES-SIV here takes a key of 32 bytes (an AES-128 pair), not {len(key)}")
    return 0


cdef int siv_seal_once(const uint8_t* key32, const uint8_t* ad, Py_ssize_t ad_len, const uint8_t* plain, Py_ssize_t n,
                       uint8_t* out) except -1:
    """Seals under a key used once, with one component, without making an object: tag || ciphertext, 16 + n bytes."""
    cdef kf_siv_state state
    if not aes_native:
        return fallback_seal(AESSIV(key32[:32]), [ad[:ad_len]], plain, n, out)
    kf_siv_init(&state, key32)
    kf_siv_seal(&state, ad, ad_len, plain, n, out, out + 16)
    kf_wipe(&state, sizeof(state))
    return 0


cdef bint siv_open_once(const uint8_t* key32, const uint8_t* ad, Py_ssize_t ad_len, const uint8_t* sealed, Py_ssize_t n,
                        uint8_t* out) except -1:
    """Opens what siv_seal_once sealed: `n` >= 16 bytes into n - 16 bytes at `out`; False when it does not verify."""
    cdef kf_siv_opener cipher
    cdef bint opened
    if n < 16:
        return False
    if not aes_native:
        return fallback_open(AESSIV(key32[:32]), [ad[:ad_len]], sealed, n, out)
    kf_siv_opener_init(&cipher, key32)
    opened = kf_siv_open(&cipher, ad, ad_len, sealed, sealed + 16, n - 16, out)
    kf_wipe(&cipher, sizeof(cipher))
    return opened


def siv_seal(bytes key not None, bytes plaintext not None, *ad) -> bytes:
    """AES-SIV: tag (16 bytes) || ciphertext under a 32-byte key and any number of associated-data components.

    Raises ValueError for another key length.
    """
    cdef bytes sealed
    check_siv_key(key)
    if len(ad) != 1:
        return SivKey(key, *ad).encrypt(plaintext)
    component = <bytes?>ad[0]
    sealed = PyBytes_FromStringAndSize(NULL, 16 + len(plaintext))
    siv_seal_once(key, <bytes>component, len(<bytes>component), plaintext, len(plaintext), sealed)
    return sealed


def siv_open(bytes key not None, bytes data not None, *ad) -> bytes | None:
    """The plaintext of tag || ciphertext, or None when it does not verify.

    Raises ValueError for a key that is not of 32 bytes.
    """
    cdef bytes plain
    check_siv_key(key)
    if len(ad) != 1 or len(data) < 16:
        return SivKey(key, *ad).decrypt(data)
    component = <bytes?>ad[0]
    plain = PyBytes_FromStringAndSize(NULL, len(data) - 16)
    opened = siv_open_once(key, <bytes>component, len(<bytes>component), data, len(data), plain)
    return plain if opened else None
