# Ledger entries as text, a line each: JSON or CSV, every field of an entry (docs/ledger.md, "Export").
#
# Writers take a pointer into a buffer that has room for the longest line and return where they stopped; they neither
# raise nor need the interpreter lock. The formatter owns the buffer.

cdef extern from "<arpa/inet.h>" nogil:
    const char* inet_ntop(int family, const void* address, char* out, unsigned int size)
    const int AF_INET
    const int AF_INET6

cdef enum:
    LINE_ROOM = 2048         # 22 names and values; a name of 64 bytes takes at most 384
    TEXT_SIZE = 1 << 20      # what one call gives, but for the rest of its last batch
    BATCH_NAME_ROOM = 64

# The fields of a line, in the order in which `EntryFormatter` puts them.
EXPORT_FIELDS = (
    "time", "batch", "index", "result", "request_hash", "cmid", "sku", "hardware_digest", "client_time", "family_index",
    "generation", "validity_min", "activation_interval_min", "renewal_interval_min", "count", "threshold", "name",
    "previous_cmid", "predecessor", "minutes_to_expiry", "revocations_number", "library_version", "state", "virtual",
    "address", "port",
)
cdef enum:
    EXPORT_FIELD_COUNT = 26

cdef char* append_version(char* out, uint32_t version) noexcept nogil:
    out = append_text(append_number(out, version >> 24), b".")
    out = append_text(append_number(out, version >> 16 & 0xFF), b".")
    return append_number(out, version & 0xFFFF)


cdef char* append_address(char* out, const uint8_t* address) noexcept nogil:
    """An IPv6 address as RFC 5952 writes it, an IPv4-mapped one as IPv4."""
    cdef bint is_v4 = is_zero(address, 10) and address[10] == address[11] == 0xFF
    if inet_ntop(AF_INET if is_v4 else AF_INET6, address + (12 if is_v4 else 0), out, 46) == NULL:
        return out
    return out + strlen(out)


cdef char* append_name(char* out, const uint8_t* name, bint csv) noexcept nogil:
    """A name of up to 64 bytes between quotes. What is no UTF-8, and no host ever recorded, becomes U+FFFD."""
    cdef int i = 0, step
    cdef uint32_t character
    out = append_text(out, b'"')
    # A spreadsheet takes what begins so for a formula.
    if csv and memchr(b"=+-@\t\r", name[0], 6) != NULL:
        out = append_text(out, b"'")
    while i < FIELDS_NAME_SIZE and name[i] != 0:
        step = decode_utf8(name + i, FIELDS_NAME_SIZE - i, &character)
        if step == 0:
            out, step = append_text(out, b"\xef\xbf\xbd"), 1
        elif character == c'"':
            out = append_text(out, b'""' if csv else b'\\"')
        elif character == c'\\' and not csv:
            out = append_text(out, b"\\\\")
        elif character < 0x20 and not csv:
            out = append_hex(append_text(out, b"\\u00"), name + i, 1)
        else:
            memcpy(out, name + i, step)
            out += step
        i += step
    return append_text(out, b'"')


