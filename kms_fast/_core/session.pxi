# Server side of one DCE/RPC connection, sans-I/O (C706 chapter 12, MS-RPCE 3.3.1.5; docs/rpc.md).
#
# Rules
#
#   phase     bind         alter_context   request   co_cancel, orphaned   other types
#   UNBOUND   → BOUND      refuse          refuse    refuse                refuse
#   BOUND     refuse       negotiate       call      note                  refuse
#   CLOSING   whatever arrives is ignored
#
#   refuse    a bind_nak if the PDU is a bind, otherwise a fault; → CLOSING. `refusals` has reason, status and name.
#   call      fragments of one request come in order, no other request between them (MS-RPCE 3.3.1.5.8). A complete
#             request goes to `on_request`; one for an unknown context or operation, or with a bad stub, gets a fault
#             and the connection goes on.
#   A PDU's header is judged as soon as its 16 octets are there, the rest when it is complete: how the stream is cut
#   into reads never changes an answer.
#
# Memory: whole PDUs are read where they lie in the argument of `read`; what is left over (less than one PDU) is kept as
# bytes, a request in fragments as a bytearray of at most MAX_STUB_SIZE. The pointer given to `on_request` is valid
# during that call. Bad input never raises; MemoryError and what a subclass's hook raises do, and the session is then of
# no further use.

cdef enum:
    UNBOUND = 0
    BOUND = 1
    CLOSING = 2

    MAX_STUB_SIZE = REQUEST_STUB_HEADER_SIZE + MAX_ARGUMENT_SIZE + MAX_PADDING_SIZE
    MAX_ADDRESS_SIZE = 6                # a port in digits and a NUL
    SERVED_OPNUMS = 1 << 0 | 1 << 2     # Activate and GetRevocations; Release is reserved

cdef enum:      # why a connection was refused: indexes of `refusals`
    REFUSED_VERSION
    REFUSED_DATA_REPRESENTATION
    REFUSED_FRAGMENT_LENGTH
    REFUSED_AUTHENTICATION
    REFUSED_OUT_OF_TURN
    REFUSED_MALFORMED
    REFUSED_FRAGMENT_ORDER
    REFUSED_TOO_LARGE
    REFUSAL_COUNT

cdef struct RefusalRule:
    uint16_t nak_reason         # when a bind is refused
    uint32_t fault_status       # when another PDU is refused; 0: closed without an answer
    const char* name

cdef RefusalRule[REFUSAL_COUNT] refusals
refusals[REFUSED_VERSION] = RefusalRule(NAK_PROTOCOL_VERSION, 0, "version")
refusals[REFUSED_DATA_REPRESENTATION] = RefusalRule(NAK_NOT_SPECIFIED, FAULT_PROTOCOL_ERROR, "data representation")
refusals[REFUSED_FRAGMENT_LENGTH] = RefusalRule(NAK_NOT_SPECIFIED, FAULT_PROTOCOL_ERROR, "fragment length")
refusals[REFUSED_AUTHENTICATION] = RefusalRule(NAK_AUTHENTICATION_TYPE, FAULT_ACCESS_DENIED, "authentication")
refusals[REFUSED_OUT_OF_TURN] = RefusalRule(NAK_NOT_SPECIFIED, FAULT_PROTOCOL_ERROR, "out of turn")
refusals[REFUSED_MALFORMED] = RefusalRule(NAK_NOT_SPECIFIED, FAULT_PROTOCOL_ERROR, "malformed")
refusals[REFUSED_FRAGMENT_ORDER] = RefusalRule(NAK_NOT_SPECIFIED, FAULT_PROTOCOL_ERROR, "fragment order")
refusals[REFUSED_TOO_LARGE] = RefusalRule(NAK_LOCAL_LIMIT_EXCEEDED, FAULT_BAD_STUB_DATA, "too large")

ctypedef int (*PduHandler)(Session, const uint8_t*, Py_ssize_t) except -1

cdef struct PduRule:
    uint8_t phase               # in which the type is allowed
    uint16_t min_size
    PduHandler handle

