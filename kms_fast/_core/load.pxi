# One process's share of a load: its machines, their requests, the schedule of starts, and the tally of what came back.
#
# Everything here belongs to one event loop. A LoadRun owns its counters and the record buffer; connections
# (load_connection.pxi) hold the run and nothing else of each other's. Per activation no Python object is made.
# Exceptions come from the fall-back cipher, from the record file, and from callbacks; what a host does wrong is
# counted, never raised.
#
#   slot      a place for a connection: free, connecting, idle or busy
#   start     an activation begins. Closed loop: when a slot is free. Open loop (`rate`): at its due time, which
#             its latency counts from also when no slot was there to take it.
#   phase     from start_phase() to on_done: done when no further start is due and every start was answered or given up

cdef enum:
    CONNECTING_AT_ONCE = 128        # below every listen backlog
    RECORD_BUFFER_SIZE = 1 << 16
    RECORD_LINE_MAX = 220

cdef uint64_t NEVER = 0xFFFFFFFFFFFFFFFF
cdef double RECONNECT_DELAY_S = 0.1


cdef inline uint64_t read_clock_ns(clockid_t clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return <uint64_t>now.tv_sec * 1_000_000_000 + <uint64_t>now.tv_nsec


cdef inline uint64_t rotate_left(uint64_t x, int n) noexcept nogil:
    return x << n | x >> (64 - n)


cdef struct LoadMachine:
    uint8_t cmid[ID_SIZE]
    uint8_t hardware[ID_SIZE]


cdef struct Tally:
    uint64_t requests           # sent
    uint64_t activations        # grants, and answers that were not opened
    uint64_t verified           # grants that passed every check
    uint64_t refused            # refusals that passed every check
    uint64_t failed             # everything else; LoadRun.errors says what
    uint64_t batch_max
    double batches              # each answer adds 1 / tree size, so a batch of which all came here adds 1


@cython.final
cdef class LoadRun(SocketSet):
    """Shared state of all connections of one load process.

    LoadRun(keys, verifier, ...): the SKU's keys and its Verifier, which may be None with verify_percent=0.
    machine_seed: 32 bytes; machine *i* of `clients` = range(first, stop) is derived from (seed, i) alone.
    verify_percent: share of answers, drawn at random, that go through all checks. slots: connections at once.
    per_connection: activations on a connection before it is closed, 0 for no limit. answer_limit_s: how long to wait
    for an answer, or for a connection. raw: what answers is no host; call IDs stay 1, only the RPC layer is looked at.
    record: unbuffered binary file for one JSON line an activation, or None. address: the host's. sources: where
    connections come from in turn; None: the system chooses. call_later(seconds, function). on_ready, on_done: called
    without arguments. The event loop calls `work` whenever `fileno` is readable.
    Raises ValueError for what cannot be, OSError when there are no descriptors left.
    """

    cdef SkuKeys keys
    cdef Verifier verifier
    cdef object call_later, on_ready, on_done, record
    cdef readonly object failure            # exception that ended the run, None otherwise
    cdef readonly dict errors               # kind: [count, first example]
    cdef readonly dict refusals             # code: count
    cdef readonly LatencyHistogram latency
    cdef Tally tally
    cdef set connections
    cdef list idle
    cdef Address address
    cdef object sources
    cdef bytes bind
    cdef uint32_t slots, unopened, free_slots
    cdef readonly uint32_t per_connection
    cdef bint raw, ready
    cdef readonly bint running
    cdef readonly bint answered             # by a host that at least spoke our protocol, ever
    cdef uint64_t verify_below              # of 2**32
    cdef uint64_t first_machine, machine_count, machine_step, machine_at
    cdef uint64_t random_state[4]
    cdef uint8_t machine_seed[40]           # the last 8 bytes are the machine's number
    cdef uint8_t fields[FIELDS_SIZE]
    cdef uint64_t started, limit, active, opened
    cdef uint64_t start_ns, deadline_ns, last_answer_ns, answer_limit_ns
    cdef double interval_ns                 # 0: closed loop
    cdef size_t recorded
    cdef char record_buffer[RECORD_BUFFER_SIZE]

    def __init__(self, SkuKeys keys not None, Verifier verifier, *, Address address not None, sources=(None,),
                 bytes machine_seed not None, clients, double verify_percent, uint32_t slots, uint32_t per_connection,
                 uint32_t library_version, double answer_limit_s, call_later, on_ready, on_done, record=None,
                 bint raw=False):
        cdef bytes seed = os.urandom(32)
        if len(machine_seed) != 32 or len(clients) < 1 or slots < 1 or not 0 <= verify_percent <= 100:
            raise ValueError("a load needs a seed of 32 bytes, machines, connections, a share from 0 to 100 to verify")
        if verify_percent > 0 and (verifier is None or raw):
            raise ValueError("answers can only be verified with a Verifier, and only a host's")
        self.keys, self.verifier, self.record, self.raw = keys, verifier, record, raw
        self.address, self.sources, self.bind = address, cycle(sources), build_bind()
        self.call_later, self.on_ready, self.on_done = call_later, on_ready, on_done
        self.slots = self.free_slots = slots
        self.per_connection = per_connection
        self.answer_limit_ns = <uint64_t>(answer_limit_s * 1e9)
        self.verify_below = <uint64_t>(verify_percent / 100 * 4294967296.0)
        self.first_machine, self.machine_count = clients.start, len(clients)
        self.machine_step = find_stride(self.machine_count)
        self.connections, self.idle = set(), []
        memcpy(self.machine_seed, <const uint8_t*>machine_seed, 32)
        memcpy(self.random_state, <const uint8_t*>seed, 32)
        memset(self.fields, 0, FIELDS_SIZE)
        memcpy(self.fields + FIELDS_NAME, b"load-", 5)
        store_u32(self.fields + FIELDS_MINUTES_TO_EXPIRY, 30 * DAY_MINUTES)
        store_u32(self.fields + FIELDS_LIBRARY_VERSION, library_version)
        self.fields[FIELDS_STATE] = 2       # initial grace
        self.reset()

    # ---- phases

    def connect(self) -> None:
        """Opens all slots, a few at a time, and calls on_ready when each has a bound connection."""
        cdef uint32_t opening = min(self.slots, <uint32_t>CONNECTING_AT_ONCE)
        self.unopened = self.slots - opening
        for _ in range(opening):
            self.open_slot(0)

    def start_phase(self, *, double seconds=0, uint64_t activations=0, double rate=0) -> None:
        """Begins to activate, for some seconds or a number of times; `rate`: starts a second in open loop, or 0."""
        self.reset()
        self.ready = self.running = True
        self.interval_ns = 1e9 / rate if rate > 0 else 0
        self.limit = activations if activations > 0 else NEVER
        self.start_ns = self.last_answer_ns = read_clock_ns(CLOCK_MONOTONIC)
        self.deadline_ns = self.start_ns + <uint64_t>(seconds * 1e9) if seconds > 0 else NEVER
        self.pump()

    def stop(self) -> None:
        """Starts nothing more; the phase is done when what is under way was answered or given up."""
        self.limit = self.started
        self.check_done()

    def expire(self) -> None:
        """Gives up connections and requests that a host has not answered in time. Call about once a second."""
        cdef uint64_t now = read_clock_ns(CLOCK_MONOTONIC)
        cdef LoadConnection connection
        for connection in list(self.connections):
            if (connection.started or not connection.bound) and now > connection.sent_ns + self.answer_limit_ns:
                connection.break_off("NO_ANSWER", f"no answer within {self.answer_limit_ns / 1e9:g} s")
        if self.running and (now > self.last_answer_ns + 2 * self.answer_limit_ns
                             or self.deadline_ns != NEVER and now > self.deadline_ns + self.answer_limit_ns):
            self.give_up(now)
        self.closed.clear()     # what ended outside of a round

    cdef int give_up(self, uint64_t now) except -1:
        """Ends a phase whose host is gone or stalled: a start without an answer, or due and not made, is an error."""
        cdef uint64_t due
        if self.active > 0:
            self.count_error("NO_ANSWER", "no answer when the load was given up", self.active)
        if self.interval_ns > 0:
            due = min(self.limit, <uint64_t>((min(now, self.deadline_ns) - self.start_ns) / self.interval_ns))
            if due > self.started:
                self.count_error("NO_ANSWER", "no connection was free to send it", due - self.started)
        return self.finish()

    def pump(self) -> None:
        """Begins every start that is due and finds a slot. In open loop call it about every millisecond."""
        cdef uint64_t intended
        cdef LoadConnection connection
        while self.running and (self.idle or self.free_slots > 0) and self.take_start(&intended):
            if self.idle:
                connection = self.idle.pop()
                connection.begin(intended)
            else:
                self.free_slots -= 1
                self.open_slot(intended)
        self.check_done()

    def release_slot(self) -> None:
        """A slot whose connection is gone may be used again."""
        self.free_slots += 1
        self.pump()

    def close(self) -> None:
        """Closes every connection and writes what is left to record."""
        cdef LoadConnection connection
        self.running = False
        for connection in list(self.connections):
            connection.close()
        self.closed.clear()
        self.flush_record()

    def work(self) -> None:
        """Works off what is ready now. A bug costs a connection and is raised when the others had their turn."""
        cdef kf_ready[KF_READY_MAX] ready
        cdef LoadConnection connection
        cdef object bug = None
        cdef int i
        for i in range(kf_poller_look(self.fd, ready)):
            connection = <LoadConnection>ready[i].owner
            try:
                connection.on_ready(ready[i].what)
            except Exception as error:
                connection.break_off("CONNECTION_LOST", f"connection closed before the answer: {error}")
                bug = error
        self.closed.clear()
        if bug is not None:
            raise bug

    cdef int open_slot(self, uint64_t intended) except -1:
        cdef LoadConnection connection = LoadConnection.__new__(LoadConnection)
        connection.run = self
        connection.intended_ns = intended
        connection.started = intended != 0
        connection.sent_ns = read_clock_ns(CLOCK_MONOTONIC)
        self.connections.add(connection)
        self.opened += 1
        return connection.open()

    cdef bint take_start(self, uint64_t* intended) noexcept:
        """Whether a start is due now, and when it was meant to be."""
        cdef uint64_t now = read_clock_ns(CLOCK_MONOTONIC)
        intended[0] = now if self.interval_ns == 0 else self.next_due()
        if self.started >= self.limit or intended[0] > now or intended[0] >= self.deadline_ns:
            return False
        self.started += 1
        self.active += 1
        return True

    cdef inline uint64_t next_due(self) noexcept:
        return self.start_ns + <uint64_t>(<double>self.started * self.interval_ns)

    cdef int check_done(self) except -1:
        if self.running and self.active == 0 and (
            self.started >= self.limit
            or (read_clock_ns(CLOCK_MONOTONIC) if self.interval_ns == 0 else self.next_due()) >= self.deadline_ns
        ):
            return self.finish()
        return 0

    cdef int finish(self) except -1:
        if self.running:
            self.running = False
            self.flush_record()
            self.on_done()
        return 0

    # ---- requests

    cdef uint64_t draw(self) noexcept nogil:
        """64 random bits: xoshiro256** (Blackman, Vigna). Nonces need to differ, not to be secret (RFC 5297)."""
        cdef uint64_t* s = self.random_state
        cdef uint64_t drawn = rotate_left(s[1] * 5, 7) * 9
        cdef uint64_t shifted = s[1] << 17
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= shifted
        s[3] = rotate_left(s[3], 45)
        return drawn

    cdef void draw_machine(self, LoadMachine* machine) noexcept nogil:
        """The next machine; each asks once before any asks again. Its name is load- and its number."""
        cdef uint64_t number = self.first_machine + self.machine_at
        cdef uint8_t digest[HASH_SIZE]
        cdef int digit
        self.machine_at = (self.machine_at + self.machine_step) % self.machine_count
        store_u64(self.machine_seed + 32, number)
        kf_sha256(self.machine_seed, sizeof(self.machine_seed), digest)
        digest[6] = digest[6] & 0x0F | 0x40        # a random UUID, RFC 9562 section 5.4
        digest[8] = digest[8] & 0x3F | 0x80
        memcpy(machine, digest, sizeof(LoadMachine))
        for digit in range(9, -1, -1):
            self.fields[FIELDS_NAME + 5 + digit] = <uint8_t>(48 + number % 10)
            number //= 10

    cdef int seal_request(self, LoadMachine* machine, uint8_t* out) except -1:
        """Writes a fresh request of 220 bytes: next machine, own nonce, the time now."""
        cdef uint8_t nonce[ID_SIZE]
        self.draw_machine(machine)
        store_u64(nonce, self.draw())
        store_u64(nonce + 8, self.draw())
        memcpy(self.fields + FIELDS_CMID, machine.cmid, ID_SIZE)
        memcpy(self.fields + FIELDS_HARDWARE, machine.hardware, ID_SIZE)
        store_u64(self.fields + FIELDS_TIME, read_clock_ns(CLOCK_REALTIME) // 1_000_000)
        return self.keys.seal_request_into(self.fields, nonce, out)

    # ---- what came back

    def figures(self) -> dict[str, object]:
        """Counts of the phase so far, with its span on the monotonic clock in ns."""
        return {
            "requests": self.tally.requests, "activations": self.tally.activations, "verified": self.tally.verified,
            "refused": self.tally.refused, "failed": self.tally.failed, "connections": self.opened,
            "batches": self.tally.batches, "batch_max": self.tally.batch_max, "start_ns": self.start_ns,
            "end_ns": read_clock_ns(CLOCK_MONOTONIC) if self.running else self.last_answer_ns,
        }

    cdef void reset(self):
        memset(&self.tally, 0, sizeof(Tally))
        self.started = self.active = 0
        self.errors, self.refusals = {}, {}
        self.latency = LatencyHistogram()

    cdef int count_error(self, str kind, str example, uint64_t times=1) except -1:
        """Counts what is neither a grant nor a refusal. Before any answer, the first one ends the run."""
        self.tally.failed += times
        self.errors.setdefault(kind, [0, example])[0] += times
        if not self.answered:
            self.finish()
            self.on_ready()
        return 0

    cdef int count_batch(self, const uint8_t* header) noexcept:
        cdef uint16_t size = load_u16(header + HEADER_TREE_SIZE)
        if size > 0:
            self.tally.batches += 1.0 / size
            self.tally.batch_max = max(self.tally.batch_max, <uint64_t>size)
        return 0

    cdef int record_activation(self, const uint8_t* request_hash, const uint8_t* cmid, const uint8_t* header,
                               uint16_t index) except -1:
        """Adds a line to the record: {"request_hash", "cmid", "batch", "index"}."""
        cdef char* out
        if self.recorded + RECORD_LINE_MAX > RECORD_BUFFER_SIZE:
            self.flush_record()
        out = append_text(self.record_buffer + self.recorded, b'{"request_hash":"')
        out = append_hex(out, request_hash, HASH_SIZE)
        out = append_text(out, b'","cmid":"')
        out = append_uuid(out, cmid)
        out = append_text(out, b'","batch":"')
        out = append_number(out, load_u32(header + HEADER_SEGMENT))
        out = append_text(out, b"/")
        out = append_number(out, load_u64(header + HEADER_NUMBER))
        out = append_text(out, b'","index":')
        out = append_number(out, index)
        out = append_text(out, b"}\n")
        self.recorded = out - self.record_buffer
        return 0

    cdef int flush_record(self) except -1:
        """Writes whole lines in one call, so that several processes may append to one file."""
        cdef bytes lines = self.record_buffer[:self.recorded]
        self.recorded = 0
        if lines and self.failure is None:
            try:
                if self.record.write(lines) != len(lines):
                    raise OSError(ENOSPC, os.strerror(ENOSPC), self.record.name)
            except OSError as error:
                self.failure = error
                self.finish()
        return 0


def find_stride(uint64_t count) -> int:
    """A step that meets every number below `count` once before any twice: coprime to it, near the golden ratio."""
    cdef uint64_t stride = max(<uint64_t>1, <uint64_t>(count * 0.6180339887498949))
    while math.gcd(stride, count) != 1:
        stride += 1
    return stride
