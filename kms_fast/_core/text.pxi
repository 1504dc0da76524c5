# Text for machines, JSON and CSV: each writer puts something at a pointer and returns where it ended.
#
# The buffer is the caller's and must have room. Nothing here raises, allocates or needs the interpreter lock.

cdef const char* HEX_DIGITS = "0123456789abcdef"


cdef char* append_text(char* out, const char* text) noexcept nogil:
    cdef size_t n = strlen(text)
    memcpy(out, text, n)
    return out + n


cdef char* append_hex(char* out, const uint8_t* at, size_t n) noexcept nogil:
    cdef size_t i
    for i in range(n):
        out[2 * i] = HEX_DIGITS[at[i] >> 4]
        out[2 * i + 1] = HEX_DIGITS[at[i] & 15]
    return out + 2 * n


cdef char* append_uuid(char* out, const uint8_t* uuid) noexcept nogil:
    out = append_text(append_hex(out, uuid, 4), b"-")
    out = append_text(append_hex(out, uuid + 4, 2), b"-")
    out = append_text(append_hex(out, uuid + 6, 2), b"-")
    out = append_text(append_hex(out, uuid + 8, 2), b"-")
    return append_hex(out, uuid + 10, 6)


cdef char* append_number(char* out, uint64_t number) noexcept nogil:
    cdef char digits[20]
    cdef int n = 0, i
    while True:
        digits[n] = <char>(48 + number % 10)
        number //= 10
        n += 1
        if number == 0:
            break
    for i in range(n):
        out[i] = digits[n - 1 - i]
    return out + n
