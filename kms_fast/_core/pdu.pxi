# DCE/RPC PDUs: the syntaxes we speak, builders for both sides, stub of our calls. Layouts: rpc.pxd and docs/rpc.md.
#
# Builders that take `out` fill memory of the caller, who has made room for the size named; they are `noexcept nogil`.
# Builders that return bytes may raise MemoryError. Nothing here keeps a pointer.

# Syntax identifiers as they travel: UUID with its first three fields little-endian, u16 major, u16 minor version.
cdef const uint8_t* INTERFACE_SYNTAX = \
    <const uint8_t*>b"\x9c\x4d\x6e\xf9\x70\xc2\x94\x49\xbe\x5f\xbb\xef\x9f\x32\x35\xea\x01\x00\x00\x00"
cdef const uint8_t* NDR_SYNTAX = \
    <const uint8_t*>b"\x04\x5d\x88\x8a\xeb\x1c\xc9\x11\x9f\xe8\x08\x00\x2b\x10\x48\x60\x02\x00\x00\x00"
# Bind-time feature negotiation, MS-RPCE 2.2.2.14: eight fixed octets, eight of flags, version 1.0.
cdef const uint8_t* FEATURES_SYNTAX = <const uint8_t*>b"\x2c\x1c\xb7\x6c\x12\x98\x40\x45"
cdef const uint8_t* FEATURES_VERSION = <const uint8_t*>b"\x01\x00\x00\x00"


class ProtocolError(ValueError):
    """What a server sent is not DCE/RPC as docs/rpc.md describes it. The connection is of no further use."""


cdef struct Argument:
    const uint8_t* octets       # NULL for a null pointer
    Py_ssize_t size
    uint32_t result             # of a response


# ---- builders

cdef inline void build_header(
    uint8_t* out, uint8_t ptype, uint8_t flags, Py_ssize_t frag_length, uint32_t call_id
) noexcept nogil:
    """Writes the 16 octets that begin every PDU."""
    out[PDU_VERSION] = RPC_VERSION
    out[PDU_VERSION_MINOR] = RPC_VERSION_MINOR
    out[PDU_PTYPE] = ptype
    out[PDU_FLAGS] = flags
    store_u32(out + PDU_DREP, DREP_LITTLE_ASCII)
    store_u16(out + PDU_FRAG_LENGTH, <uint16_t>frag_length)
    store_u16(out + PDU_AUTH_LENGTH, 0)
    store_u32(out + PDU_CALL_ID, call_id)


cdef inline void build_call_header(
    uint8_t* out, uint8_t ptype, uint8_t flags, Py_ssize_t frag_length, uint32_t call_id, Py_ssize_t alloc_hint,
    uint16_t context_id, uint16_t opnum
) noexcept nogil:
    """Writes the 24 octets that begin a request, response or fault; `opnum` is 0 in the latter two."""
    build_header(out, ptype, flags, frag_length, call_id)
    store_u32(out + CALL_ALLOC_HINT, <uint32_t>alloc_hint)
    store_u16(out + CALL_CONTEXT_ID, context_id)
    store_u16(out + CALL_OPNUM, opnum)


cdef inline Py_ssize_t padding_to_4(Py_ssize_t size) noexcept nogil:
    return -size & 3


cdef inline Py_ssize_t response_size(Py_ssize_t answer_size) noexcept nogil:
    """Octets of a response PDU with a non-null answer: prefix, answer, padding to 4, result."""
    return RESPONSE_PREFIX_SIZE + answer_size + padding_to_4(answer_size) + RESULT_FIELD_SIZE


cdef inline void build_answer_fields(uint8_t* out, Py_ssize_t answer_size) noexcept nogil:
    """Writes the 12 octets before a non-null answer: its length, the referent, the maximum count."""
    store_u32(out, <uint32_t>answer_size)
    store_u32(out + 4, REFERENT)
    store_u32(out + 8, <uint32_t>answer_size)


