# The machines that count towards one family's threshold, newest first, never more than the cap.
#
# A hash table over an array of at most `cap` machines, which a doubly linked list keeps in order of their last
# request. The object owns both arrays. Nothing raises but the constructor; durability is the store's business
# (docs/architecture.md).

cdef struct Machine:
    uint8_t cmid[ID_SIZE]
    uint64_t seen_ms
    int32_t newer      # towards the newest, -1 at the end
    int32_t older      # towards the oldest, -1 at the end
    int32_t chained    # next in the same bucket, -1 at the end


@cython.final
cdef class FamilyCount:
    """Distinct CMIDs of one family, at most `cap`, each for `retention_ms` after its last request.

    FamilyCount(threshold, cap, retention_ms). At the cap a new machine replaces the oldest. Raises ValueError unless
    1 <= threshold <= cap, MemoryError.
    """

    cdef readonly uint32_t threshold
    cdef readonly uint32_t cap
    cdef readonly uint64_t retention_ms
    cdef Machine* machines
    cdef int32_t* buckets
    cdef uint64_t seed
    cdef uint32_t mask
    cdef int32_t count
    cdef int32_t newest
    cdef int32_t oldest
    cdef int32_t free

    def __cinit__(self, uint32_t threshold, uint32_t cap, uint64_t retention_ms):
        if not 1 <= threshold <= cap <= 1 << 24:
            raise ValueError(f"a family's cap ({cap}) is at least its threshold ({threshold}), which is at least 1")
        self.threshold, self.cap, self.retention_ms = threshold, cap, retention_ms
        self.mask = 1
        while self.mask < 2 * cap:
            self.mask <<= 1
        self.machines = <Machine*>PyMem_Malloc(cap * sizeof(Machine))
        self.buckets = <int32_t*>PyMem_Malloc(self.mask * sizeof(int32_t))
        if self.machines == NULL or self.buckets == NULL:
            raise MemoryError
        self.mask -= 1
        # Whoever holds a setup key chooses CMIDs; the seed (odd, so that it mixes) keeps them from choosing the bucket.
        self.seed = int.from_bytes(os.urandom(8), "little") | 1
        self.clear()

    def __dealloc__(self):
        PyMem_Free(self.machines)
        PyMem_Free(self.buckets)

    cdef void clear(self) noexcept:
        memset(self.buckets, 0xFF, (<size_t>self.mask + 1) * sizeof(int32_t))
        self.count = 0
        self.newest = self.oldest = self.free = -1

    cdef inline int32_t* bucket(self, const uint8_t* cmid) noexcept:
        cdef uint64_t mixed = (load_u64(cmid) ^ self.seed) * self.seed + load_u64(cmid + 8)
        mixed = (mixed ^ (mixed >> 29)) * self.seed
        return &self.buckets[(mixed >> 32) & self.mask]

    cdef int32_t find(self, const uint8_t* cmid) noexcept:
        cdef int32_t at = self.bucket(cmid)[0]
        while at >= 0 and memcmp(self.machines[at].cmid, cmid, ID_SIZE) != 0:
            at = self.machines[at].chained
        return at

    cdef void unlink(self, int32_t at) noexcept:
        cdef int32_t newer = self.machines[at].newer, older = self.machines[at].older
        if newer >= 0:
            self.machines[newer].older = older
        else:
            self.newest = older
        if older >= 0:
            self.machines[older].newer = newer
        else:
            self.oldest = newer

    cdef void push_newest(self, int32_t at) noexcept:
        self.machines[at].newer = -1
        self.machines[at].older = self.newest
        if self.newest >= 0:
            self.machines[self.newest].newer = at
        else:
            self.oldest = at
        self.newest = at

    cdef void drop_oldest(self) noexcept:
        cdef int32_t at = self.oldest
        cdef int32_t* link = self.bucket(self.machines[at].cmid)
        while link[0] != at:
            link = &self.machines[link[0]].chained
        link[0] = self.machines[at].chained
        self.unlink(at)
        self.machines[at].chained = self.free
        self.free = at
        self.count -= 1

    cdef void expire(self, uint64_t now_ms) noexcept:
        """Forgets machines whose last request is older than the retention."""
        while self.oldest >= 0 and self.machines[self.oldest].seen_ms + self.retention_ms < now_ms:
            self.drop_oldest()

    cdef bint touch(self, const uint8_t* cmid, uint64_t now_ms) noexcept:
        """Notes a request of this machine; whether it is new. At the cap a new one replaces the oldest."""
        cdef int32_t at = self.find(cmid)
        cdef bint is_new = at < 0
        cdef int32_t* link
        if is_new:
            if self.count == <int32_t>self.cap:
                self.drop_oldest()
            if self.free >= 0:
                at = self.free
                self.free = self.machines[at].chained
            else:
                at = self.count
            link = self.bucket(cmid)
            memcpy(self.machines[at].cmid, cmid, ID_SIZE)
            self.machines[at].chained = link[0]
            link[0] = at
            self.count += 1
        else:
            self.unlink(at)
        self.machines[at].seen_ms = now_ms
        self.push_newest(at)
        return is_new

    def load(self, list rows not None) -> None:
        """Replaces all machines by `rows` of (CMID, last seen in ms), oldest first."""
        cdef bytes cmid
        self.clear()
        for cmid, seen_ms in rows:
            if len(cmid) != ID_SIZE:
                raise ValueError("a CMID has 16 bytes")
            self.touch(cmid, seen_ms)

    def rows_since(self, uint64_t since_ms) -> list[tuple[bytes, int]]:
        """(CMID, last seen in ms) of the machines seen at or after `since_ms`, oldest first."""
        cdef int32_t at = self.newest
        rows = []
        while at >= 0 and self.machines[at].seen_ms >= since_ms:
            rows.append((self.machines[at].cmid[:ID_SIZE], self.machines[at].seen_ms))
            at = self.machines[at].older
        rows.reverse()
        return rows

    def see(self, bytes cmid not None, uint64_t now_ms) -> bool:
        """Notes a request of a machine; whether it is new. Raises ValueError for a CMID that has not 16 bytes."""
        if len(cmid) != ID_SIZE:
            raise ValueError("a CMID has 16 bytes")
        return self.touch(cmid, now_ms)

    def current(self, uint64_t now_ms) -> int:
        """The count at `now_ms`: machines seen within the retention, at most the cap."""
        self.expire(now_ms)
        return self.count
