# The one place for byte order and bounds: little-endian integers, and byte strings read through a cursor.
#
# A cursor never passes its end. Reading too much does nothing but set `overrun`, which stays set; reads
# then give zero or NULL. So a parser takes all its fields and asks once at the end. Cursors borrow the memory they
# walk over; nothing raises, nothing needs the GIL.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


# ---- integers at a place whose bounds the caller has checked

cdef inline uint16_t load_u16(const uint8_t* p) noexcept nogil:
    return <uint16_t>(p[0] | <uint16_t>p[1] << 8)


cdef inline uint32_t load_u32(const uint8_t* p) noexcept nogil:
    return <uint32_t>p[0] | <uint32_t>p[1] << 8 | <uint32_t>p[2] << 16 | <uint32_t>p[3] << 24


cdef inline uint64_t load_u64(const uint8_t* p) noexcept nogil:
    return <uint64_t>load_u32(p) | <uint64_t>load_u32(p + 4) << 32


cdef inline void store_u16(uint8_t* p, uint16_t value) noexcept nogil:
    p[0] = <uint8_t>value
    p[1] = <uint8_t>(value >> 8)


cdef inline void store_u32(uint8_t* p, uint32_t value) noexcept nogil:
    store_u16(p, <uint16_t>value)
    store_u16(p + 2, <uint16_t>(value >> 16))


cdef inline void store_u64(uint8_t* p, uint64_t value) noexcept nogil:
    store_u32(p, <uint32_t>value)
    store_u32(p + 4, <uint32_t>(value >> 32))


# ---- reading

cdef struct Reader:
    const uint8_t* at
    const uint8_t* end
    bint overrun


cdef inline Reader read_from(const uint8_t* start, size_t n) noexcept nogil:
    cdef Reader reader
    reader.at = start
    reader.end = start + n
    reader.overrun = False
    return reader


cdef inline size_t bytes_left(const Reader* reader) noexcept nogil:
    return <size_t>(reader.end - reader.at)


cdef inline const uint8_t* get_bytes(Reader* reader, size_t n) noexcept nogil:
    """The next `n` bytes where they lie, or NULL when there are fewer."""
    cdef const uint8_t* start = reader.at
    if reader.overrun or n > bytes_left(reader):
        reader.overrun = True
        return NULL
    reader.at = start + n
    return start


cdef inline void skip(Reader* reader, size_t n) noexcept nogil:
    get_bytes(reader, n)


cdef inline uint8_t get_u8(Reader* reader) noexcept nogil:
    cdef const uint8_t* p = get_bytes(reader, 1)
    return 0 if p == NULL else p[0]


cdef inline uint16_t get_u16(Reader* reader) noexcept nogil:
    cdef const uint8_t* p = get_bytes(reader, 2)
    return 0 if p == NULL else load_u16(p)


cdef inline uint32_t get_u32(Reader* reader) noexcept nogil:
    cdef const uint8_t* p = get_bytes(reader, 4)
    return 0 if p == NULL else load_u32(p)


cdef inline uint64_t get_u64(Reader* reader) noexcept nogil:
    cdef const uint8_t* p = get_bytes(reader, 8)
    return 0 if p == NULL else load_u64(p)