cdef inline void build_response_prefix(
    uint8_t* out, uint32_t call_id, uint16_t context_id, Py_ssize_t answer_size
) noexcept nogil:
    """Writes the 36 octets before the answer of a response in one fragment.

    The answer follows, then `build_response_suffix`; the whole has `response_size(answer_size)` octets, which must not
    be more than MIN_FRAGMENT_SIZE unless the caller has looked at the session's `max_xmit_frag`.
    """
    cdef Py_ssize_t size = response_size(answer_size)
    build_call_header(
        out, PTYPE_RESPONSE, PFC_WHOLE, size, call_id, size - CALL_HEADER_SIZE, context_id, 0
    )
    build_answer_fields(out + CALL_HEADER_SIZE, answer_size)


cdef inline void build_response_suffix(uint8_t* out, Py_ssize_t answer_size, uint32_t result) noexcept nogil:
    """Writes what follows an answer: zero to three octets of padding, then the result."""
    memset(out, 0, padding_to_4(answer_size))
    store_u32(out + padding_to_4(answer_size), result)


cdef inline void build_fault(uint8_t* out, uint32_t call_id, uint16_t context_id, uint32_t status) noexcept nogil:
    """Writes the 32 octets of a fault for a call that was not executed."""
    build_call_header(
        out, PTYPE_FAULT, PFC_WHOLE | PFC_DID_NOT_EXECUTE, FAULT_SIZE, call_id, 0, context_id, 0
    )
    store_u32(out + FAULT_STATUS, status)
    store_u32(out + FAULT_STATUS + 4, 0)


cdef inline void build_bind_nak(uint8_t* out, uint32_t call_id, uint16_t reason) noexcept nogil:
    """Writes the 21 octets of a bind_nak, which always lists the one version we speak."""
    build_header(out, PTYPE_BIND_NAK, PFC_WHOLE, BIND_NAK_SIZE, call_id)
    store_u16(out + BIND_NAK_REASON, reason)
    out[BIND_NAK_VERSIONS] = 1
    out[BIND_NAK_VERSIONS + 1] = RPC_VERSION
    out[BIND_NAK_VERSIONS + 2] = RPC_VERSION_MINOR


cdef bytes build_unsigned_answer(uint32_t call_id, uint16_t context_id, uint32_t result):
    """A response of 36 octets: null answer and this result."""
    cdef bytes pdu = PyBytes_FromStringAndSize(NULL, CALL_HEADER_SIZE + NULL_ANSWER_STUB_SIZE)
    cdef uint8_t* out = <uint8_t*>PyBytes_AS_STRING(pdu)
    build_call_header(
        out, PTYPE_RESPONSE, PFC_WHOLE, len(pdu), call_id, NULL_ANSWER_STUB_SIZE, context_id, 0
    )
    store_u32(out + CALL_HEADER_SIZE, 0)
    store_u32(out + CALL_HEADER_SIZE + 4, 0)
    store_u32(out + CALL_HEADER_SIZE + 8, result)
    return pdu


cdef bytes build_fragments(
    uint8_t ptype, uint32_t call_id, uint16_t context_id, uint16_t opnum, bytes stub, Py_ssize_t max_fragment
):
    """The PDUs that carry a stub, one after the other; every stub part but the last is a multiple of 8 octets long."""
    cdef Py_ssize_t total = len(stub)
    cdef Py_ssize_t room = (max_fragment - CALL_HEADER_SIZE) & ~7
    cdef Py_ssize_t fragments = 1 if total <= room else (total + room - 1) // room
    cdef bytes pdus = PyBytes_FromStringAndSize(NULL, total + fragments * CALL_HEADER_SIZE)
    cdef uint8_t* out = <uint8_t*>PyBytes_AS_STRING(pdus)
    cdef const uint8_t* source = stub
    cdef Py_ssize_t done = 0
    cdef Py_ssize_t size
    cdef Py_ssize_t i
    for i in range(fragments):
        size = min(room, total - done)
        build_call_header(
            out, ptype, (PFC_FIRST_FRAG if i == 0 else 0) | (PFC_LAST_FRAG if i == fragments - 1 else 0),
            CALL_HEADER_SIZE + size, call_id, total - done, context_id, opnum
        )
        memcpy(out + CALL_HEADER_SIZE, source + done, size)
        out += CALL_HEADER_SIZE + size
        done += size
    return pdus


cdef bytes build_response_stub(bytes answer, uint32_t result):
    """Stub of a response: null or non-null answer, result."""
    if answer is None:
        return struct.pack("<III", 0, 0, result)
    cdef bytes before = struct.pack("<III", len(answer), REFERENT, len(answer))
    return before + answer + bytes(padding_to_4(len(answer))) + struct.pack("<I", result)


