# Client side of one DCE/RPC connection, sans-I/O: reads what a server sends (docs/rpc.md).
#
# Rules
#
#   phase     bind_ack   bind_nak   fault      response   other types
#   UNBOUND   → BOUND    → UNBOUND  outcome    error      error
#   BOUND     error      error      outcome    outcome    error
#
#   error     ProtocolError, whose text says what was wrong; the session is of no further use.
#   Fragments of one response come in order, and no other PDU of a call between them.
#
# Memory: `read` works off whole PDUs where they lie in its argument and keeps what is left over (less than one PDU),
# and a response in fragments as a bytearray of at most MAX_ANSWER_STUB_SIZE. The pointer given to `on_response` is
# valid during that call.

cdef enum:
    MAX_ANSWER_STUB_SIZE = RESPONSE_STUB_HEADER_SIZE + MAX_ARGUMENT_SIZE + RESULT_FIELD_SIZE + MAX_PADDING_SIZE


class Accepted(NamedTuple):
    """The server accepted the context of ``build_bind``; it takes fragments of up to ``max_fragment`` octets."""

    call_id: int
    max_fragment: int


class Rejected(NamedTuple):
    """The server answered the bind but rejected our interface: ``result`` and ``reason`` as in docs/rpc.md."""

    call_id: int
    result: int
    reason: int


class BindNak(NamedTuple):
    """The server refused the bind as such: ``reason`` as in docs/rpc.md."""

    call_id: int
    reason: int


class Fault(NamedTuple):
    """The server did not execute the call, or failed in it: ``status`` as in docs/rpc.md."""

    call_id: int
    status: int


class Response(NamedTuple):
    """The call's answer, None for a null pointer, and its 32-bit result."""

    call_id: int
    answer: bytes | None
    result: int


cdef class ClientSession:
    """Client side of one connection: ``receive`` turns octets into outcomes.

    Outcomes are ``Accepted``, ``Rejected``, ``BindNak``, ``Fault`` and ``Response``. Requests are made with
    ``build_bind`` and ``build_request``; the session does not know which calls are in flight, so the caller
    compares call IDs.
    A subclass may override ``on_response`` (and ``on_outcome``, which gets all others).
    """

    cdef list outcomes
    cdef bytes partial
    cdef bytearray fragments
    cdef uint32_t fragments_call_id
    cdef uint8_t phase

    cpdef int receive(self, bytes data) except -1:
        """Takes what arrived and hands on every outcome it completes. Raises ProtocolError for malformed input."""
        return self.read(data, len(data))

    cdef int read(self, const uint8_t* at, Py_ssize_t left) except -1:
        cdef bytes joined
        cdef Py_ssize_t size
        if self.partial is not None:
            joined = self.partial + at[:left]
            self.partial = None
            at, left = joined, len(joined)
        while left >= COMMON_HEADER_SIZE:
            size = check_answer_header(at)
            if size > left:
                break
            self.read_answer(at, size)
            at += size
            left -= size
        if left > 0:
            self.partial = PyBytes_FromStringAndSize(<const char*>at, left)
        return 0

    cpdef list take_outcomes(self):
        """The outcomes since the last call, in order of arrival."""
        cdef list outcomes = self.outcomes
        self.outcomes = None
        return [] if outcomes is None else outcomes

    cdef int on_outcome(self, object outcome) except -1:
        if self.outcomes is None:
            self.outcomes = []
        self.outcomes.append(outcome)
        return 0

    cdef int on_response(
        self, uint32_t call_id, const uint8_t* answer, Py_ssize_t answer_size, uint32_t result
    ) except -1:
        """A complete response; `answer` is NULL for a null pointer."""
        return self.on_outcome(Response(call_id, None if answer == NULL else answer[:answer_size], result))

    cdef int read_answer(self, const uint8_t* pdu, Py_ssize_t size) except -1:
        cdef uint8_t ptype = pdu[PDU_PTYPE]
        cdef uint32_t call_id = load_u32(pdu + PDU_CALL_ID)
        if ptype == PTYPE_RESPONSE and self.phase == BOUND:
            return self.read_response(pdu, size)
        if ptype == PTYPE_FAULT:
            if size < FAULT_STATUS + 4:
                raise ProtocolError(f"a fault of {size} bytes has no status")
            if self.fragments is not None and call_id == self.fragments_call_id:
                self.fragments = None
            return self.on_outcome(Fault(call_id, load_u32(pdu + FAULT_STATUS)))
        if ptype == PTYPE_BIND_ACK and self.phase == UNBOUND:
            outcome = parse_bind_ack(pdu, size)
            self.phase = BOUND
            return self.on_outcome(outcome)
        if ptype == PTYPE_BIND_NAK and self.phase == UNBOUND:
            if size < BIND_NAK_VERSIONS:
                raise ProtocolError(f"a bind_nak of {size} bytes has no reason")
            return self.on_outcome(BindNak(call_id, load_u16(pdu + BIND_NAK_REASON)))
        when = "after" if self.phase == BOUND else "before"
        raise ProtocolError(f"a PDU of type {ptype} is not expected {when} the bind_ack")

    cdef int read_response(self, const uint8_t* pdu, Py_ssize_t size) except -1:
        cdef uint8_t flags = pdu[PDU_FLAGS]
        cdef uint32_t call_id = load_u32(pdu + PDU_CALL_ID)
        cdef bytearray stub
        if size < CALL_HEADER_SIZE:
            raise ProtocolError(f"a response of {size} bytes is too short")
        if (flags & PFC_FIRST_FRAG != 0) != (self.fragments is None):
            raise ProtocolError("fragments of responses are out of order")
        if flags & PFC_WHOLE == PFC_WHOLE:
            return self.complete_response(call_id, pdu + CALL_HEADER_SIZE, size - CALL_HEADER_SIZE)
        if flags & PFC_FIRST_FRAG:
            self.fragments = bytearray()
            self.fragments_call_id = call_id
        elif call_id != self.fragments_call_id:
            raise ProtocolError("fragments of different responses are mixed")
        stub = self.fragments
        if len(stub) + size - CALL_HEADER_SIZE > MAX_ANSWER_STUB_SIZE:
            raise ProtocolError("a response is too large")
        stub += pdu[CALL_HEADER_SIZE:size]
        if flags & PFC_LAST_FRAG:
            self.fragments = None
            return self.complete_response(call_id, <const uint8_t*>PyByteArray_AS_STRING(stub), len(stub))
        return 0

    cdef int complete_response(self, uint32_t call_id, const uint8_t* stub, Py_ssize_t size) except -1:
        cdef Argument answer
        if not parse_response_stub(stub, size, &answer):
            raise ProtocolError("the stub of a response is malformed")
        return self.on_response(call_id, answer.octets, answer.size, answer.result)


