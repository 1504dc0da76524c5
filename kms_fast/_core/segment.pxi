# Reading a ledger segment back (docs/ledger.md): whole records, one after the other, from a descriptor.
#
# A RecordReader owns its window on the file and borrows the descriptor. What it points to holds until it advances.
# Reading and hashing need no interpreter lock; functions for Python raise OSError when the file cannot be read.

cdef enum:
    WINDOW_SIZE = 1 << 20    # several of the largest records
    WALK_SIZE = 1 << 14      # frames are far apart: most of what lies between is not read


cdef int64_t read_at(int fd, uint8_t* out, int64_t n, int64_t offset) noexcept nogil:
    """Reads up to `n` bytes: how many there are before the end of the file, or minus an errno."""
    cdef int64_t done = 0
    cdef ssize_t got
    while done < n:
        got = pread(fd, out + done, n - done, offset + done)
        if got < 0:
            if errno == EINTR:
                continue
            return -errno
        if got == 0:
            break
        done += got
    return done


cdef uint32_t framed_size(const uint8_t* frame, bint pruned) noexcept nogil:
    """Size of the record that eight bytes frame, 0 when they frame none."""
    cdef uint32_t size = load_u32(frame + FRAME_LENGTH), magic = load_u32(frame + FRAME_MAGIC)
    if pruned:
        return size if magic == PRUNED_MAGIC and size == RECORD_ENTRIES else 0
    if magic != RECORD_MAGIC or size < RECORD_ENTRIES + ENTRY_SIZE or size > RECORD_ENTRIES + MAX_LEAVES * ENTRY_SIZE:
        return 0
    return size if (size - RECORD_ENTRIES) % ENTRY_SIZE == 0 else 0


@cython.final
cdef class RecordReader:
    """The whole records of a segment from `offset` on, until there is none.

    RecordReader(fd, offset, pruned): `pruned` records consist of their signed headers; of others the entries' leaves
    must give the root that their header names. `offset` is where the next record lies, `number` the number of the batch
    before it, 0 until one was read. A reader that found none looks at the file again when it is asked again.
    """

    cdef readonly int64_t offset
    cdef readonly uint64_t number
    cdef int fd
    cdef bint pruned
    cdef uint8_t* window
    cdef int64_t window_offset
    cdef int64_t window_size
    cdef uint8_t* nodes
    cdef const uint8_t* record
    cdef uint32_t size
    cdef uint32_t entries

    def __cinit__(self, int fd, int64_t offset, bint pruned=False):
        self.fd, self.offset, self.pruned = fd, offset, pruned
        self.window = <uint8_t*>PyMem_Malloc(WINDOW_SIZE)
        self.nodes = <uint8_t*>PyMem_Malloc(HASH_SIZE * KF_MERKLE_MAX_NODES)
        if self.window == NULL or self.nodes == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.window)
        PyMem_Free(self.nodes)

    cdef int look(self, int64_t n) noexcept nogil:
        """Brings `n` bytes from `offset` on into the window: 1, 0 when the file ends before, or minus an errno."""
        cdef int64_t got
        if self.offset + n > self.window_offset + self.window_size or self.offset < self.window_offset:
            got = read_at(self.fd, self.window, WINDOW_SIZE, self.offset)
            if got < 0:
                self.window_size = 0
                return <int>got
            self.window_offset, self.window_size = self.offset, got
        self.record = self.window + (self.offset - self.window_offset)
        return self.offset + n <= self.window_offset + self.window_size

    cdef int advance(self) noexcept nogil:
        """Goes to the next whole record: 1, 0 when there is none, or minus an errno."""
        cdef int found = self.look(FRAME_SIZE)
        if found == 1:
            self.size = framed_size(self.record, self.pruned)
            found = self.look(self.size) if self.size else 0
        if found == 1:
            found = self.is_whole()
        if found == 1:
            self.offset += self.size
            self.number = load_u64(self.record + RECORD_HEADER + HEADER_NUMBER)
        else:
            self.window_size = 0    # its host may be writing it just now
        return found

    cdef void step_back(self, uint64_t number) noexcept nogil:
        """Undoes the last advance; `number` is that of the batch before it."""
        self.offset -= self.size
        self.number = number

    cdef bint is_whole(self) noexcept nogil:
        cdef const uint8_t* header = self.record + RECORD_HEADER
        self.entries = (self.size - RECORD_ENTRIES) // ENTRY_SIZE
        if header[HEADER_VERSION] != 1 or header[HEADER_TYPE] != 1:
            return False
        if self.pruned:
            return True
        if load_u16(header + HEADER_TREE_SIZE) != self.entries:
            return False
        kf_merkle_leaf_hashes(self.nodes, self.entry(0), ENTRY_SIZE, LEAF_SIZE, self.entries)
        return memcmp(kf_merkle_build(self.nodes, self.entries), header + HEADER_ROOT, HASH_SIZE) == 0

    cdef inline const uint8_t* entry(self, uint32_t i) noexcept nogil:
        return self.record + RECORD_ENTRIES + i * ENTRY_SIZE

    cdef bint advance_to(self, int64_t end) except -1:
        """Goes to the next whole record that begins before `end`; whether there is one."""
        cdef int found
        with nogil:
            found = self.advance() if self.offset < end else 0
        if found < 0:
            raise OSError(-found, os.strerror(-found))
        return found == 1

    def read(self, int limit) -> list[bytes]:
        """The next records as they lie in the file, at most `limit`."""
        records = []
        while len(records) < limit and self.advance_to(INT64_MAX):
            records.append(self.record[:self.size])
        return records

    def read_headers(self, int limit, int64_t end) -> list[bytes]:
        """The signed headers (180 bytes each) of the next records that begin before `end`, at most `limit`."""
        headers = []
        while len(headers) < limit and self.advance_to(end):
            headers.append((self.record + RECORD_HEADER)[:SIGNED_HEADER_SIZE])
        return headers

    def find_entries(self, bytes cmid not None) -> list[tuple[int, int]]:
        """All further entries whose leaves are of this machine (16 bytes): offset of the record, index in it."""
        cdef uint32_t i
        if len(cmid) != ID_SIZE:
            raise ValueError("a CMID has 16 bytes")
        found = []
        while self.advance_to(INT64_MAX):
            for i in range(self.entries):
                if memcmp(self.entry(i) + LEAF_CMID, <const uint8_t*>cmid, ID_SIZE) == 0:
                    found.append((self.offset - self.size, i))
        return found


def walk_frames(int fd, int64_t offset, bint pruned, int every) -> list[int]:
    """Follows the frames of a segment from `offset` on without looking at what they hold.

    Where each `every`-th record begins, `offset` first, and last where the frames end.
    """
    cdef uint8_t window[WALK_SIZE]
    cdef int64_t window_offset = offset, window_size = 0, cut
    cdef uint32_t size = 1
    cdef int count
    cdef list cuts = [offset]
    while size:
        cut = offset
        with nogil:
            for count in range(every):
                if offset + FRAME_SIZE > window_offset + window_size:
                    window_offset, window_size = offset, read_at(fd, window, WALK_SIZE, offset)
                size = framed_size(window + (offset - window_offset), pruned) if window_size >= FRAME_SIZE else 0
                if not size:
                    break
                offset += size
        if window_size < 0:
            raise OSError(-window_size, os.strerror(-window_size))
        if offset != cut:
            cuts.append(offset)
    return cuts
