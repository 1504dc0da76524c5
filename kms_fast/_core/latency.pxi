# Latency histogram: log-linear counts in a fixed array, as HdrHistogram has them; recording costs a few instructions.
#
# A value below 256 ns has a bucket of its own; above, every power of two is divided into 128 buckets, so a bucket is
# at most 1/128 of its value wide. Values beyond 2^41 ns (36 minutes) share the last bucket; the maximum is kept
# exactly. Nothing here allocates after construction; recording cannot fail.

cdef extern from * nogil:
    int leading_zeros "__builtin_clzll"(unsigned long long value)

cdef enum:
    LATENCY_BUCKET_BITS = 7
    LATENCY_VALUE_BITS = 41
    LATENCY_BUCKETS = (LATENCY_VALUE_BITS - LATENCY_BUCKET_BITS + 1) << LATENCY_BUCKET_BITS


cdef inline size_t find_latency_bucket(uint64_t ns) noexcept nogil:
    cdef int exponent
    if ns >> LATENCY_VALUE_BITS != 0:
        return LATENCY_BUCKETS - 1
    if ns >> (LATENCY_BUCKET_BITS + 1) == 0:
        return <size_t>ns
    exponent = 63 - LATENCY_BUCKET_BITS - leading_zeros(ns)
    return (<size_t>exponent << LATENCY_BUCKET_BITS) + <size_t>(ns >> exponent)


cdef inline uint64_t highest_in_bucket(size_t bucket) noexcept nogil:
    cdef int exponent
    if bucket >> (LATENCY_BUCKET_BITS + 1) == 0:
        return bucket
    exponent = <int>(bucket >> LATENCY_BUCKET_BITS) - 1
    return ((<uint64_t>bucket - (<uint64_t>exponent << LATENCY_BUCKET_BITS) + 1) << exponent) - 1


@cython.final
cdef class LatencyHistogram:
    """Counts of latencies in nanoseconds, exact to 1/128."""

    cdef uint64_t buckets[LATENCY_BUCKETS]
    cdef readonly uint64_t count
    cdef readonly uint64_t max_ns

    cdef inline void add(self, uint64_t ns) noexcept:
        self.buckets[find_latency_bucket(ns)] += 1
        self.count += 1
        if ns > self.max_ns:
            self.max_ns = ns

    def record(self, uint64_t ns) -> None:
        """Counts one latency."""
        self.add(ns)

    def percentile_ns(self, double percent) -> int:
        """The smallest latency, to the upper edge of its bucket, that `percent` of all do not exceed; 0 when empty.

        Raises ValueError for a percentage outside 0 … 100.
        """
        cdef uint64_t rank, seen = 0
        cdef size_t bucket
        if not 0 <= percent <= 100:
            raise ValueError(f"a percentile lies between 0 and 100, not at {percent}")
        # 99.9 is not exact in binary: without the margin its product could round up to the next rank
        rank = max(<uint64_t>1, <uint64_t>math.ceil(percent * self.count / 100 - 1e-6))
        for bucket in range(<size_t>LATENCY_BUCKETS):
            seen += self.buckets[bucket]
            if seen >= rank:
                return min(self.max_ns, highest_in_bucket(bucket))
        return self.max_ns

    def counts(self) -> list[tuple[int, int]]:
        """The buckets that are not empty, as (highest latency in ns, count) in ascending order."""
        return [(highest_in_bucket(i), self.buckets[i]) for i in range(<size_t>LATENCY_BUCKETS) if self.buckets[i] != 0]

    def merge(self, counts, uint64_t max_ns) -> None:
        """Adds what another histogram's `counts()` and `max_ns` hold."""
        cdef uint64_t ns, count
        for ns, count in counts:
            self.buckets[find_latency_bucket(ns)] += count
            self.count += count
        self.max_ns = max(self.max_ns, max_ns)