cdef PduRule[PTYPE_COUNT] pdu_rules     # handle is NULL for types that a server never receives
pdu_rules[PTYPE_BIND] = PduRule(UNBOUND, BIND_BODY + CONTEXT_LIST_HEADER_SIZE, handle_bind)
pdu_rules[PTYPE_ALTER_CONTEXT] = PduRule(BOUND, BIND_BODY + CONTEXT_LIST_HEADER_SIZE, handle_bind)
pdu_rules[PTYPE_REQUEST] = PduRule(BOUND, CALL_HEADER_SIZE, handle_request)
pdu_rules[PTYPE_CO_CANCEL] = PduRule(BOUND, COMMON_HEADER_SIZE, handle_co_cancel)
pdu_rules[PTYPE_ORPHANED] = PduRule(BOUND, COMMON_HEADER_SIZE, handle_orphaned)


@cython.final
cdef class RpcCounters:
    """What the sessions that share it have seen. Bad packets are counted here, not logged.

    ``faults_…`` and ``naks`` count answers; ``refusals`` counts connections closed for what they sent, by the names
    of docs/rpc.md.
    """

    cdef readonly uint64_t pdus
    cdef readonly uint64_t binds
    cdef readonly uint64_t requests
    cdef readonly uint64_t naks
    cdef readonly uint64_t foreign_binds
    cdef readonly uint64_t faults_unknown_interface
    cdef readonly uint64_t faults_op_range
    cdef readonly uint64_t faults_bad_stub
    cdef uint64_t[REFUSAL_COUNT] refused

    @property
    def refusals(self):
        return {refusals[i].name.decode(): self.refused[i] for i in range(REFUSAL_COUNT)}


