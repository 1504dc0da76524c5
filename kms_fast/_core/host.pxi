# The host that all connections share: it admits requests to the batch that is filling, keeps limits and counts.
#
# It owns the batches that wait and a reference to each open connection. The event loop's thread is the only one here.

cdef class Connection


cdef enum:
    SWEEPS_TO_IDLE = 4


cdef struct HostCounters:
    uint64_t requests
    uint64_t unreadable
    uint64_t product_unknown
    uint64_t busy
    uint64_t refused_by_host
    uint64_t connections
    uint64_t connections_refused
    uint64_t idle_closed


@cython.final
cdef class Host:
    """What all connections of a server share: the admission table, the batch that fills, limits and counters.

    Host(on_waiting, on_foreign): `on_waiting()` is called when the first request begins to wait, and again when as
    many wait as connections are open (nobody is left to wait for); `on_foreign(uuid, peer)` when a bind asked for
    another interface. Until `use_table` every request is refused.
    """

    cdef readonly AdmissionTable table
    cdef readonly int waiting
    cdef readonly set connections
    cdef readonly RpcCounters rpc
    cdef uint32_t association_group
    cdef public uint32_t refusal
    cdef Batch filling
    cdef object full
    cdef object on_waiting
    cdef object on_foreign
    cdef int max_waiting
    cdef int max_connections
    cdef bint record_names
    cdef HostCounters counted

    def __cinit__(self, object on_waiting, object on_foreign):
        self.on_waiting, self.on_foreign = on_waiting, on_foreign
        self.connections = set()
        self.rpc = RpcCounters()
        self.full = deque()
        self.refusal = HOST_NOT_ACTIVATED

    def use_limits(self, int max_waiting, int max_connections, bint record_names) -> None:
        """From now on at most so many requests wait, so many connections are open, and names are recorded or not."""
        self.max_waiting, self.max_connections, self.record_names = max_waiting, max_connections, record_names

    def use_table(self, AdmissionTable table not None) -> None:
        """Decides by `table` from the next batch on. Ends the refusal of a host that had none."""
        if self.filling is not None and self.filling.size > 0:
            self.full.append(self.filling)
        self.filling = None
        self.table = table
        if self.refusal == HOST_NOT_ACTIVATED:
            self.refusal = 0

    cdef uint32_t next_association_group(self) noexcept:
        """A nonzero number, another one for each connection until it wraps."""
        self.association_group = self.association_group % 0xFFFFFFFF + 1
        return self.association_group

    def take_batch(self) -> Batch | None:
        """The oldest batch with waiting requests, or None."""
        cdef Batch batch
        if self.full:
            batch = self.full.popleft()
        else:
            batch, self.filling = self.filling, None
            if batch is None:
                return None
        self.waiting -= batch.size
        return batch

    cdef uint32_t admit(self, Connection connection, uint32_t call_id, uint16_t context_id, const uint8_t* argument,
                        Py_ssize_t n) except? 1:
        """Takes a request into the filling batch: 0, or the unsigned result that refuses it."""
        cdef uint32_t result
        self.counted.requests += 1
        if n != REQUEST_SIZE:
            self.counted.unreadable += 1
            return REQUEST_UNREADABLE
        if self.refusal:
            self.counted.refused_by_host += 1
            return self.refusal
        if self.waiting >= self.max_waiting:
            self.counted.busy += 1
            return SERVER_BUSY
        if self.filling is None:
            self.filling = Batch(self.table)
        result = self.filling.admit(connection, call_id, context_id, argument, connection.peer, self.record_names)
        if result:
            self.counted.unreadable += result == REQUEST_UNREADABLE
            self.counted.product_unknown += result == PRODUCT_UNKNOWN
            return result
        self.waiting += 1
        if self.filling.size == MAX_LEAVES:
            self.full.append(self.filling)
            self.filling = None
        if self.waiting == 1 or self.waiting == len(self.connections):
            self.on_waiting()
        return 0

    def sweep(self) -> None:
        """Closes connections that sent no whole PDU in the last four sweeps and wait for nothing.

        One that does not take what was written to it is cut off after as many sweeps again.
        """
        cdef Connection connection
        for connection in list(self.connections):
            if connection.pending > 0:
                continue
            connection.idle_sweeps += 1
            if connection.idle_sweeps == SWEEPS_TO_IDLE:
                self.counted.idle_closed += 1
                connection.end()
            elif connection.idle_sweeps >= 2 * SWEEPS_TO_IDLE:
                connection.close()

    def close_connections(self) -> None:
        """Closes every connection once its written answers are out."""
        cdef Connection connection
        for connection in list(self.connections):
            connection.end()

    def counters(self) -> dict[str, int]:
        """Totals since start, by name."""
        counted = dict(self.counted)
        counted["open_connections"] = len(self.connections)
        return counted
