# Requests on both sides: the keys of a SKU, sealing, opening, and the rules that opened fields must keep.
#
# Buffers belong to the caller and have the sizes of layout.pxd. A bad request is a False, never an exception; an
# exception can only come from the fall-back cipher.

@cython.final
cdef class SkuKeys:
    """The two keys of a SKU, ready for use: request key with the clear header worked in, and answer secret.

    SkuKeys(sku_id, request_key, answer_secret): 16, 32 and 32 bytes; docs/protocol.md, "Keys of a SKU". Wiped when
    freed. Raises ValueError for other lengths.
    """

    cdef readonly bytes sku_id
    cdef SivKey request_cipher
    cdef kf_hmac_key answer_mac
    cdef uint8_t clear[REQUEST_CLEAR_SIZE]

    def __cinit__(self, bytes sku_id not None, bytes request_key not None, bytes answer_secret not None):
        if len(sku_id) != ID_SIZE or len(request_key) != 32 or len(answer_secret) != 32:
            raise ValueError("a SKU's keys are 16 bytes of SKU ID, 32 of request key and 32 of answer secret")
        self.sku_id = sku_id
        self.clear[REQUEST_VERSION] = 1
        self.clear[REQUEST_TYPE] = MESSAGE_REQUEST
        store_u16(self.clear + REQUEST_RESERVED, 0)
        memcpy(self.clear + REQUEST_SKU, <const uint8_t*>sku_id, ID_SIZE)
        self.request_cipher = SivKey(request_key, self.clear[:REQUEST_CLEAR_SIZE])
        kf_hmac_init(&self.answer_mac, answer_secret, 32)

    def __dealloc__(self):
        kf_wipe(&self.answer_mac, sizeof(self.answer_mac))

    cdef int seal_request_into(self, const uint8_t* fields, const uint8_t* nonce, uint8_t* out) except -1:
        """Writes the 220 bytes of a request with these 168 bytes of fields and this 16-byte nonce."""
        memcpy(out, self.clear, REQUEST_CLEAR_SIZE)
        memcpy(out + REQUEST_NONCE, nonce, ID_SIZE)
        return self.request_cipher.seal(out + REQUEST_NONCE, ID_SIZE, fields, FIELDS_SIZE, out + REQUEST_TAG)

    cdef bint open_request_into(self, const uint8_t* request, uint8_t* fields) except -1:
        """Opens a request of this SKU into 168 bytes; False when it does not verify or its fields break a rule."""
        if memcmp(request, self.clear, REQUEST_CLEAR_SIZE) != 0:
            return False
        return (self.request_cipher.open(request + REQUEST_NONCE, ID_SIZE, request + REQUEST_TAG,
                                         TAG_SIZE + FIELDS_SIZE, fields)
                and fields_are_valid(fields))

    cdef void answer_key(self, const uint8_t* tag, uint8_t* out) noexcept nogil:
        """The AES-SIV key of the one answer to the request with this SIV tag: 32 bytes, for the caller to wipe."""
        kf_hmac_sha256(&self.answer_mac, tag, TAG_SIZE, out)

    def seal_request(self, bytes fields not None, bytes nonce not None) -> bytes:
        """A request of 220 bytes from 168 bytes of fields and a nonce of 16. Raises ValueError for other lengths."""
        cdef bytes request
        if len(fields) != FIELDS_SIZE or len(nonce) != ID_SIZE:
            raise ValueError("a request is sealed from 168 bytes of fields and a nonce of 16")
        request = PyBytes_FromStringAndSize(NULL, REQUEST_SIZE)
        self.seal_request_into(fields, nonce, request)
        return request

    def open_request(self, bytes request not None) -> bytes | None:
        """The 168 bytes of fields of a request, or None when it is not one of this SKU's or breaks a rule."""
        cdef bytes fields
        if len(request) != REQUEST_SIZE:
            return None
        fields = PyBytes_FromStringAndSize(NULL, FIELDS_SIZE)
        return fields if self.open_request_into(request, fields) else None


cdef bint is_zero(const uint8_t* at, size_t n) noexcept nogil:
    cdef uint8_t seen = 0
    cdef size_t i
    for i in range(n):
        seen |= at[i]
    return seen == 0


cdef bint fields_are_valid(const uint8_t* fields) noexcept nogil:
    cdef uint8_t state = fields[FIELDS_STATE]
    return (not is_zero(fields + FIELDS_CMID, ID_SIZE)
            and (state <= 3 or state == 5)
            and fields[FIELDS_VIRTUAL] <= 1
            and load_u16(fields + FIELDS_RESERVED) == 0
            and name_is_valid(fields + FIELDS_NAME))


cdef bint name_is_valid(const uint8_t* name) noexcept nogil:
    """Whether 64 bytes are a machine name: UTF-8 (RFC 3629) without control characters, then zero bytes only."""
    cdef size_t i = 0, end = FIELDS_NAME_SIZE, step
    cdef uint32_t character
    while i < end and all_printable(load_u64(name + i)):
        i += 8
    while i < end and load_u64(name + end - 8) == 0:
        end -= 8
    while i < end and name[i] != 0:
        step = decode_utf8(name + i, FIELDS_NAME_SIZE - i, &character)
        if step == 0 or character < 0x20 or 0x7F <= character <= 0x9F:
            return False
        i += step
    return is_zero(name + i, end - i)


cdef inline bint all_printable(uint64_t word) noexcept nogil:
    """Whether each of 8 bytes is from 0x20 to 0x7E: what nearly all names consist of, eight at a time."""
    cdef uint64_t ones = 0x0101010101010101
    cdef uint64_t below_space = (word - 0x20 * ones) & ~word
    cdef uint64_t is_delete = (word ^ 0x7F * ones) - ones
    return (word | below_space | is_delete) & 0x80 * ones == 0


cdef size_t decode_utf8(const uint8_t* at, size_t left, uint32_t* character) noexcept nogil:
    """Length of the UTF-8 sequence at `at`, its code point in `character`; 0 for what RFC 3629 does not allow."""
    cdef uint8_t lead = at[0]
    cdef uint32_t smallest
    cdef size_t length, i
    if lead < 0x80:
        character[0] = lead
        return 1
    if 0xC2 <= lead <= 0xDF:
        length, smallest, character[0] = 2, 0x80, lead & 0x1F
    elif lead & 0xF0 == 0xE0:
        length, smallest, character[0] = 3, 0x800, lead & 0x0F
    elif 0xF0 <= lead <= 0xF4:
        length, smallest, character[0] = 4, 0x10000, lead & 0x07
    else:
        return 0
    if left < length:
        return 0
    for i in range(1, length):
        if at[i] & 0xC0 != 0x80:
            return 0
        character[0] = character[0] << 6 | (at[i] & 0x3F)
    if character[0] < smallest or character[0] > 0x10FFFF or 0xD800 <= character[0] <= 0xDFFF:
        return 0
    return length
