# The fold: entries of many batches become one change for each CMID and SKU, sorted by both.
#
# The fold owns a copy of every entry, and a reference of 32 bytes to each. Sorting references by machine, then by time,
# brings what belongs together side by side, so a row needs no look-ups; rows are made one by one as they are asked for.
# What nearly all machines do, to be granted and nothing else, can be had in columns (columns.pxi).

cdef extern from * nogil:
    uint64_t swap_bytes "__builtin_bswap64"(uint64_t value)

cdef enum:
    FOLD_START_TOTALS = 16
    FOLD_COLUMN_SETS = 16


cdef struct FoldTotal:
    uint8_t sku[ID_SIZE]
    uint32_t result
    uint8_t state
    uint64_t requests


cdef struct FoldColumns:
    const uint8_t* entry    # one of the kind
    bint has_predecessor
    Py_ssize_t count
    uint64_t since_ms       # as far back as times can be packed: from the newest of all


cdef int compare_keys(const uint8_t* a, const uint8_t* b) noexcept nogil:
    """Order of two entries by CMID and SKU."""
    cdef int order = memcmp(a + LEAF_CMID, b + LEAF_CMID, ID_SIZE)
    return order if order != 0 else memcmp(a + LEAF_SKU, b + LEAF_SKU, ID_SIZE)


cdef int compare_fold_entries(const void* left, const void* right) noexcept nogil:
    cdef const FoldEntry* a = <const FoldEntry*>left
    cdef const FoldEntry* b = <const FoldEntry*>right
    cdef int order
    if a.prefix != b.prefix:
        return -1 if a.prefix < b.prefix else 1
    order = compare_keys(a.entry, b.entry)
    if order != 0:
        return order
    if a.time_ms != b.time_ms:
        return -1 if a.time_ms < b.time_ms else 1
    return -1 if a.entry < b.entry else 1


class FoldedBatch(NamedTuple):
    """The last batch that `Fold.add_batches` took: where its record lies, its number, header hash and time (ms)."""

    offset: int
    number: int
    header_hash: bytes
    time_ms: int


