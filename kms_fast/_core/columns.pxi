# Columns of a fold: machines that were granted and nothing else, without an object for each.
#
# Whoever keeps an inventory finds its ids for a set of CMIDs, in the order of these; what is added to each machine
# comes back in the order of the ids, in which the inventory lies on disk.

cdef enum:
    COLUMN_TIME_BITS = 26       # 18 hours in ms
    COLUMN_MOST_GRANTS = 1 << 6
    COLUMN_LAST_ID = 0x7fffffff


cdef inline uint64_t first_packed_ms(uint64_t newest_ms) noexcept nogil:
    """The earliest time that can be packed together with this one."""
    return newest_ms - min(newest_ms, <uint64_t>(1 << COLUMN_TIME_BITS) - 1)


cdef int compare_u64(const void* left, const void* right) noexcept nogil:
    cdef uint64_t a = (<const uint64_t*>left)[0]
    cdef uint64_t b = (<const uint64_t*>right)[0]
    return (a > b) - (a < b)


class Grants(NamedTuple):
    """What `Renewals.grants` adds to machines, in ascending order of their ids in an inventory.

    `packed`: 8 bytes for each, native order: id (31 bits), how many grants less one (6), ms from `since_ms` to the
    newest (26). `predecessors`: 32 bytes for each, of the newest; None when none has one.
    """

    validity_ms: int
    since_ms: int
    packed: bytes
    predecessors: bytes | None


@cython.final
cdef class Renewals:
    """Some machines of a fold that were granted and nothing else, all for one SKU: for each in ascending order of the
    CMID the time (ms) of its first grant there (8 bytes, native order), its CMID (16), what it said last (8).

    `Fold.renewals` makes them; they are good for one call of `grants`, until the fold changes. Raises IndexError for a
    set that it has not.
    """

    cdef Fold fold
    cdef int number
    cdef uint64_t version
    cdef readonly bytes sku
    cdef readonly bytes first_ms
    cdef readonly bytes cmids
    cdef readonly bytes said

    def __cinit__(self, Fold fold not None, int number):
        cdef FoldColumns* columns
        cdef Py_ssize_t at, end, i = 0
        if not 0 <= number < fold.columns_count:
            raise IndexError(f"the fold has {fold.columns_count} sets of columns")
        columns = &fold.columns[number]
        self.fold, self.number, self.version = fold, number, fold.version
        self.sku = (columns.entry + LEAF_SKU)[:ID_SIZE]
        self.first_ms = PyBytes_FromStringAndSize(NULL, 8 * columns.count)
        self.cmids = PyBytes_FromStringAndSize(NULL, ID_SIZE * columns.count)
        self.said = PyBytes_FromStringAndSize(NULL, SAID_SIZE * columns.count)
        for at in range(fold.count):
            if fold.column_sets[at] != number + 1:
                continue
            end = fold.end_of_machine(at)
            memcpy(<uint8_t*>self.first_ms + 8 * i, &fold.sorted[at].time_ms, 8)
            memcpy(<uint8_t*>self.cmids + ID_SIZE * i, fold.sorted[at].entry + LEAF_CMID, ID_SIZE)
            memcpy(<uint8_t*>self.said + SAID_SIZE * i, fold.sorted[end - 1].said, SAID_SIZE)
            i += 1

    def grants(self, list ids not None) -> Grants:
        """What to add to the machines by their ids, one for each. Those of id 0 and what cannot be packed are in
        `Fold.others` from now on. Raises ValueError when there are more or fewer ids than machines, when the fold has
        changed, and the second time; then nothing is changed.
        """
        cdef FoldColumns* columns = &self.fold.columns[self.number]
        cdef uint64_t* keys
        cdef Py_ssize_t i
        if self.version != self.fold.version:
            raise ValueError("these grants were taken, or the fold has changed")
        if columns.count != len(ids):
            raise ValueError(f"there are {columns.count} machines, and {len(ids)} ids for them")
        keys = <uint64_t*>PyMem_Malloc(columns.count * sizeof(uint64_t))
        if keys == NULL:
            raise MemoryError
        try:
            for i, id in enumerate(list(ids)):  # a copy: to make a number of what is none may change the list
                keys[i] = id
            self.version = 0
            self.choose(keys)
            qsort(keys, columns.count, sizeof(uint64_t), &compare_u64)
            return self.pack(keys)
        finally:
            PyMem_Free(keys)

    cdef void choose(self, uint64_t* keys) noexcept nogil:
        """Makes keys of ids: an id, and in the lower half where its machine's references begin. What has none is a row
        of the fold again.
        """
        cdef FoldColumns* columns = &self.fold.columns[self.number]
        cdef Py_ssize_t at, end, n = 0, i = 0
        for at in range(self.fold.count):
            if self.fold.column_sets[at] != self.number + 1:
                continue
            end = self.fold.end_of_machine(at)
            if 0 < keys[i] <= COLUMN_LAST_ID and self.fold.sorted[end - 1].time_ms >= columns.since_ms:
                keys[n] = keys[i] << 32 | <uint64_t>at
                n += 1
            else:
                self.fold.column_sets[at] = 0
            i += 1
        columns.count = n

    cdef object pack(self, const uint64_t* keys):
        """Grants of the machines by their keys, in the order of these."""
        cdef FoldColumns* columns = &self.fold.columns[self.number]
        cdef bytes packed = PyBytes_FromStringAndSize(NULL, 8 * columns.count)
        cdef bytes predecessors = PyBytes_FromStringAndSize(
            NULL, HASH_SIZE * columns.count if columns.has_predecessor else 0
        )
        cdef uint64_t* out = <uint64_t*><uint8_t*>packed
        cdef const FoldEntry* newest
        cdef Py_ssize_t at, end, i
        for i in range(columns.count):
            at = <uint32_t>keys[i]
            end = self.fold.end_of_machine(at)
            newest = &self.fold.sorted[end - 1]
            out[i] = (keys[i] >> 32 << 32 | <uint64_t>(end - at - 1) << COLUMN_TIME_BITS
                      | (newest.time_ms - columns.since_ms))
            if columns.has_predecessor:
                memcpy(<uint8_t*>predecessors + HASH_SIZE * i, newest.entry + ENTRY_PREDECESSOR, HASH_SIZE)
        return Grants(
            MINUTE_MS * <uint64_t>load_u32(columns.entry + LEAF_VALIDITY),
            columns.since_ms,
            packed,
            predecessors if columns.has_predecessor else None,
        )
