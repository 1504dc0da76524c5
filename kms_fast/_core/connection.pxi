# The server's side of a connection as asyncio sees it, and the host that all connections share.
#
# `Connection` is the whole I/O shell: bytes from the transport go into Session.receive, which calls `on_request`;
# what the session or a batch has to say goes to the transport. `Host` admits requests to the batch that is filling.
# The event loop's thread is the only one here. Exceptions are bugs or a lack of memory; peers cannot cause any.

cdef enum:
    MAX_PENDING = 256       # requests of one connection that may wait; reading pauses there and goes on at half of it
    MAX_LISTS_BYTES = 1 << 16    # of one read's answers, past which no revocation list is added: they outweigh queries
    SWEEPS_TO_IDLE = 4
    OPNUM_GET_REVOCATIONS = 2


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
                connection.transport.close()
            elif connection.idle_sweeps >= 2 * SWEEPS_TO_IDLE:
                connection.transport.abort()

    def close_connections(self) -> None:
        """Closes every connection once its written answers are out."""
        cdef Connection connection
        for connection in list(self.connections):
            connection.transport.close()

    def counters(self) -> dict[str, int]:
        """Totals since start, by name."""
        counted = dict(self.counted)
        counted["open_connections"] = len(self.connections)
        return counted


@cython.final
cdef class Connection(Session):
    """asyncio protocol of one connection: a DCE/RPC session whose requests go to the host's batches."""

    cdef Host host
    cdef readonly object transport
    cdef uint8_t peer[ID_SIZE + 2]
    cdef int pending
    cdef int idle_sweeps
    cdef bint paused
    cdef bint unread        # the peer does not take what was written to it
    cdef bint ended

    def __init__(self, Host host not None, str port not None="1688"):
        Session.__init__(self, host.rpc, port, host.next_association_group())
        self.host = host

    def connection_made(self, transport) -> None:
        """The transport is there; past the host's limit of connections it is closed at once."""
        cdef bytes peer = pack_peer(transport.get_extra_info("peername"))
        memcpy(self.peer, <const uint8_t*>peer, ID_SIZE + 2)
        if len(self.host.connections) >= self.host.max_connections:
            self.host.counted.connections_refused += 1
            transport.abort()
            return
        self.transport = transport
        self.host.connections.add(self)
        self.host.counted.connections += 1

    def data_received(self, bytes data) -> None:
        """Bytes from the peer: whole PDUs are worked off at once, the rest is kept."""
        cdef uint64_t pdus = self.counters.pdus
        if self.transport is None:
            return
        self.receive(data)
        if self.counters.pdus != pdus:
            self.idle_sweeps = 0
        if self.output is not None:
            self.transport.write(self.take_output())
        if self.foreign_interface is not None:
            self.host.on_foreign(self.foreign_interface, self.peer[:ID_SIZE + 2])
            self.foreign_interface = None
        if self.phase == CLOSING:
            self.transport.close()
        elif self.pending >= MAX_PENDING:
            self.pause()

    def eof_received(self) -> bool:
        """The peer sends no more; the connection stays until its answers are out."""
        self.ended = True
        return self.pending > 0

    def connection_lost(self, exc) -> None:
        """The connection is gone; answers that are still on their way are dropped."""
        self.transport = None
        self.host.connections.discard(self)

    def pause_writing(self) -> None:
        """The peer does not read its answers, so it gets to ask no more."""
        self.unread = True
        self.pause()

    def resume_writing(self) -> None:
        """The peer reads again."""
        self.unread = False
        if self.pending < MAX_PENDING:
            self.resume()

    cdef int pause(self) except -1:
        if not self.paused and self.transport is not None and not self.transport.is_closing():
            self.paused = True
            self.transport.pause_reading()
        return 0

    cdef int resume(self) except -1:
        if self.paused and not self.unread and self.transport is not None and not self.transport.is_closing():
            self.paused = False
            self.transport.resume_reading()
        return 0

    cdef int on_request(self, uint32_t call_id, uint16_t context_id, uint16_t opnum, const uint8_t* argument,
                        Py_ssize_t n) except -1:
        cdef uint32_t result
        if opnum == OPNUM_GET_REVOCATIONS:
            return self.answer_revocation_query(call_id, context_id, argument, n)
        result = self.host.admit(self, call_id, context_id, argument, n)
        if result:
            return self.send(build_unsigned_answer(call_id, context_id, result))
        self.pending += 1
        return 0

    cdef int answer_revocation_query(self, uint32_t call_id, uint16_t context_id, const uint8_t* query,
                                     Py_ssize_t n) except -1:
        """Answers with the newest list when it is newer than the one named (docs/protocol.md, "Revocations")."""
        cdef AdmissionTable table = self.host.table
        if n != QUERY_SIZE or query[0] != 1 or query[1] != MESSAGE_QUERY or load_u16(query + 2) != 0:
            self.respond(call_id, context_id, None, REQUEST_UNREADABLE)
        elif table is None:
            self.respond(call_id, context_id, None, HOST_NOT_ACTIVATED)
        elif table.revocation_number() <= load_u32(query + QUERY_NUMBER):
            self.respond(call_id, context_id, None, GRANTED)
        elif self.output is not None and len(self.output) > MAX_LISTS_BYTES:
            self.respond(call_id, context_id, None, SERVER_BUSY)
        else:
            self.respond(call_id, context_id, table.revocations, GRANTED)
        return 0

    cdef int deliver(self, bytes pdu) except -1:
        """Writes the answer to one waiting request."""
        self.pending -= 1
        self.transport.write(pdu)
        if self.ended and self.pending == 0:
            self.transport.close()
        elif self.paused and self.pending == MAX_PENDING // 2:
            self.resume()
        return 0


def pack_peer(peername) -> bytes:
    """A peer's address in 18 bytes: IPv6 or IPv4-mapped address (16), port (2). Zeros for a peer without an IP
    address.
    """
    if not isinstance(peername, tuple):
        return bytes(18)
    address = ip_address(peername[0].partition("%")[0])
    packed = address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed
    return packed + peername[1].to_bytes(2, "little")


def unpack_peer(bytes peer not None) -> str:
    """The address in `pack_peer`'s first 16 bytes, as people write it."""
    address = ip_address(peer[:16])
    return str(address.ipv4_mapped or address)
