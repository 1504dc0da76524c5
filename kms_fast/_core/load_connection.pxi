# A connection of the load generator: an asyncio protocol that sends the next request when the last is answered.
#
#   phase        entered by                     left by
#   connecting   LoadRun.open_slot              bind_ack: idle, or busy when a start waits for this connection
#   idle         nothing is due                 LoadRun.pump: busy
#   busy         begin: a request is out        its answer: idle or busy, or closed after `per_connection` activations
#   gone         drop, break_off, connection_lost: the slot is free again, after a pause when something went wrong
#
# `started` is true from the moment a start was given to the connection until it is answered or given up. Memory: the
# session's; what is kept of a request is its hash, tag and machine. Exceptions as in load.pxi.

cdef enum:
    REQUEST_PDU_SIZE = CALL_HEADER_SIZE + REQUEST_STUB_HEADER_SIZE + REQUEST_SIZE


@cython.final
cdef class LoadConnection(ClientSession):
    """One connection of a LoadRun, made by it; the event loop calls the methods of asyncio.Protocol."""

    cdef LoadRun run
    cdef object transport
    cdef int fd                     # of the transport's socket
    cdef uint64_t intended_ns, sent_ns
    cdef uint32_t call_id
    cdef uint32_t completed         # activations on this connection
    cdef bint bound, started, verified, gone
    cdef LoadMachine machine
    cdef uint8_t request_hash[HASH_SIZE]
    cdef uint8_t tag[TAG_SIZE]

    def __cinit__(self, LoadRun run not None):
        self.run = run
        self.call_id = 1

    # ---- asyncio.Protocol

    def connection_made(self, transport) -> None:
        self.transport = transport
        if self.gone:
            transport.abort()
            return
        self.fd = transport.get_extra_info("socket").fileno()
        transport.write(build_bind())

    def data_received(self, bytes data not None) -> None:
        if self.gone:
            return
        try:
            self.receive(data)
        except ProtocolError as error:
            self.break_off("RPC_REFUSED", str(error))

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        """One request is out at a time, so there is nothing to hold back."""

    def resume_writing(self) -> None:
        pass

    def connection_lost(self, exc) -> None:
        if not self.gone:
            reason = f": {getattr(exc, 'strerror', None) or exc}" if exc else ""
            self.break_off("CONNECTION_LOST", f"connection closed before the answer{reason}")

    def connection_failed(self, error) -> None:
        """The connection could not be made."""
        if not self.gone:
            self.break_off("CONNECTION_FAILED", error.strerror or str(error))

    # ---- the life of a connection

    def drop(self) -> None:
        """Closes the connection, without a word about why; the slot stays taken."""
        self.gone = True
        self.run.connections.discard(self)
        if self.transport is not None:
            self.transport.abort()

    cdef int break_off(self, str kind, str example) except -1:
        """Something went wrong. An idle connection may end; anything else is an error of the start it had."""
        cdef LoadRun run = self.run
        cdef bint started = self.started
        self.drop()
        if self in run.idle:
            run.idle.remove(self)
        run.call_later(RECONNECT_DELAY_S, run.release_slot)
        if started:
            self.started = False
            run.active -= 1
        if started or not run.ready:
            run.count_error(kind, example)
        return run.check_done()

    cdef int on_outcome(self, object outcome) except -1:
        if isinstance(outcome, Accepted):
            return self.become_bound()
        return self.break_off("RPC_REFUSED", describe_refusal(outcome))

    cdef int become_bound(self) except -1:
        cdef LoadRun run = self.run
        self.bound = True
        if self.started:
            return self.begin(self.intended_ns)
        run.idle.append(self)
        if run.unopened > 0:
            run.unopened -= 1
            run.open_slot(0)
        if not run.ready and <uint32_t>len(run.idle) == run.slots:
            run.free_slots = 0
            run.ready = True
            run.on_ready()
        return 0

    cdef int begin(self, uint64_t intended_ns) except -1:
        """Sends a fresh request; its latency counts from `intended_ns`."""
        cdef LoadRun run = self.run
        cdef uint8_t[REQUEST_PDU_SIZE] out
        cdef uint8_t* request = out + CALL_HEADER_SIZE + REQUEST_STUB_HEADER_SIZE
        cdef ssize_t sent
        if not run.raw:
            self.call_id += 1
        build_call_header(out, PTYPE_REQUEST, PFC_WHOLE, REQUEST_PDU_SIZE, self.call_id,
                          REQUEST_PDU_SIZE - CALL_HEADER_SIZE, 0, 0)
        store_u32(out + CALL_HEADER_SIZE, REQUEST_SIZE)
        store_u32(out + CALL_HEADER_SIZE + 4, REQUEST_SIZE)
        run.seal_request(&self.machine, request)
        self.verified = run.verify_below != 0 and run.draw() >> 32 < run.verify_below
        if self.verified or run.record is not None:
            kf_sha256(request, REQUEST_SIZE, self.request_hash)
            memcpy(self.tag, request + REQUEST_TAG, TAG_SIZE)
        self.started = True
        self.intended_ns = intended_ns
        self.sent_ns = intended_ns if run.interval_ns == 0 else read_clock_ns(CLOCK_MONOTONIC)
        run.tally.requests += 1
        # Past the transport, which costs more than the call; it holds nothing back, since one request is out at a time.
        sent = kf_send(self.fd, out, REQUEST_PDU_SIZE)
        if sent < REQUEST_PDU_SIZE:
            self.transport.write((<uint8_t*>out)[max(sent, 0):REQUEST_PDU_SIZE])
        return 0

    cdef int on_response(
        self, uint32_t call_id, const uint8_t* answer, Py_ssize_t answer_size, uint32_t result
    ) except -1:
        cdef LoadRun run = self.run
        cdef uint64_t now = read_clock_ns(CLOCK_MONOTONIC)
        if not self.started or call_id != self.call_id:
            return self.break_off("RPC_REFUSED", "a response to no call of ours")
        self.started = False
        run.active -= 1
        run.last_answer_ns = now
        if answer == NULL:
            unsigned = find_result(result)
            run.count_error(unsigned.name, f"{unsigned.hex} {unsigned.meaning}")
        else:
            self.take_answer(answer, answer_size, now - self.intended_ns)
        return self.go_on() if run.running else 0

    cdef int take_answer(self, const uint8_t* answer, Py_ssize_t n, uint64_t latency_ns) except -1:
        """Checks an answer if it was drawn for that, counts and records it."""
        cdef LoadRun run = self.run
        cdef checked_t checked
        cdef answer_t parts
        cdef int failed
        if self.verified:
            failed = run.verifier.check_answer(self.request_hash, self.tag, self.machine.cmid, self.machine.hardware,
                                               answer, n, read_clock_ns(CLOCK_REALTIME) // 1_000_000, 0, True,
                                               &checked)
            if failed:
                return run.count_error(CHECK_NAMES[failed], f"check {failed} of docs/protocol.md")
            run.answered = True
            run.latency.add(latency_ns)
            run.count_batch(checked.header)
            if checked.result != GRANTED:
                run.tally.refused += 1
                run.refusals[checked.result] = run.refusals.get(checked.result, 0) + 1
                return 0
            run.tally.verified += 1
            run.tally.activations += 1
            if run.record is not None:
                run.record_activation(self.request_hash, self.machine.cmid, checked.header, checked.index)
            return 0
        if not run.raw:
            if not parse_answer(answer, n, &parts):
                return run.count_error(CHECK_NAMES[1], "check 1 of docs/protocol.md")
            run.count_batch(parts.header)
            if run.record is not None:
                run.record_activation(self.request_hash, self.machine.cmid, parts.header,
                                      load_u16(answer + ANSWER_INDEX))
        run.answered = True
        run.latency.add(latency_ns)
        run.tally.activations += 1
        return 0

    cdef int go_on(self) except -1:
        """After an answer: the next start, a rest, or the end of this connection."""
        cdef LoadRun run = self.run
        cdef uint64_t intended
        self.completed += 1
        if self.completed == run.per_connection:
            self.gone = True
            run.connections.discard(self)
            self.transport.close()
            run.release_slot()
            return 0
        if run.take_start(&intended):
            return self.begin(intended)
        run.idle.append(self)
        return run.check_done()


cdef str describe_refusal(object outcome):
    if isinstance(outcome, Fault):
        return f"fault 0x{outcome.status:08X}"
    if isinstance(outcome, BindNak):
        return f"bind_nak, reason {outcome.reason}"
    return f"interface rejected, result {outcome.result}, reason {outcome.reason}"
