# A machine's row of an inventory: what its ledger entries come to, and what they say of it.
#
# Entries belong to the caller (fold.pxi); a row is a tuple of Python objects. Words of clients are taken as they are.

cdef enum:
    MINUTE_MS = 60_000
    SAID_SIZE = 8
    SAID_INPUT = 118    # two blocks of SHA-256
    LICENSED = 1

cdef const uint8_t* V4_MAPPED = <const uint8_t*>b"\0\0\0\0\0\0\0\0\0\0\xff\xff"


cdef struct FoldEntry:
    uint64_t prefix       # the first 8 bytes of the CMID as a number, so that most comparisons need no more
    uint64_t time_ms      # of its batch
    const uint8_t* entry  # in the fold's copy, where later ones lie behind: that tells those of one millisecond apart
    uint8_t[SAID_SIZE] said  # hashed where the entry is read: later they are visited in random order


cdef tuple make_change(const FoldEntry* entries, Py_ssize_t n):
    """The row of one machine's entries for one SKU, oldest first."""
    cdef const uint8_t* entry = NULL
    cdef const uint8_t* first = entries[0].entry
    cdef const uint8_t* before = first
    cdef uint64_t activations = 0, refusals = 0, hardware_changes = 0, activated_ms = 0, expires_ms = 0, refused_ms = 0
    cdef uint32_t result = 0, refusal = 0
    cdef Py_ssize_t i
    for i in range(n):
        entry = entries[i].entry
        result = load_u32(entry + LEAF_RESULT)
        if result == GRANTED:
            activations += 1
            activated_ms = entries[i].time_ms
            expires_ms = activated_ms + <uint64_t>load_u32(entry + LEAF_VALIDITY) * MINUTE_MS
        else:
            refusals += 1
            refused_ms, refusal = entries[i].time_ms, result
        hardware_changes += memcmp(entry + LEAF_HARDWARE, before + LEAF_HARDWARE, ID_SIZE) != 0
        before = entry
    hardware = (entry + LEAF_HARDWARE)[:ID_SIZE]
    return (
        (entry + LEAF_CMID)[:ID_SIZE],
        (entry + LEAF_SKU)[:ID_SIZE],
        entries[0].time_ms,
        activations,
        activated_ms if activations else None,
        expires_ms if activations else None,
        refusals,
        refused_ms if refusals else None,
        refusal if refusals else None,
        state_after(entry),
        read_name(entry + ENTRY_NAME),
        read_address(entry + ENTRY_PEER),
        (first + LEAF_HARDWARE)[:ID_SIZE] if hardware_changes else hardware,
        hardware,
        hardware_changes,
        read_optional(entry + ENTRY_PREDECESSOR, HASH_SIZE),
        read_optional(entry + ENTRY_PREVIOUS_CMID, ID_SIZE),
        entry[ENTRY_VIRTUAL],
        load_u32(entry + ENTRY_LIBRARY_VERSION),
        None if hardware_changes else entries[n - 1].said[:SAID_SIZE],
    )


cdef uint8_t state_after(const uint8_t* entry) noexcept nogil:
    """The licence state that a request left its machine in."""
    return <uint8_t>LICENSED if load_u32(entry + LEAF_RESULT) == GRANTED else entry[ENTRY_STATE]


cdef void hash_said(const uint8_t* entry, uint8_t* out) noexcept nogil:
    """8 bytes that stand for what a machine says of itself and the state it is in: a renewal that only repeats it is
    known by them. Of SHA-256, since a name is the machine's own word: nobody shall find another for given ones.
    """
    cdef uint8_t said[SAID_INPUT]
    cdef uint8_t digest[HASH_SIZE]
    cdef uint8_t* end = said + 6
    said[0], said[1] = state_after(entry), entry[ENTRY_VIRTUAL]
    memcpy(said + 2, entry + ENTRY_LIBRARY_VERSION, 4)
    memcpy(end, entry + ENTRY_PEER, ID_SIZE)
    memcpy(end + ID_SIZE, entry + LEAF_HARDWARE, ID_SIZE)
    memcpy(end + 2 * ID_SIZE, entry + ENTRY_PREVIOUS_CMID, ID_SIZE)
    memcpy(end + 3 * ID_SIZE, entry + ENTRY_NAME, FIELDS_NAME_SIZE)
    kf_sha256(said, SAID_INPUT, digest)
    memcpy(out, digest, SAID_SIZE)


cdef object read_optional(const uint8_t* field, Py_ssize_t n):
    """The field's bytes, None when all are zero."""
    return None if is_zero(field, n) else field[:n]


cdef object read_name(const uint8_t* name):
    """The name up to its first zero byte, None when it is empty. What is not UTF-8 is replaced: it is a client's word.
    """
    cdef Py_ssize_t n = 0
    while n < FIELDS_NAME_SIZE and name[n] != 0:
        n += 1
    return PyUnicode_DecodeUTF8(<const char*>name, n, "replace") if n else None


cdef object read_address(const uint8_t* peer):
    """4 bytes of an IPv4 address, 16 of an IPv6 one, None when it was blanked."""
    if memcmp(peer, V4_MAPPED, 12) == 0:
        return peer[12:16]
    return read_optional(peer, ID_SIZE)
