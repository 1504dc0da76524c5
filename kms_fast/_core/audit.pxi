# What of a batch header can be checked without a signature: it continues the one before it, under its certificate.
#
# Python objects are made once a batch, for the signature, which is the caller's to verify. Raises OSError when the
# file cannot be read.

cdef enum:
    WRONG_NUMBER = 1
    WRONG_PREVIOUS = 2
    WRONG_CERTIFICATE = 4
    WRONG_TIME = 8
    WRONG_DATES = 16


@cython.final
cdef class ChainCheck:
    """Checks that a segment's headers make one chain, and counts what they hold.

    ChainCheck(segment, host_id, serial, not_before_ms, not_after_ms, number, previous, time_ms): whose headers they
    are, and the number, header hash and time of the batch before the first one that is checked.
    """

    cdef readonly uint64_t number
    cdef readonly uint64_t time_ms
    cdef readonly uint64_t batches
    cdef readonly uint64_t records
    cdef readonly uint64_t granted
    cdef readonly uint64_t first_ms
    cdef readonly uint64_t last_ms
    cdef uint32_t segment
    cdef uint64_t serial
    cdef uint64_t not_before_ms
    cdef uint64_t not_after_ms
    cdef uint8_t host_id[ID_SIZE]
    cdef uint8_t header_hash[HASH_SIZE]

    def __cinit__(self, uint32_t segment, bytes host_id not None, uint64_t serial, uint64_t not_before_ms,
                  uint64_t not_after_ms, uint64_t number, bytes previous not None, uint64_t time_ms):
        if len(host_id) != ID_SIZE or len(previous) != HASH_SIZE:
            raise ValueError("a host ID has 16 bytes and a header hash 32")
        self.segment, self.serial, self.number, self.time_ms = segment, serial, number, time_ms
        self.not_before_ms, self.not_after_ms = not_before_ms, not_after_ms
        memcpy(self.host_id, <const uint8_t*>host_id, ID_SIZE)
        memcpy(self.header_hash, <const uint8_t*>previous, HASH_SIZE)

    @property
    def previous(self) -> bytes:
        """The hash of the last header checked."""
        return self.header_hash[:HASH_SIZE]

    def check(self, RecordReader reader not None, int64_t end, int limit) -> list[tuple[int, bytes, bytes, bytes, int]]:
        """The next batches that begin before `end`, at most `limit`.

        Of each: offset of its record, header hash, signed message, signature, and what is wrong with it: a sum of
        1 number or segment, 2 previous hash, 4 host or certificate serial, 8 time goes back, 16 outside the
        certificate's dates. A wrong header is continued all the same, so that each fault shows once.
        """
        cdef const uint8_t* header
        cdef int wrong
        checked = []
        while len(checked) < limit and reader.advance_to(end):
            header = reader.record + RECORD_HEADER
            wrong = self.follow(header)
            self.count(reader)
            checked.append((
                reader.offset - reader.size,
                self.header_hash[:HASH_SIZE],
                HEADER_CONTEXT + header[:HEADER_SIZE],
                (header + HEADER_SIZE)[:SIGNATURE_SIZE],
                wrong,
            ))
        return checked

    cdef int follow(self, const uint8_t* header) noexcept nogil:
        cdef int wrong = 0
        cdef uint64_t time_ms = load_u64(header + HEADER_TIME)
        self.number += 1
        if load_u32(header + HEADER_SEGMENT) != self.segment or load_u64(header + HEADER_NUMBER) != self.number:
            wrong |= WRONG_NUMBER
        if memcmp(header + HEADER_PREVIOUS, self.header_hash, HASH_SIZE) != 0:
            wrong |= WRONG_PREVIOUS
        if memcmp(header + HEADER_HOST, self.host_id, ID_SIZE) != 0 or load_u64(header + HEADER_SERIAL) != self.serial:
            wrong |= WRONG_CERTIFICATE
        if time_ms < self.time_ms:
            wrong |= WRONG_TIME
        if not self.not_before_ms <= time_ms <= self.not_after_ms:
            wrong |= WRONG_DATES
        self.time_ms = time_ms
        kf_sha256(header, HEADER_SIZE, self.header_hash)
        return wrong

    cdef void count(self, RecordReader reader) noexcept nogil:
        cdef uint32_t i
        self.last_ms = max(self.last_ms, self.time_ms)
        self.first_ms = min(self.first_ms, self.time_ms) if self.batches else self.time_ms
        self.batches += 1
        # Also of a pruned batch it is known how many it answered.
        self.records += load_u16(reader.record + RECORD_HEADER + HEADER_TREE_SIZE)
        for i in range(reader.entries):
            self.granted += load_u32(reader.entry(i) + LEAF_RESULT) == GRANTED