cdef class Session:
    """Server side of one connection: octets in, requests to a hook, octets out.

    ``Session(counters, secondary_address="1688", assoc_group_id=1)``: the port as a string and a nonzero number for the
    association group; both travel in the bind_ack. Raises ValueError for an address of more than 5 ASCII characters or
    group 0.

    A subclass overrides ``on_request``; this class itself collects ``(call_id, context_id, opnum, argument)`` in
    ``requests``. ``closing`` is None, or the name of the refusal after which the shell must send what ``take_output``
    yields and close. ``foreign_interface`` is the first other interface that a client offered: 16 octets as sent, for
    ``UUID(bytes_le=…)``.
    """

    cdef readonly RpcCounters counters
    cdef readonly list requests
    cdef readonly bytes foreign_interface
    cdef bytes partial
    cdef bytearray output
    cdef bytearray fragments        # stub so far of the request being put together
    cdef uint32_t fragments_call_id
    cdef uint16_t fragments_context_id
    cdef uint16_t fragments_opnum
    cdef uint32_t assoc_group_id
    cdef readonly uint16_t max_xmit_frag
    cdef uint16_t[MAX_CONTEXTS] contexts
    cdef uint8_t context_count
    cdef uint8_t phase
    cdef uint8_t refusal
    cdef uint8_t address_size       # with its NUL
    cdef uint8_t[MAX_ADDRESS_SIZE] address

    def __init__(self, RpcCounters counters not None, str secondary_address not None="1688", uint32_t assoc_group_id=1):
        cdef bytes address = secondary_address.encode("ascii") + b"\0"
        if len(address) > MAX_ADDRESS_SIZE or assoc_group_id == 0:
            raise ValueError("a session needs a port of at most 5 digits and a nonzero association group")
        self.begin(counters, address, len(address), assoc_group_id)

    cdef void begin(self, RpcCounters counters, const uint8_t* address, Py_ssize_t n, uint32_t assoc_group_id):
        """What `__init__` does, for a caller that has the address with its NUL at hand."""
        self.counters = counters
        self.assoc_group_id = assoc_group_id
        self.max_xmit_frag = MIN_FRAGMENT_SIZE
        self.address_size = <uint8_t>n
        memcpy(self.address, address, n)

    @property
    def closing(self):
        return refusals[self.refusal].name.decode() if self.phase == CLOSING else None

    cpdef int receive(self, bytes data) except -1:
        """Takes what arrived: calls ``on_request`` for every request it completes, adds answers to the output."""
        return self.read(data, len(data))

    cdef int read(self, const uint8_t* at, Py_ssize_t left) except -1:
        """What `receive` does, with bytes of the caller's."""
        cdef Py_ssize_t size
        cdef bytes joined
        if self.partial is not None:
            joined = self.partial + at[:left]
            self.partial = None
            at, left = joined, len(joined)
        while left >= COMMON_HEADER_SIZE and self.phase != CLOSING:
            size = self.check_header(at)
            if size > left:
                break
            if size > 0:
                self.counters.pdus += 1
                pdu_rules[at[PDU_PTYPE]].handle(self, at, size)
                at += size
                left -= size
        if left > 0 and self.phase != CLOSING:
            self.partial = PyBytes_FromStringAndSize(<const char*>at, left)
        return 0

    cpdef bytes take_output(self):
        """What is to be sent since the last call, maybe nothing."""
        cdef bytearray output = self.output
        self.output = None
        return b"" if output is None else bytes(output)

    def respond(self, uint32_t call_id, uint16_t context_id, bytes answer, uint32_t result):
        """Adds a response to the output, in as many fragments as the client needs.

        ``answer`` is None for a null pointer; raises ValueError when it has more than 4,096 bytes.
        """
        if answer is not None and len(answer) > MAX_ARGUMENT_SIZE:
            raise ValueError(f"an answer has at most {MAX_ARGUMENT_SIZE} bytes, not {len(answer)}")
        stub = build_response_stub(answer, result)
        self.send(build_fragments(PTYPE_RESPONSE, call_id, context_id, 0, stub, self.max_xmit_frag))

    cdef int on_request(
        self, uint32_t call_id, uint16_t context_id, uint16_t opnum, const uint8_t* argument, Py_ssize_t argument_size
    ) except -1:
        """A complete request for operation 0 or 2 of our interface; `argument` is the byte array it carries."""
        if self.requests is None:
            self.requests = []
        self.requests.append((call_id, context_id, opnum, argument[:argument_size]))
        return 0

    cdef int send(self, bytes pdus) except -1:
        if self.output is None:
            self.output = bytearray()
        self.output += pdus
        return 0

    cdef int send_fault(self, uint32_t call_id, uint16_t context_id, uint32_t status) except -1:
        cdef uint8_t[FAULT_SIZE] pdu
        build_fault(pdu, call_id, context_id, status)
        return self.send(pdu[:FAULT_SIZE])

    cdef Py_ssize_t check_header(self, const uint8_t* pdu) except -1:
        """Size of the PDU whose common header lies here; 0 when it was refused."""
        cdef uint8_t ptype = pdu[PDU_PTYPE]
        cdef Py_ssize_t size = load_u16(pdu + PDU_FRAG_LENGTH)
        if pdu[PDU_VERSION] != RPC_VERSION or pdu[PDU_VERSION_MINOR] != RPC_VERSION_MINOR:
            return self.refuse(pdu, REFUSED_VERSION)
        if pdu[PDU_DREP] != DREP_LITTLE_ASCII or pdu[PDU_DREP + 1] != DREP_IEEE:
            return self.refuse(pdu, REFUSED_DATA_REPRESENTATION)
        if load_u16(pdu + PDU_AUTH_LENGTH) != 0:
            return self.refuse(pdu, REFUSED_AUTHENTICATION)
        if ptype >= PTYPE_COUNT or pdu_rules[ptype].handle == NULL or pdu_rules[ptype].phase != self.phase:
            return self.refuse(pdu, REFUSED_OUT_OF_TURN)
        if not pdu_rules[ptype].min_size <= size <= MAX_FRAGMENT_SIZE:
            return self.refuse(pdu, REFUSED_FRAGMENT_LENGTH)
        return size

    cdef int refuse(self, const uint8_t* pdu, int refusal) except -1:
        """Answers a PDU, of which at least the header is there, as `refusals` says, and ends the session."""
        cdef uint8_t[BIND_NAK_SIZE] nak
        cdef uint32_t call_id = load_u32(pdu + PDU_CALL_ID)
        if not pdu[PDU_DREP] & DREP_LITTLE_ASCII:   # the sender's octet order, so that it recognises its call
            call_id = call_id >> 24 | call_id >> 8 & 0xFF00 | (call_id & 0xFF00) << 8 | call_id << 24
        self.phase = CLOSING
        self.refusal = refusal
        self.fragments = None
        self.counters.refused[refusal] += 1
        if pdu[PDU_PTYPE] == PTYPE_BIND:
            self.counters.naks += 1
            build_bind_nak(nak, call_id, refusals[refusal].nak_reason)
            self.send(nak[:BIND_NAK_SIZE])
        elif refusals[refusal].fault_status != 0:
            self.send_fault(call_id, 0, refusals[refusal].fault_status)
        return 0

    cdef bint has_context(self, uint16_t context_id) noexcept:
        cdef int i
        for i in range(self.context_count):
            if self.contexts[i] == context_id:
                return True
        return False

    cdef int complete_request(
        self, uint32_t call_id, uint16_t context_id, uint16_t opnum, const uint8_t* stub, Py_ssize_t size
    ) except -1:
        """Hands a request on, or answers it with a fault; the connection goes on in either case."""
        cdef Argument argument
        if not self.has_context(context_id):
            self.counters.faults_unknown_interface += 1
            return self.send_fault(call_id, context_id, FAULT_UNKNOWN_INTERFACE)
        if opnum > 2 or not SERVED_OPNUMS >> opnum & 1:
            self.counters.faults_op_range += 1
            return self.send_fault(call_id, context_id, FAULT_OP_RANGE)
        if not parse_request_stub(stub, size, &argument):
            self.counters.faults_bad_stub += 1
            return self.send_fault(call_id, context_id, FAULT_BAD_STUB_DATA)
        self.counters.requests += 1
        return self.on_request(call_id, context_id, opnum, argument.octets, argument.size)