def build_bind(uint32_t call_id=1):
    """A bind PDU, 72 octets: our interface with NDR 2.0 as context 0, concurrent multiplexing asked for."""
    cdef uint8_t[72] pdu
    memset(pdu, 0, sizeof(pdu))
    build_header(pdu, PTYPE_BIND, PFC_WHOLE | PFC_CONC_MPX, sizeof(pdu), call_id)
    store_u16(pdu + BIND_MAX_XMIT_FRAG, MAX_FRAGMENT_SIZE)
    store_u16(pdu + BIND_MAX_RECV_FRAG, MAX_FRAGMENT_SIZE)
    pdu[BIND_BODY] = 1              # context, with ID 0
    pdu[CONTEXT_LIST + 2] = 1       # transfer syntax
    memcpy(pdu + CONTEXT_LIST + 4, INTERFACE_SYNTAX, SYNTAX_SIZE)
    memcpy(pdu + CONTEXT_LIST + 4 + SYNTAX_SIZE, NDR_SYNTAX, SYNTAX_SIZE)
    return pdu[:sizeof(pdu)]


def build_request(
    uint32_t call_id, uint16_t context_id, uint16_t opnum, bytes argument not None, max_fragment=MAX_FRAGMENT_SIZE
):
    """The PDU or, when it does not fit into ``max_fragment`` octets, the PDUs of a request with this byte array.

    Raises ValueError for an argument of more than 4,096 octets and for ``max_fragment`` outside 32 … 5,840.
    """
    if len(argument) > MAX_ARGUMENT_SIZE:
        raise ValueError(f"an argument has at most {MAX_ARGUMENT_SIZE} bytes, not {len(argument)}")
    if not CALL_HEADER_SIZE + 8 <= max_fragment <= MAX_FRAGMENT_SIZE:
        raise ValueError(f"a fragment has {CALL_HEADER_SIZE + 8} to {MAX_FRAGMENT_SIZE} bytes, not {max_fragment}")
    stub = struct.pack("<II", len(argument), len(argument)) + argument
    return build_fragments(PTYPE_REQUEST, call_id, context_id, opnum, stub, max_fragment)


# ---- parsers of stubs; a length that lies is a False

cdef inline bint parse_request_stub(const uint8_t* stub, Py_ssize_t size, Argument* argument) noexcept nogil:
    """Finds the byte array of a request: u32 length, u32 maximum count (equal), octets, at most 7 octets more."""
    cdef Py_ssize_t length
    if size < REQUEST_STUB_HEADER_SIZE:
        return False
    length = load_u32(stub)
    argument.octets = stub + REQUEST_STUB_HEADER_SIZE
    argument.size = length
    size -= REQUEST_STUB_HEADER_SIZE + length
    return length <= MAX_ARGUMENT_SIZE and load_u32(stub + 4) == length and 0 <= size <= MAX_PADDING_SIZE


cdef inline bint parse_response_stub(const uint8_t* stub, Py_ssize_t size, Argument* answer) noexcept nogil:
    """Finds answer and result of a response: u32 length, referent; unless that is null u32 maximum count (equal) and
    octets with padding to 4; u32 result; at most 7 octets more."""
    cdef Py_ssize_t length
    cdef Py_ssize_t before_result
    if size < NULL_ANSWER_STUB_SIZE:
        return False
    length = load_u32(stub)
    if load_u32(stub + 4) == 0:
        answer.octets = NULL
        before_result = NULL_ANSWER_STUB_SIZE - RESULT_FIELD_SIZE
        if length != 0:
            return False
    else:
        answer.octets = stub + RESPONSE_STUB_HEADER_SIZE
        before_result = RESPONSE_STUB_HEADER_SIZE + length + padding_to_4(length)
        if length > MAX_ARGUMENT_SIZE or load_u32(stub + 8) != load_u32(stub):
            return False
    answer.size = length
    size -= before_result + RESULT_FIELD_SIZE
    if not 0 <= size <= MAX_PADDING_SIZE:
        return False
    answer.result = load_u32(stub + before_result)
    return True
