# A connection of the load generator: it sends the next request when the last is answered.
#
#   phase        entered by                     left by
#   connecting   LoadRun.open_slot              bind_ack: idle, or busy when a start waits for this connection
#   idle         nothing is due                 LoadRun.pump: busy
#   busy         begin: a request is out        its answer: idle or busy, or closed after `per_connection` activations
#   gone         close, break_off: the slot is free again, after a pause when something went wrong
#
# `started` is true from the moment a start was given to the connection until it is answered or given up. Memory: the
# session's, and a descriptor; what is kept of a request is its hash, tag and machine. The run's set holds the object
# for as long as the descriptor is open. Exceptions as in load.pxi.

cdef enum:
    REQUEST_PDU_SIZE = CALL_HEADER_SIZE + REQUEST_STUB_HEADER_SIZE + REQUEST_SIZE


@cython.final
cdef class LoadConnection(ClientSession):
    """One connection of a LoadRun, made by it."""

    cdef LoadRun run
    cdef int fd                     # -1 before it is opened and when it is closed
    cdef int watched                # what the run watches it for
    cdef bytes output               # what the socket has not taken yet
    cdef uint64_t intended_ns, sent_ns
    cdef uint32_t call_id
    cdef uint32_t completed         # activations on this connection
    cdef bint connected, bound, started, verified, gone
    cdef LoadMachine machine
    cdef uint8_t request_hash[HASH_SIZE]
    cdef uint8_t tag[TAG_SIZE]

    def __cinit__(self):
        self.fd = self.watched = -1
        self.call_id = 1

    def __init__(self, *args, **kwargs):
        raise TypeError("connections are made by a LoadRun")

    def __dealloc__(self):
        if self.fd >= 0:
            close_descriptor(self.fd)

    # ---- the socket

    cdef int open(self) except -1:
        """Begins to connect, with the bind to follow."""
        cdef LoadRun run = self.run
        cdef Address source = next(run.sources)
        self.fd = kf_connect(&run.address.socket_address, NULL if source is None else &source.socket_address)
        if self.fd < 0:
            return self.lose(errno)
        return self.send(run.bind, len(run.bind))

    cdef int on_ready(self, int what) except -1:
        """Something arrived, or there is room for output, or the connection is made or gone."""
        cdef ssize_t got
        cdef bytes output = self.output
        if self.gone:
            return 0        # closed by what came before it in this round
        if output is not None:
            self.output = None
            self.send(output, len(output))
        if self.gone or not what & (KF_READ | KF_BROKEN):
            return 0
        got = kf_receive(self.fd, self.run.buffer, READ_SIZE)
        if got <= 0:
            return 0 if got < 0 and errno == EAGAIN else self.lose(errno if got < 0 else 0)
        # More may be there, which the poller does not tell of by itself.
        if (got == READ_SIZE or what & KF_ENDED) and self.watch(self.watched) < 0:
            return self.lose(errno)
        try:
            return self.read(self.run.buffer, got)
        except ProtocolError as error:
            return self.break_off("RPC_REFUSED", str(error))

    cdef int send(self, const uint8_t* data, Py_ssize_t n) except -1:
        """Sends now what the socket takes, maybe nothing while it connects, and the rest when there is room."""
        cdef ssize_t sent = kf_send(self.fd, data, n)
        cdef int wanted = KF_READ
        if sent < 0:
            return self.lose(errno)
        if sent > 0:
            self.connected = True
        if sent < n:
            self.output = data[sent:n]
            wanted |= KF_WRITE
        if wanted != self.watched and self.watch(wanted) < 0:
            return self.lose(errno)
        return 0

    cdef int watch(self, int wanted) noexcept:
        """What the run is to be told of, also when it was told before; -1 when that cannot be."""
        cdef int before = self.watched
        self.watched = wanted
        return kf_poller_watch(self.run.fd, self.fd, <void*>self, before, wanted)

    cdef int lose(self, int error) except -1:
        """The connection could not be made, or is gone: an error number, or 0 when the host closed it."""
        if not self.connected:
            return self.break_off("CONNECTION_FAILED", os.strerror(error))
        reason = f": {os.strerror(error)}" if error else ""
        return self.break_off("CONNECTION_LOST", f"connection closed before the answer{reason}")

    # ---- the life of a connection

    cdef int close(self) except -1:
        """Closes the connection, without a word about why; the slot stays taken."""
        self.gone = True
        self.run.connections.discard(self)
        if self.fd >= 0:
            close_descriptor(self.fd)
            self.fd = -1
            # The run may still point to it until this round of what is ready has come to its end.
            self.run.closed.append(self)
        return 0

    cdef int break_off(self, str kind, str example) except -1:
        """Something went wrong. An idle connection may end; anything else is an error of the start it had."""
        cdef LoadRun run = self.run
        cdef bint started = self.started
        if self.gone:
            return 0
        self.close()
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
        if self.gone:
            return 0
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
        return self.send(out, REQUEST_PDU_SIZE)

    cdef int on_response(
        self, uint32_t call_id, const uint8_t* answer, Py_ssize_t answer_size, uint32_t result
    ) except -1:
        cdef LoadRun run = self.run
        cdef uint64_t now = read_clock_ns(CLOCK_MONOTONIC)
        if not self.started or call_id != self.call_id:
            return self.break_off("RPC_REFUSED", "a response to no call of ours")
        run.last_answer_ns = now
        if answer == NULL:
            unsigned = find_result(result)
            run.count_error(unsigned.name, f"{unsigned.hex} {unsigned.meaning}")
        else:
            self.take_answer(answer, answer_size, now - self.intended_ns)
        self.started = False
        run.active -= 1
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
            self.close()
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