@cython.final
cdef class EntryFormatter:
    """Writes the entries of records as lines.

    EntryFormatter(csv): comma-separated, or else JSON objects. What an entry does not have (a name that was not
    recorded, an address that was blanked) is null, or empty in CSV. Times are in ms since 1970.
    """

    cdef bint csv
    cdef char* text
    cdef tuple prefixes
    cdef const char* prefix[EXPORT_FIELD_COUNT]
    cdef int field

    def __cinit__(self, bint csv):
        cdef int i
        self.csv = csv
        if csv:
            self.prefixes = (b"", *[b","] * (EXPORT_FIELD_COUNT - 1))
        else:
            keys = [b'"%s":' % name.encode() for name in EXPORT_FIELDS]
            self.prefixes = (b"{" + keys[0], *[b"," + key for key in keys[1:]])
        for i in range(EXPORT_FIELD_COUNT):
            self.prefix[i] = <bytes>self.prefixes[i]
        self.text = <char*>PyMem_Malloc(TEXT_SIZE + MAX_LEAVES * LINE_ROOM)
        if self.text == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.text)

    def format(self, RecordReader reader not None, uint64_t since_ms, uint64_t until_ms) -> bytes:
        """About 1 MiB of lines from the reader's next records, those signed from `since_ms` to before `until_ms`.

        Empty when there are no further records. Raises OSError.
        """
        cdef char* out = self.text
        cdef uint64_t time_ms
        while out < self.text + TEXT_SIZE and reader.advance_to(INT64_MAX):
            time_ms = load_u64(reader.record + RECORD_HEADER + HEADER_TIME)
            if since_ms <= time_ms < until_ms:
                with nogil:
                    out = self.put_record(out, reader)
        return self.text[:out - self.text]

    cdef char* put_record(self, char* out, RecordReader reader) noexcept nogil:
        cdef const uint8_t* header = reader.record + RECORD_HEADER
        cdef char batch[BATCH_NAME_ROOM]
        cdef char* end = batch
        cdef uint32_t i
        if not self.csv:
            end = append_text(end, b'"')
        end = append_text(append_number(end, load_u32(header + HEADER_SEGMENT)), b"/")
        end = append_number(end, load_u64(header + HEADER_NUMBER))
        if not self.csv:
            end = append_text(end, b'"')
        end[0] = 0
        for i in range(reader.entries):
            self.field = 0
            out = self.put_integer(out, load_u64(header + HEADER_TIME))
            out = append_text(self.put_key(out), batch)
            out = self.put_integer(out, i)
            out = self.put_leaf(out, reader.entry(i))
            out = self.put_rest(out, reader.entry(i))
        return out

    cdef char* put_leaf(self, char* out, const uint8_t* leaf) noexcept nogil:
        out = self.put_integer(out, load_u32(leaf + LEAF_RESULT))
        out = self.put_octets(out, leaf + LEAF_REQUEST_HASH, HASH_SIZE)
        out = self.put_id(out, leaf + LEAF_CMID)
        out = self.put_id(out, leaf + LEAF_SKU)
        out = self.put_octets(out, leaf + LEAF_HARDWARE, ID_SIZE)
        out = self.put_integer(out, load_u64(leaf + LEAF_CLIENT_TIME))
        out = self.put_integer(out, leaf[LEAF_FAMILY_INDEX])
        out = self.put_integer(out, load_u16(leaf + LEAF_GENERATION))
        out = self.put_integer(out, load_u32(leaf + LEAF_VALIDITY))
        out = self.put_integer(out, load_u32(leaf + LEAF_ACTIVATION_INTERVAL))
        out = self.put_integer(out, load_u32(leaf + LEAF_RENEWAL_INTERVAL))
        out = self.put_integer(out, load_u32(leaf + LEAF_COUNT))
        return self.put_integer(out, load_u32(leaf + LEAF_THRESHOLD))

    cdef char* put_rest(self, char* out, const uint8_t* entry) noexcept nogil:
        out = self.put_key(out)
        out = append_name(out, entry + ENTRY_NAME, self.csv) if entry[ENTRY_NAME] else self.put_nothing(out)
        out = self.put_id(out, entry + ENTRY_PREVIOUS_CMID)
        out = self.put_octets(out, entry + ENTRY_PREDECESSOR, HASH_SIZE)
        out = self.put_integer(out, load_u32(entry + ENTRY_MINUTES_TO_EXPIRY))
        out = self.put_integer(out, load_u32(entry + ENTRY_REVOCATION))
        out = self.put_quote(self.put_key(out))
        out = self.put_quote(append_version(out, load_u32(entry + ENTRY_LIBRARY_VERSION)))
        out = self.put_integer(out, entry[ENTRY_STATE])
        out = append_text(self.put_key(out), b"true" if entry[ENTRY_VIRTUAL] else b"false")
        if is_zero(entry + ENTRY_PEER, ID_SIZE):
            out = self.put_nothing(self.put_key(out))
            out = self.put_nothing(self.put_key(out))
        else:
            out = self.put_quote(self.put_key(out))
            out = self.put_quote(append_address(out, entry + ENTRY_PEER))
            out = self.put_integer(out, load_u16(entry + ENTRY_PEER_PORT))
        return append_text(out, b"\r\n" if self.csv else b"}\n")

    cdef char* put_key(self, char* out) noexcept nogil:
        """What stands before the next value."""
        out = append_text(out, self.prefix[self.field])
        self.field += 1
        return out

    cdef char* put_integer(self, char* out, uint64_t number) noexcept nogil:
        return append_number(self.put_key(out), number)

    cdef char* put_octets(self, char* out, const uint8_t* octets, int n) noexcept nogil:
        out = self.put_key(out)
        if is_zero(octets, n):
            return self.put_nothing(out)
        return self.put_quote(append_hex(self.put_quote(out), octets, n))

    cdef char* put_id(self, char* out, const uint8_t* octets) noexcept nogil:
        out = self.put_key(out)
        if is_zero(octets, ID_SIZE):
            return self.put_nothing(out)
        return self.put_quote(append_uuid(self.put_quote(out), octets))

    cdef char* put_quote(self, char* out) noexcept nogil:
        return out if self.csv else append_text(out, b'"')

    cdef char* put_nothing(self, char* out) noexcept nogil:
        return out if self.csv else append_text(out, b"null")
