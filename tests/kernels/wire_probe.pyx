# Reaches the inline functions of wire.pxd from Python; test_wire.py compiles it.
from libc.stdint cimport uint8_t

from kms_fast._core.wire cimport (
    Reader, bytes_left, get_bytes, get_u8, get_u16, get_u32, get_u64, load_u16, load_u32, load_u64, read_from, skip,
    store_u16, store_u32, store_u64
)


def read(bytes data, list sizes):
    """Values of 1, 2, 4 or 8 bytes in turn, then (overrun, bytes left)."""
    cdef Reader reader = read_from(data, len(data))
    values = []
    for size in sizes:
        if size == 1:
            values.append(get_u8(&reader))
        elif size == 2:
            values.append(get_u16(&reader))
        elif size == 4:
            values.append(get_u32(&reader))
        else:
            values.append(get_u64(&reader))
    return values, bool(reader.overrun), bytes_left(&reader)


def cut(bytes data, size_t skipped, size_t n):
    """(bytes in place or None after `skipped` bytes, overrun)."""
    cdef Reader reader = read_from(data, len(data))
    skip(&reader, skipped)
    cdef const uint8_t* start = get_bytes(&reader, n)
    return None if start == NULL else start[:n], bool(reader.overrun)


def store(int size, value):
    """The bytes of an integer of 2, 4 or 8 bytes, and what loading them gives."""
    cdef uint8_t[8] out
    if size == 2:
        store_u16(out, value)
        return out[:2], load_u16(out)
    if size == 4:
        store_u32(out, value)
        return out[:4], load_u32(out)
    store_u64(out, value)
    return out[:8], load_u64(out)