cdef int handle_request(Session session, const uint8_t* pdu, Py_ssize_t size) except -1:
    cdef uint8_t flags = pdu[PDU_FLAGS]
    cdef uint32_t call_id = load_u32(pdu + PDU_CALL_ID)
    cdef uint16_t context_id = load_u16(pdu + CALL_CONTEXT_ID)
    cdef uint16_t opnum = load_u16(pdu + CALL_OPNUM)
    # The object is for choosing among implementations of an interface; there is one.
    cdef Py_ssize_t header_size = CALL_HEADER_SIZE + (OBJECT_UUID_SIZE if flags & PFC_OBJECT_UUID else 0)
    cdef bytearray stub
    if size < header_size:
        return session.refuse(pdu, REFUSED_MALFORMED)
    if (flags & PFC_FIRST_FRAG != 0) != (session.fragments is None):
        return session.refuse(pdu, REFUSED_FRAGMENT_ORDER)
    if flags & PFC_WHOLE == PFC_WHOLE:
        return session.complete_request(call_id, context_id, opnum, pdu + header_size, size - header_size)
    if flags & PFC_FIRST_FRAG:
        session.fragments = bytearray()
        session.fragments_call_id = call_id
        session.fragments_context_id = context_id
        session.fragments_opnum = opnum
    elif (call_id, context_id, opnum) != (
        session.fragments_call_id, session.fragments_context_id, session.fragments_opnum
    ):
        return session.refuse(pdu, REFUSED_FRAGMENT_ORDER)
    stub = session.fragments
    if len(stub) + size - header_size > MAX_STUB_SIZE:
        return session.refuse(pdu, REFUSED_TOO_LARGE)
    stub += pdu[header_size:size]
    if flags & PFC_LAST_FRAG:
        session.fragments = None
        return session.complete_request(
            call_id, context_id, opnum, <const uint8_t*>PyByteArray_AS_STRING(stub), len(stub)
        )
    return 0


cdef int handle_orphaned(Session session, const uint8_t* pdu, Py_ssize_t size) except -1:
    """The client gave a call up: forget its fragments. One that is complete is answered all the same."""
    if session.fragments is not None and load_u32(pdu + PDU_CALL_ID) == session.fragments_call_id:
        session.fragments = None
    return 0


cdef int handle_co_cancel(Session session, const uint8_t* pdu, Py_ssize_t size) except -1:
    """A cancel is a wish; our calls end by themselves, so it is ignored."""
    return 0