cdef Py_ssize_t check_answer_header(const uint8_t* pdu) except -1:
    """Size of the PDU whose common header lies here."""
    cdef Py_ssize_t size = load_u16(pdu + PDU_FRAG_LENGTH)
    if pdu[PDU_VERSION] != RPC_VERSION or pdu[PDU_VERSION_MINOR] != RPC_VERSION_MINOR:
        raise ProtocolError("what answers does not speak DCE/RPC 5.0")
    if pdu[PDU_DREP] != DREP_LITTLE_ASCII or pdu[PDU_DREP + 1] != DREP_IEEE:
        raise ProtocolError("the server uses another data representation than little-endian, ASCII, IEEE")
    if load_u16(pdu + PDU_AUTH_LENGTH) != 0:
        raise ProtocolError("the server sent an authentication trailer")
    if not COMMON_HEADER_SIZE <= size <= MAX_FRAGMENT_SIZE:
        raise ProtocolError(f"a PDU claims a length of {size} bytes")
    return size


cdef object parse_bind_ack(const uint8_t* pdu, Py_ssize_t size):
    """Accepted or Rejected, from the bind_ack to what `build_bind` makes: one context, NDR 2.0.

    Raises ProtocolError.
    """
    cdef Reader reader = read_from(pdu + COMMON_HEADER_SIZE, size - COMMON_HEADER_SIZE)
    cdef uint16_t max_fragment
    cdef Py_ssize_t address_size
    cdef uint8_t results
    cdef uint16_t result
    cdef uint16_t reason
    cdef const uint8_t* syntax
    skip(&reader, 2)
    max_fragment = get_u16(&reader)
    skip(&reader, 4)
    address_size = get_u16(&reader)
    skip(&reader, address_size + padding_to_4(BIND_BODY + 2 + address_size))
    results = get_u8(&reader)
    skip(&reader, 3)
    result = get_u16(&reader)
    reason = get_u16(&reader)
    syntax = get_bytes(&reader, SYNTAX_SIZE)
    if reader.overrun or results != 1:
        raise ProtocolError("a bind_ack does not hold the one result that was asked for")
    if result != RESULT_ACCEPTANCE:
        return Rejected(load_u32(pdu + PDU_CALL_ID), result, reason)
    if memcmp(syntax, NDR_SYNTAX, SYNTAX_SIZE) != 0 or max_fragment < MIN_FRAGMENT_SIZE:
        raise ProtocolError("a bind_ack accepts what was not offered")
    return Accepted(load_u32(pdu + PDU_CALL_ID), min(<int>max_fragment, MAX_FRAGMENT_SIZE))
