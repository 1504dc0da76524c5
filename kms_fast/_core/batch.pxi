# The batch: requests that one signature, one ledger record and one commit serve.
#
# Its life: requests are admitted into ledger entries (one memory block, which becomes the ledger record as it
# stands); `decide` fills in results; `seal` makes tree, header and signature; after the commit `answer` hands every
# connection its answer. The batch owns the record block, the tree and a reference to each waiting connection. A batch
# is used once.

cdef class Connection


cdef struct Reply:
    PyObject* connection    # a Connection, reference owned
    uint32_t call_id
    uint16_t context_id
    uint16_t product
    uint8_t tag[TAG_SIZE]


cdef enum:
    CLOCK_TOLERANCE_MS = 4 * 3600 * 1000
    RECORD_START_LEAVES = 64
    ANSWER_PDU_MAX_SIZE = RESPONSE_PREFIX_SIZE + ANSWER_MAX_SIZE + RESULT_FIELD_SIZE


@cython.final
cdef class Batch:
    """Up to 1,024 requests on their way through decision, signature, commit and answer."""

    cdef readonly AdmissionTable table
    cdef uint8_t* record
    cdef Reply* replies
    cdef uint8_t* nodes
    cdef bytes suffix
    cdef uint8_t header_hash[HASH_SIZE]
    cdef readonly int size
    cdef int room

    def __cinit__(self, AdmissionTable table not None):
        self.table = table

    def __dealloc__(self):
        cdef int i
        for i in range(self.size):
            Py_XDECREF(self.replies[i].connection)
        PyMem_Free(self.record)
        PyMem_Free(self.replies)
        PyMem_Free(self.nodes)

    cdef int grow(self) except -1:
        cdef int room = min(MAX_LEAVES, max(RECORD_START_LEAVES, 4 * self.room))
        cdef void* record = PyMem_Realloc(self.record, RECORD_ENTRIES + <size_t>room * ENTRY_SIZE)
        if record == NULL:
            raise MemoryError
        self.record = <uint8_t*>record
        cdef void* replies = PyMem_Realloc(self.replies, <size_t>room * sizeof(Reply))
        if replies == NULL:
            raise MemoryError
        self.replies = <Reply*>replies
        self.room = room
        return 0

    cdef inline uint8_t* entry(self, int i) noexcept:
        return self.record + RECORD_ENTRIES + <size_t>i * ENTRY_SIZE

    cdef uint32_t admit(self, object connection, uint32_t call_id, uint16_t context_id, const uint8_t* request,
                        const uint8_t* peer, bint record_name) except? 1:
        """Takes a request of 220 bytes into the batch: 0, or the unsigned result that refuses it. There must be room.
        """
        cdef int row = self.table.find_product(request + REQUEST_SKU)
        cdef uint8_t fields[FIELDS_SIZE]
        cdef Product* product
        cdef Reply* reply
        if row < 0:
            return PRODUCT_UNKNOWN
        product = &self.table.products[row]
        if not (<SkuKeys>product.keys).open_request_into(request, fields):
            return REQUEST_UNREADABLE
        if self.size == self.room:
            self.grow()
        write_entry(self.entry(self.size), request, fields, product, peer, record_name)
        reply = &self.replies[self.size]
        Py_INCREF(connection)
        reply.connection = <PyObject*>connection
        reply.call_id, reply.context_id, reply.product = call_id, context_id, <uint16_t>row
        memcpy(reply.tag, request + REQUEST_TAG, TAG_SIZE)
        self.size += 1
        return 0

    def decide_product_and_clock(self, uint64_t now_ms) -> list[int]:
        """Gives each request that cannot be granted whatever the count its result; the families (rows of the table)
        that the others belong to. Leaves whose count matters keep result COUNT_TOO_LOW until `decide_counts`.
        """
        cdef int i
        cdef uint64_t client_ms
        cdef uint8_t* leaf
        cdef Product* product
        cdef bint[256] open_families
        memset(open_families, 0, sizeof(open_families))
        for i in range(self.size):
            leaf = self.entry(i)
            product = &self.table.products[self.replies[i].product]
            client_ms = load_u64(leaf + LEAF_CLIENT_TIME)
            if not product.covered:
                store_u32(leaf + LEAF_RESULT, HOST_CANNOT_SERVE)
            elif (client_ms - now_ms if client_ms > now_ms else now_ms - client_ms) > CLOCK_TOLERANCE_MS:
                store_u32(leaf + LEAF_RESULT, CLOCKS_DIFFER)
            else:
                store_u32(leaf + LEAF_RESULT, COUNT_TOO_LOW)
                open_families[product.family] = True
        return [i for i in range(len(self.table.families)) if open_families[i]]

    def cmids_of(self, int family) -> list[bytes]:
        """CMIDs of the requests that count in this family (row of the table), in order of arrival."""
        cdef int i
        return [
            (self.entry(i) + LEAF_CMID)[:ID_SIZE]
            for i in range(self.size)
            if self.table.products[self.replies[i].product].family == family
            and load_u32(self.entry(i) + LEAF_RESULT) == COUNT_TOO_LOW
        ]

    def decide_counts(self, uint64_t now_ms) -> None:
        """Counts every request that `decide_product_and_clock` left open, in order of arrival, and decides it."""
        cdef int i
        cdef uint8_t* leaf
        cdef Product* product
        cdef FamilyCount family
        for i in range(self.size):
            leaf = self.entry(i)
            product = &self.table.products[self.replies[i].product]
            family = <FamilyCount>self.table.families[product.family]
            family.expire(now_ms)
            if load_u32(leaf + LEAF_RESULT) == COUNT_TOO_LOW:
                family.touch(leaf + LEAF_CMID, now_ms)
                if family.count >= <int32_t>family.threshold:
                    store_u32(leaf + LEAF_RESULT, GRANTED)
                    store_u32(leaf + LEAF_VALIDITY, product.validity_min)
            store_u32(leaf + LEAF_COUNT, family.count)
            store_u32(leaf + LEAF_THRESHOLD, family.threshold)

    def seal(self, uint32_t segment, uint64_t number, uint64_t now_ms, bytes previous not None, object sign) -> bytes:
        """Builds tree and header and signs; the header's hash (32 bytes), which the next header names as previous.

        `sign` takes the message (context, zero byte, header) and returns the Ed25519 signature of 64 bytes.
        """
        cdef uint8_t* header = self.record + RECORD_HEADER
        cdef bytes message, signature
        cdef const uint8_t* root
        if len(previous) != HASH_SIZE:
            raise ValueError("the hash of a header has 32 bytes")
        self.nodes = <uint8_t*>PyMem_Malloc(HASH_SIZE * (2 * <size_t>self.size + MAX_PATH_NODES))
        if self.nodes == NULL:
            raise MemoryError
        kf_merkle_leaf_hashes(self.nodes, self.entry(0), ENTRY_SIZE, LEAF_SIZE, self.size)
        root = kf_merkle_build(self.nodes, self.size)
        header[HEADER_VERSION] = 1
        header[HEADER_TYPE] = 1
        store_u16(header + HEADER_TREE_SIZE, <uint16_t>self.size)
        store_u32(header + HEADER_SEGMENT, segment)
        store_u64(header + HEADER_NUMBER, number)
        store_u64(header + HEADER_TIME, now_ms)
        memcpy(header + HEADER_HOST, <const uint8_t*>self.table.host_id, ID_SIZE)
        store_u64(header + HEADER_SERIAL, self.table.serial)
        store_u32(header + HEADER_REVOCATION, self.table.revocation_number())
        memcpy(header + HEADER_PREVIOUS, <const uint8_t*>previous, HASH_SIZE)
        memcpy(header + HEADER_ROOT, root, HASH_SIZE)
        kf_sha256(header, HEADER_SIZE, self.header_hash)
        message = HEADER_CONTEXT + header[:HEADER_SIZE]
        signature = sign(message)
        if len(signature) != SIGNATURE_SIZE:
            raise ValueError("an Ed25519 signature has 64 bytes")
        memcpy(header + HEADER_SIZE, <const uint8_t*>signature, SIGNATURE_SIZE)
        store_u32(self.record + FRAME_LENGTH, <uint32_t>self.record_size())
        store_u32(self.record + FRAME_MAGIC, RECORD_MAGIC)
        self.suffix = header[:SIGNED_HEADER_SIZE] + self.table.certificates
        return self.header_hash[:HASH_SIZE]

    cpdef Py_ssize_t record_size(self) noexcept:
        """Bytes of the ledger record."""
        return RECORD_ENTRIES + <Py_ssize_t>self.size * ENTRY_SIZE

    def record_bytes(self) -> bytes:
        """The ledger record of a sealed batch (docs/ledger.md): for tests and cold callers."""
        return self.record[:self.record_size()]

    cdef void derive_keys(self, int i, uint8_t* keys) noexcept:
        """The keys of the answers to leaves `i` and `i` + 1, if there is one: 32 bytes each."""
        cdef const kf_hmac_key* secrets[2]
        cdef const uint8_t* tags[2]
        cdef Reply* reply
        cdef int lane, lanes = min(2, self.size - i)
        for lane in range(lanes):
            reply = &self.replies[i + lane]
            secrets[lane] = &(<SkuKeys>self.table.products[reply.product].keys).answer_mac
            tags[lane] = reply.tag
        if lanes == 2:
            kf_hmac_sha256_two(secrets, tags, TAG_SIZE, keys)
        else:
            kf_hmac_sha256(secrets[0], tags[0], TAG_SIZE, keys)

    cdef Py_ssize_t build_answer(self, int i, const uint8_t* key, uint8_t* pdu) except -1:
        """Writes the response PDU of leaf `i`: prefix, sealed leaf, path, the batch's suffix, RPC result. Its size."""
        cdef Reply* reply = &self.replies[i]
        cdef uint8_t* answer = pdu + RESPONSE_PREFIX_SIZE
        cdef size_t path_size = HASH_SIZE * kf_merkle_path(self.nodes, self.size, i, answer + ANSWER_PATH)
        cdef Py_ssize_t suffix_size = len(self.suffix)
        cdef Py_ssize_t size = ANSWER_PATH + path_size + suffix_size
        build_response_prefix(pdu, reply.call_id, reply.context_id, size)
        answer[ANSWER_VERSION] = 1
        answer[ANSWER_TYPE] = MESSAGE_ANSWER
        store_u16(answer + ANSWER_INDEX, <uint16_t>i)
        answer[ANSWER_PATH_NODES] = <uint8_t>(path_size // HASH_SIZE)
        answer[ANSWER_RESERVED] = 0
        siv_seal_once(key, self.header_hash, HASH_SIZE, self.entry(i), LEAF_SIZE, answer + ANSWER_TAG)
        memcpy(answer + ANSWER_PATH + path_size, <const uint8_t*>self.suffix, suffix_size)
        build_response_suffix(answer + size, size, GRANTED)
        return response_size(size)

    def answer(self) -> None:
        """Hands every connection that still waits its answer. The batch must be on disk. Empties the batch."""
        cdef int i
        cdef Connection connection
        cdef uint8_t[ANSWER_PDU_MAX_SIZE] pdu
        cdef uint8_t keys[2][32]
        for i in range(self.size):
            if i % 2 == 0:
                self.derive_keys(i, keys[0])
            connection = <Connection>self.replies[i].connection
            if connection.fd >= 0:
                connection.deliver(pdu, self.build_answer(i, keys[i % 2], pdu))
            Py_DECREF(connection)
            self.replies[i].connection = NULL
        kf_wipe(keys, sizeof(keys))

    def refuse(self, uint32_t result) -> None:
        """Gives every connection that still waits the same unsigned result, as when the host may not sign."""
        cdef int i
        for i in range(self.size):
            self.refuse_one(i, result)

    def refuse_families(self, list families not None, uint32_t result) -> None:
        """Takes the requests that `decide_product_and_clock` left open in these families (rows of the table) out of
        the batch and gives them an unsigned result, as when their machines cannot be stored. The batch may be empty
        afterwards.
        """
        cdef int i, kept = 0
        cdef bint[256] refused
        memset(refused, 0, sizeof(refused))
        for i in families:
            refused[i] = True
        for i in range(self.size):
            if (refused[self.table.products[self.replies[i].product].family]
                    and load_u32(self.entry(i) + LEAF_RESULT) == COUNT_TOO_LOW):
                self.refuse_one(i, result)
                continue
            if kept != i:
                memcpy(self.entry(kept), self.entry(i), ENTRY_SIZE)
                self.replies[kept] = self.replies[i]
                self.replies[i].connection = NULL
            kept += 1
        self.size = kept

    cdef int refuse_one(self, int i, uint32_t result) except -1:
        cdef Reply* reply = &self.replies[i]
        cdef Connection connection = <Connection>reply.connection
        cdef bytes pdu
        Py_DECREF(connection)
        reply.connection = NULL
        if connection.fd >= 0:
            pdu = build_unsigned_answer(reply.call_id, reply.context_id, result)
            connection.deliver(pdu, len(pdu))
        return 0


cdef void write_entry(uint8_t* entry, const uint8_t* request, const uint8_t* fields, const Product* product,
                      const uint8_t* peer, bint record_name) noexcept:
    """The ledger entry of an opened request (docs/ledger.md); result, validity and count are decided later."""
    entry[LEAF_VERSION] = 1
    entry[LEAF_TYPE] = 1
    entry[LEAF_FAMILY_INDEX] = product.family_index
    entry[LEAF_RESERVED] = 0
    kf_sha256(request, REQUEST_SIZE, entry + LEAF_REQUEST_HASH)
    memcpy(entry + LEAF_SKU, product.sku_id, ID_SIZE)
    memcpy(entry + LEAF_CMID, fields + FIELDS_CMID, ID_SIZE)
    memcpy(entry + LEAF_HARDWARE, fields + FIELDS_HARDWARE, ID_SIZE)
    memcpy(entry + LEAF_CLIENT_TIME, fields + FIELDS_TIME, 8)
    store_u16(entry + LEAF_GENERATION, product.generation)
    store_u32(entry + LEAF_VALIDITY, 0)
    store_u32(entry + LEAF_ACTIVATION_INTERVAL, product.activation_interval_min)
    store_u32(entry + LEAF_RENEWAL_INTERVAL, product.renewal_interval_min)
    if record_name:
        memcpy(entry + ENTRY_NAME, fields + FIELDS_NAME, FIELDS_NAME_SIZE)
    else:
        memset(entry + ENTRY_NAME, 0, FIELDS_NAME_SIZE)
    memcpy(entry + ENTRY_PREVIOUS_CMID, fields + FIELDS_PREVIOUS_CMID, ID_SIZE)
    memcpy(entry + ENTRY_PREDECESSOR, fields + FIELDS_PREDECESSOR, HASH_SIZE)
    memcpy(entry + ENTRY_MINUTES_TO_EXPIRY, fields + FIELDS_MINUTES_TO_EXPIRY, 4)
    memcpy(entry + ENTRY_REVOCATION, fields + FIELDS_REVOCATION, 4)
    memcpy(entry + ENTRY_LIBRARY_VERSION, fields + FIELDS_LIBRARY_VERSION, 4)
    entry[ENTRY_STATE] = fields[FIELDS_STATE]
    entry[ENTRY_VIRTUAL] = fields[FIELDS_VIRTUAL]
    memcpy(entry + ENTRY_PEER, peer, ID_SIZE + 2)
    store_u16(entry + ENTRY_RESERVED, 0)


def entries_root(bytes entries not None) -> bytes:
    """Root of the tree over the leaves of ledger entries (264 bytes each): 32 bytes. Raises ValueError unless 1 to
    1,024.
    """
    cdef Py_ssize_t n = len(entries) // ENTRY_SIZE
    cdef uint8_t* nodes
    if not 1 <= n <= MAX_LEAVES or len(entries) % ENTRY_SIZE:
        raise ValueError(f"a record has 1 to {MAX_LEAVES} entries of {ENTRY_SIZE} bytes")
    nodes = <uint8_t*>PyMem_Malloc(HASH_SIZE * KF_MERKLE_MAX_NODES)
    if nodes == NULL:
        raise MemoryError
    try:
        kf_merkle_leaf_hashes(nodes, entries, ENTRY_SIZE, LEAF_SIZE, n)
        return (<uint8_t*>kf_merkle_build(nodes, n))[:HASH_SIZE]
    finally:
        PyMem_Free(nodes)
