# One connection of the server: a DCE/RPC session on a socket.
#
#   watched for     when
#   KF_WRITE        answers wait that the peer does not take: it gets to ask no more until it does
#   nothing         MAX_PENDING of its requests wait for batches, or its side has ended
#   KF_READ         otherwise
#
# A Connection owns its descriptor; the host's set holds the object for as long as that is open. Exceptions are bugs or
# a lack of memory; peers cannot cause any.

cdef enum:
    MAX_PENDING = 256       # requests of one connection that may wait; reading pauses there and goes on at half of it
    MAX_LISTS_BYTES = 1 << 16    # of one read's answers, past which no revocation list is added: they outweigh queries
    OPNUM_GET_REVOCATIONS = 2
    PEER_SIZE = ID_SIZE + 2


@cython.final
cdef class Connection(Session):
    """A connection, made by `Poller`: requests go to the host's batches, answers to the socket."""

    cdef Host host
    cdef Poller poller
    cdef readonly int fd    # -1 when it is closed
    cdef int watched        # what the poller watches it for
    cdef int pending        # requests in batches
    cdef int idle_sweeps
    cdef uint8_t peer[PEER_SIZE]
    cdef bint paused
    cdef bint ended         # the peer sends no more
    cdef bint closing       # as soon as the output is out

    def __cinit__(self):
        self.fd = -1

    def __init__(self, *args, **kwargs):
        raise TypeError("connections are made by a Poller")

    def __dealloc__(self):
        if self.fd >= 0:
            close_descriptor(self.fd)

    @property
    def is_read(self):
        """Whether what the peer sends is read at present."""
        return self.fd >= 0 and self.watched & KF_READ != 0

    cdef int on_ready(self, int what) except -1:
        """Something arrived, or there is room for output again, or the connection is gone."""
        cdef ssize_t got
        if self.fd < 0:
            return 0        # closed by what came before it in this round
        if what & KF_READ and self.watched & KF_READ:
            got = kf_receive(self.fd, self.poller.buffer, READ_SIZE)
            if got > 0:
                # More may be there, which the poller does not tell of by itself.
                if (got == READ_SIZE or what & KF_ENDED) and self.watch(KF_READ) < 0:
                    return self.close()
                return self.take(self.poller.buffer, got)
            if got < 0:
                return 0 if errno == EAGAIN else self.close()
            self.ended = True
        elif what & KF_BROKEN:
            return self.close()
        return self.go_on()

    def receive_from_peer(self, bytes data not None) -> None:
        """Takes bytes as if they had been read from the socket: for tests, and to measure without reading."""
        self.take(data, len(data))

    cdef int take(self, const uint8_t* data, Py_ssize_t n) except -1:
        """Works off whole PDUs at once and keeps the rest."""
        cdef uint64_t pdus = self.counters.pdus
        self.read(data, n)
        if self.counters.pdus != pdus:
            self.idle_sweeps = 0
        if self.foreign_interface is not None:
            self.host.on_foreign(self.foreign_interface, self.peer[:PEER_SIZE])
            self.foreign_interface = None
        if self.phase == CLOSING:
            self.closing = True
        elif self.pending >= MAX_PENDING:
            self.paused = True
        return self.go_on()

    cdef int go_on(self) except -1:
        """Sends what waits, closes what has come to its end, and watches for what may come next."""
        cdef int wanted
        if self.output is not None and self.send_output() < 0:
            return self.close()
        if self.output is not None:
            wanted = KF_WRITE
        elif self.closing or (self.ended and self.pending == 0):
            return self.close()
        else:
            wanted = 0 if self.paused or self.ended else KF_READ
        if wanted != self.watched and self.watch(wanted) < 0:
            return self.close()
        return 0

    cdef int watch(self, int wanted) noexcept:
        """What the poller is to tell of, also when it has told it before; -1 when it cannot."""
        cdef int before = self.watched
        self.watched = wanted
        return kf_poller_watch(self.poller.fd, self.fd, <void*>self, before, wanted)

    cdef int send_output(self) except -2:
        """Sends as much of the output as the peer takes; -1 when the connection is gone."""
        cdef Py_ssize_t n = len(self.output)
        cdef ssize_t sent = kf_send(self.fd, <const uint8_t*>PyByteArray_AS_STRING(self.output), n)
        if sent == n:
            self.output = None
        elif sent > 0:
            del self.output[:sent]
        return -1 if sent < 0 else 0

    cdef int deliver(self, const uint8_t* pdu, Py_ssize_t n) except -1:
        """Sends the answer to one waiting request."""
        cdef ssize_t sent
        self.pending -= 1
        if self.closing:
            return 0
        if self.pending <= MAX_PENDING // 2:
            self.paused = False
        if self.output is not None:
            self.output += pdu[:n]      # the poller tells when there is room
            return 0
        sent = kf_send(self.fd, pdu, n)
        if sent < 0:
            return self.close()
        if sent < n:
            self.output = bytearray(pdu[sent:n])
        elif self.watched & KF_READ and not self.ended:
            return 0
        return self.go_on()

    cdef int end(self) except -1:
        """Closes the connection once its written answers are out."""
        self.closing = True
        return self.go_on()

    cdef int close(self) except -1:
        """Closes the connection now; answers that are still on their way are dropped."""
        if self.fd >= 0:
            close_descriptor(self.fd)
            self.fd = -1
            self.output = None
            # The poller may still point to it until this round of what is ready has come to its end.
            self.poller.closed.append(self)
            self.host.connections.discard(self)
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


def unpack_peer(bytes peer not None) -> str:
    """The address in the first 16 bytes of a peer, IPv6 or IPv4-mapped, as people write it."""
    address = ip_address(peer[:16])
    return str(address.ipv4_mapped or address)
