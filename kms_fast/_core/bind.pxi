# bind and alter_context on the server: each offered presentation context gets a result of its own (C706 12.6.4; MS-RPCE
# 2.2.2.14 for feature negotiation). Reads in place; writes the answer to the session's output. Raises only MemoryError.

cdef struct Bind:
    bint foreign                    # some context offers another interface
    int count                       # of contexts
    uint8_t[255 * RESULT_SIZE] results


cdef int handle_bind(Session session, const uint8_t* pdu, Py_ssize_t size) except -1:
    """Answers a bind or alter_context."""
    cdef Bind bind
    session.counters.binds += 1
    if pdu[PDU_FLAGS] & PFC_WHOLE != PFC_WHOLE or not negotiate_contexts(session, pdu, size, &bind):
        return session.refuse(pdu, REFUSED_MALFORMED)
    session.counters.foreign_binds += bind.foreign
    if session.phase == UNBOUND:
        session.phase = BOUND
        session.max_xmit_frag = bound_fragment(load_u16(pdu + BIND_MAX_RECV_FRAG))
        # Groups share nothing here, so a client that names one may have it.
        session.assoc_group_id = load_u32(pdu + BIND_ASSOC_GROUP_ID) or session.assoc_group_id
    return send_bind_answer(session, pdu, &bind)


cdef bint negotiate_contexts(Session session, const uint8_t* pdu, Py_ssize_t size, Bind* bind) except -1:
    """Fills `bind` from the context list that ends the PDU; False when the list does not have just the PDU's length."""
    cdef Reader reader = read_from(pdu + BIND_BODY, size - BIND_BODY)
    cdef uint16_t context_id
    cdef uint8_t syntaxes
    cdef const uint8_t* abstract_syntax
    cdef const uint8_t* transfer_syntaxes
    cdef int i
    bind.foreign = False
    bind.count = get_u8(&reader)
    skip(&reader, 3)
    for i in range(bind.count):
        context_id = get_u16(&reader)
        syntaxes = get_u8(&reader)
        skip(&reader, 1)
        abstract_syntax = get_bytes(&reader, SYNTAX_SIZE)
        transfer_syntaxes = get_bytes(&reader, syntaxes * SYNTAX_SIZE)
        if reader.overrun or syntaxes == 0:
            return False
        negotiate_context(
            session, context_id, abstract_syntax, transfer_syntaxes, syntaxes, bind, bind.results + i * RESULT_SIZE
        )
    return bind.count > 0 and bytes_left(&reader) == 0


cdef int negotiate_context(
    Session session, uint16_t context_id, const uint8_t* abstract_syntax, const uint8_t* transfer_syntaxes,
    int syntaxes, Bind* bind, uint8_t* out
) except -1:
    """Writes the 24 octets of one context's result and, when it is accepted, notes the context."""
    memset(out, 0, RESULT_SIZE)
    if syntaxes == 1 and is_feature_negotiation(transfer_syntaxes):
        store_u16(out, RESULT_NEGOTIATE_ACK)
        store_u16(out + 2, transfer_syntaxes[8] & FEATURE_KEEP_CONNECTION_ON_ORPHAN)
        return 0
    store_u16(out, RESULT_PROVIDER_REJECTION)
    if memcmp(abstract_syntax, INTERFACE_SYNTAX, SYNTAX_SIZE) != 0:
        store_u16(out + 2, REASON_ABSTRACT_SYNTAX)
        if memcmp(abstract_syntax, INTERFACE_SYNTAX, UUID_SIZE) != 0:
            bind.foreign = True
            if session.foreign_interface is None:
                session.foreign_interface = abstract_syntax[:UUID_SIZE]
    elif not offers_ndr(transfer_syntaxes, syntaxes):
        store_u16(out + 2, REASON_TRANSFER_SYNTAXES)
    elif not session.has_context(context_id) and session.context_count == MAX_CONTEXTS:
        store_u16(out + 2, REASON_LOCAL_LIMIT)
    else:
        if not session.has_context(context_id):
            session.contexts[session.context_count] = context_id
            session.context_count += 1
        store_u16(out, RESULT_ACCEPTANCE)
        memcpy(out + 4, NDR_SYNTAX, SYNTAX_SIZE)
    return 0


cdef uint16_t bound_fragment(uint16_t size) noexcept:
    """The fragment size to agree on when a client names this one: what everyone must support, up to what we do."""
    return <uint16_t>min(max(<int>size, MIN_FRAGMENT_SIZE), MAX_FRAGMENT_SIZE)


cdef bint is_feature_negotiation(const uint8_t* syntax) noexcept:
    return memcmp(syntax, FEATURES_SYNTAX, 8) == 0 and memcmp(syntax + UUID_SIZE, FEATURES_VERSION, 4) == 0


cdef bint offers_ndr(const uint8_t* syntaxes, int count) noexcept:
    cdef int i
    for i in range(count):
        if memcmp(syntaxes + i * SYNTAX_SIZE, NDR_SYNTAX, SYNTAX_SIZE) == 0:
            return True
    return False


cdef int send_bind_answer(Session session, const uint8_t* pdu, const Bind* bind) except -1:
    """Sends a bind_ack or alter_context_resp; refuses when it is larger than the client can receive."""
    cdef bint first = pdu[PDU_PTYPE] == PTYPE_BIND
    # The secondary address is for the first answer only (C706 12.6.4.2).
    cdef Py_ssize_t address_size = session.address_size if first else 0
    cdef Py_ssize_t results_at = BIND_BODY + 2 + address_size
    results_at += padding_to_4(results_at)
    cdef Py_ssize_t size = results_at + CONTEXT_LIST_HEADER_SIZE + bind.count * RESULT_SIZE
    cdef bytes answer
    cdef uint8_t* out
    if size > session.max_xmit_frag:
        return session.refuse(pdu, REFUSED_TOO_LARGE)
    answer = PyBytes_FromStringAndSize(NULL, size)
    out = <uint8_t*>PyBytes_AS_STRING(answer)
    memset(out, 0, results_at + CONTEXT_LIST_HEADER_SIZE)
    build_header(
        out, PTYPE_BIND_ACK if first else PTYPE_ALTER_CONTEXT_RESP, PFC_WHOLE | pdu[PDU_FLAGS] & PFC_CONC_MPX, size,
        load_u32(pdu + PDU_CALL_ID)
    )
    store_u16(out + BIND_MAX_XMIT_FRAG, session.max_xmit_frag)
    store_u16(out + BIND_MAX_RECV_FRAG, bound_fragment(load_u16(pdu + BIND_MAX_XMIT_FRAG)))
    store_u32(out + BIND_ASSOC_GROUP_ID, session.assoc_group_id)
    store_u16(out + BIND_BODY, <uint16_t>address_size)
    memcpy(out + BIND_BODY + 2, session.address, address_size)
    out[results_at] = <uint8_t>bind.count
    memcpy(out + results_at + CONTEXT_LIST_HEADER_SIZE, bind.results, bind.count * RESULT_SIZE)
    return session.send(answer)
