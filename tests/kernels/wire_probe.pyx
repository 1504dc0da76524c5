# Reaches the inline functions of wire.pxd from Python; test_wire.py compiles it.
from libc.stdint cimport uint8_t

from kms_fast._core.wire cimport (
    Reader, Writer, bytes_left, copy_bytes, get_bytes, get_u8, get_u16, get_u32, get_u64, put_bytes, put_u8, put_u16,
    put_u32, put_u64, put_zeros, read_from, room_left, skip, write_to
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
    """(bytes in place or None, a copy), both after `skipped` bytes, then overrun."""
    cdef Reader borrowed = read_from(data, len(data))
    cdef Reader copied = read_from(data, len(data))
    cdef uint8_t out[64]
    skip(&borrowed, skipped)
    skip(&copied, skipped)
    cdef const uint8_t* start = get_bytes(&borrowed, n)
    copy_bytes(&copied, out, n)
    return None if start == NULL else start[:n], out[:n], bool(borrowed.overrun), bool(copied.overrun)


def write(size_t room, list fields):
    """Writes (size, value) fields, bytes, or a number of zeros as (0, count); (written, overrun, room left)."""
    cdef uint8_t out[64]
    cdef Writer writer = write_to(out, room)
    for field in fields:
        if isinstance(field, bytes):
            put_bytes(&writer, field, len(field))
        elif field[0] == 0:
            put_zeros(&writer, field[1])
        elif field[0] == 1:
            put_u8(&writer, field[1])
        elif field[0] == 2:
            put_u16(&writer, field[1])
        elif field[0] == 4:
            put_u32(&writer, field[1])
        else:
            put_u64(&writer, field[1])
    return out[:writer.at - out], bool(writer.overrun), room_left(&writer)