@cython.final
cdef class Fold:
    """Entries of batches as changes of an inventory: iterating gives one `kms_fast.store.ChangeRow` for each CMID and
    SKU, in ascending order of both, any number of times.

    Fold(room): it is full, and takes no more, when it has taken `room` entries or a few more. Raises MemoryError.
    """

    cdef uint8_t* entries
    cdef FoldEntry* sorted
    cdef Py_ssize_t count
    cdef Py_ssize_t room
    cdef bint is_sorted
    cdef FoldTotal* kinds
    cdef int kind_count
    cdef int kind_room
    cdef uint8_t* column_sets   # for a machine's first reference its number in `columns`, from 1; 0 for a row
    cdef FoldColumns[FOLD_COLUMN_SETS] columns
    cdef int columns_count
    cdef uint64_t version       # another one after each change; never 0

    def __cinit__(self, Py_ssize_t room):
        if room < 1:
            raise ValueError("a fold has room for an entry")
        self.room, self.version = room, 1
        # Memory that is not written to takes none.
        self.entries = <uint8_t*>PyMem_Malloc((<size_t>room + MAX_LEAVES) * ENTRY_SIZE)
        self.sorted = <FoldEntry*>PyMem_Malloc((<size_t>room + MAX_LEAVES) * sizeof(FoldEntry))
        self.column_sets = <uint8_t*>PyMem_Calloc(<size_t>room + MAX_LEAVES, 1)
        if self.entries == NULL or self.sorted == NULL or self.column_sets == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.entries)
        PyMem_Free(self.sorted)
        PyMem_Free(self.column_sets)
        PyMem_Free(self.kinds)

    def __len__(self) -> int:
        """How many entries were taken."""
        return self.count

    @property
    def is_full(self) -> bool:
        """Whether it takes no more."""
        return self.count >= self.room

    def clear(self) -> None:
        """Forgets all entries and keeps the memory, which is dear to get anew."""
        memset(self.column_sets, 0, self.count)
        self.count = self.kind_count = self.columns_count = 0
        self.is_sorted = False
        self.version += 1

    def add_batches(self, RecordReader reader not None, uint32_t segment, uint64_t number, bytes header_hash not None):
        """Takes the reader's further batches, which follow batch `number` of the segment and its header's hash: the
        last one taken, None when there was none. Stops before one that does not follow, and raises ValueError when it
        is the first. Raises OSError.
        """
        cdef uint8_t previous[HASH_SIZE]
        cdef const uint8_t* header
        cdef uint64_t time_ms = 0
        cdef int64_t offset = -1
        if len(header_hash) != HASH_SIZE:
            raise ValueError("the hash of a header has 32 bytes")
        memcpy(previous, <const uint8_t*>header_hash, HASH_SIZE)
        while self.count < self.room and reader.advance_to(INT64_MAX):
            header = reader.record + RECORD_HEADER
            number += 1
            if (load_u32(header + HEADER_SEGMENT) != segment or reader.number != number
                    or memcmp(header + HEADER_PREVIOUS, previous, HASH_SIZE) != 0):
                number -= 1
                reader.step_back(number)
                if offset < 0:
                    raise ValueError(f"what follows batch {segment}/{number} does not continue it")
                break
            time_ms = load_u64(header + HEADER_TIME)
            offset = reader.offset - reader.size
            self.add_entries(reader.record + RECORD_ENTRIES, reader.entries, time_ms)
            kf_sha256(header, HEADER_SIZE, previous)
        return None if offset < 0 else FoldedBatch(offset, number, previous[:HASH_SIZE], time_ms)

    cdef int add_entries(self, const uint8_t* entry, Py_ssize_t n, uint64_t time_ms) except -1:
        cdef uint8_t* copy = self.entries + self.count * ENTRY_SIZE
        cdef FoldEntry* added = self.sorted + self.count
        cdef Py_ssize_t i
        memcpy(copy, entry, n * ENTRY_SIZE)
        for i in range(n):
            added[i].prefix = swap_bytes(load_u64(copy + LEAF_CMID))
            added[i].time_ms, added[i].entry = time_ms, copy
            hash_said(copy, added[i].said)
            self.count_kind(copy)
            copy += ENTRY_SIZE
        self.count += n
        self.is_sorted = False
        self.version += 1
        return 0

    cdef int count_kind(self, const uint8_t* entry) except -1:
        """Adds an entry to the totals. There are few kinds, and mostly the first ones come again."""
        cdef uint32_t result = load_u32(entry + LEAF_RESULT)
        cdef FoldTotal* kind
        cdef void* grown
        cdef int i
        for i in range(self.kind_count):
            kind = &self.kinds[i]
            if (kind.result == result and kind.state == entry[ENTRY_STATE]
                    and memcmp(kind.sku, entry + LEAF_SKU, ID_SIZE) == 0):
                kind.requests += 1
                return 0
        if self.kind_count == self.kind_room:
            self.kind_room = max(FOLD_START_TOTALS, 2 * self.kind_room)
            grown = PyMem_Realloc(self.kinds, self.kind_room * sizeof(FoldTotal))
            if grown == NULL:
                raise MemoryError
            self.kinds = <FoldTotal*>grown
        kind = &self.kinds[self.kind_count]
        memcpy(kind.sku, entry + LEAF_SKU, ID_SIZE)
        kind.result, kind.state, kind.requests = result, entry[ENTRY_STATE], 1
        self.kind_count += 1
        return 0

    def totals(self) -> list[tuple[bytes, int, int, int]]:
        """Requests by SKU, result and licence state of the machine: (SKU, result, state, requests)."""
        cdef int i
        return [
            (self.kinds[i].sku[:ID_SIZE], self.kinds[i].result, self.kinds[i].state, self.kinds[i].requests)
            for i in range(self.kind_count)
        ]

    def sort(self) -> None:
        """Does ahead what iterating would begin with, without the interpreter lock."""
        if not self.is_sorted:
            with nogil:
                qsort(self.sorted, self.count, sizeof(FoldEntry), &compare_fold_entries)
            self.is_sorted = True

    cdef Py_ssize_t end_of_machine(self, Py_ssize_t at) noexcept nogil:
        """Where the references of the machine and SKU end that begin at `at`."""
        cdef Py_ssize_t end = at + 1
        while (end < self.count and self.sorted[end].prefix == self.sorted[at].prefix
                and compare_keys(self.sorted[end].entry, self.sorted[at].entry) == 0):
            end += 1
        return end

    def __iter__(self):
        cdef Py_ssize_t at = 0, end
        self.sort()
        while at < self.count:
            end = self.end_of_machine(at)
            yield make_change(self.sorted + at, end - at)
            at = end

    def renewals(self) -> list[Renewals]:
        """Those of its rows that are grants and nothing else, in columns; `others` gives the rest, until more is added.
        """
        cdef Py_ssize_t at = 0, end
        cdef int number
        self.sort()
        memset(self.column_sets, 0, self.count)
        self.columns_count = 0
        self.version += 1
        while at < self.count:
            end = self.end_of_machine(at)
            self.column_sets[at] = self.find_columns(at, end)
            at = end
        return [Renewals(self, number) for number in range(self.columns_count)]

    cdef uint8_t find_columns(self, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
        """The number of the columns that a machine's references belong to, counted from 1; 0 for none."""
        cdef const uint8_t* newest = self.sorted[end - 1].entry
        cdef uint64_t newest_ms = self.sorted[end - 1].time_ms
        cdef bint has_predecessor = not is_zero(newest + ENTRY_PREDECESSOR, HASH_SIZE)
        cdef FoldColumns* columns
        cdef Py_ssize_t i
        if end - at > COLUMN_MOST_GRANTS:
            return 0
        for i in range(at, end):
            if (load_u32(self.sorted[i].entry + LEAF_RESULT) != GRANTED
                    or memcmp(self.sorted[i].entry + LEAF_HARDWARE, newest + LEAF_HARDWARE, ID_SIZE) != 0):
                return 0
        for i in range(self.columns_count):
            columns = &self.columns[i]
            if (columns.has_predecessor == has_predecessor
                    and memcmp(columns.entry + LEAF_SKU, newest + LEAF_SKU, ID_SIZE) == 0
                    and load_u32(columns.entry + LEAF_VALIDITY) == load_u32(newest + LEAF_VALIDITY)):
                columns.count += 1
                columns.since_ms = max(columns.since_ms, first_packed_ms(newest_ms))
                return <uint8_t>(i + 1)
        if self.columns_count == FOLD_COLUMN_SETS:
            return 0
        columns = &self.columns[self.columns_count]
        columns.entry, columns.has_predecessor = newest, has_predecessor
        columns.count, columns.since_ms = 1, first_packed_ms(newest_ms)
        self.columns_count += 1
        return <uint8_t>self.columns_count

    def others(self):
        """The rows that the columns of the last `renewals` do not hold, as iterating gives them."""
        cdef Py_ssize_t at = 0, end
        while at < self.count:
            end = self.end_of_machine(at)
            if not self.column_sets[at]:
                yield make_change(self.sorted + at, end - at)
            at = end
