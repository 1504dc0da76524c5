# What a client checks in an answer: the 25 steps of docs/protocol.md, "What a client checks", in exactly that order.
#
# `check_answer` serves the load generator: once a host's certificates and a batch's header are remembered it touches no
# Python object. It returns 0 or the number of the step that failed; CHECK_NAMES gives the error's name. A bad answer is
# never an exception; exceptions come from the signature callable or the fall-back cipher. Answers are the caller's.
#
# Signatures are remembered by the full bytes that were signed, the signature and the key; rings forget the oldest.

CHECK_NAMES = (
    "ACTIVATED",
    "ANSWER_MALFORMED",
    "ANSWER_UNREADABLE",
    "ANSWER_MALFORMED",
    "REQUEST_HASH_MISMATCH",
    "SKU_MISMATCH",
    "CMID_MISMATCH",
    "HARDWARE_MISMATCH",
    "ROOT_UNKNOWN",
    "ISSUER_SIGNATURE",
    "ISSUER_RIGHTS",
    "ISSUER_DATES",
    "CERTIFICATE_SIGNATURE",
    "CERTIFICATE_KIND",
    "CERTIFICATE_DATES",
    "FAMILY_NOT_CERTIFIED",
    "GENERATION_NOT_CERTIFIED",
    "CERTIFICATE_REVOKED",
    "HEADER_HOST_MISMATCH",
    "BATCH_SIGNATURE",
    "NOT_INCLUDED",
    "COUNT_OUT_OF_BOUNDS",
    "THRESHOLD_OUT_OF_BOUNDS",
    "VALIDITY_OUT_OF_BOUNDS",
    "ANSWER_TIME",
    "CLOCK_SET_BACK",
)

cdef enum:
    REMEMBERED_HEADERS = 64
    REMEMBERED_CERTIFICATES = 8
    CERTIFICATES_MAX_SIZE = 168 + 12 * 8 + 144
    CERTIFICATE_FIXED_SIZE = 168  # without its families
    RIGHT_CERTIFY_HOSTS = 1
    ALL_RIGHTS = 7
    LONGEST_VALIDITY_MIN = 525_600

cdef uint64_t HOUR_MS = 3_600_000
cdef uint64_t ISSUER_LONGEST_MS = 731 * 24 * HOUR_MS

cdef bytes ISSUER_CONTEXT = b"kms_fast 1 issuer certificate\0"
cdef bytes CERTIFICATE_CONTEXT = b"kms_fast 1 host certificate\0"
cdef bytes HEADER_CONTEXT = b"kms_fast 1 batch header\0"


# Where the parts of an answer lie.
cdef struct answer_t:
    const uint8_t* path
    size_t path_nodes
    const uint8_t* header
    const uint8_t* certificate  # the issuer certificate follows
    size_t certificate_size
    const uint8_t* issuer


# What is known of an answer that was checked; `header` points into the answer.
cdef struct checked_t:
    uint8_t leaf[LEAF_SIZE]
    uint8_t leaf_hash[HASH_SIZE]
    const uint8_t* header
    uint32_t result
    uint16_t index


cdef struct certificates_memo:
    size_t size  # 0: free
    bint revoked
    uint8_t pair[CERTIFICATES_MAX_SIZE]


cdef struct header_memo:
    uint8_t signed_header[SIGNED_HEADER_SIZE]
    uint8_t host_key[32]


cdef bint parse_answer(const uint8_t* answer, Py_ssize_t n, answer_t* out) noexcept nogil:
    """Step 1: lengths, versions and reserved fields; fills in where the parts lie."""
    cdef Reader reader = read_from(answer, n)
    cdef const uint8_t* prefix = get_bytes(&reader, ANSWER_PATH)
    cdef size_t families
    if (prefix == NULL or prefix[ANSWER_VERSION] != 1 or prefix[ANSWER_TYPE] != MESSAGE_ANSWER
            or prefix[ANSWER_RESERVED] != 0 or prefix[ANSWER_PATH_NODES] > MAX_PATH_NODES):
        return False
    out.path_nodes = prefix[ANSWER_PATH_NODES]
    out.path = get_bytes(&reader, HASH_SIZE * out.path_nodes)
    out.header = get_bytes(&reader, SIGNED_HEADER_SIZE)
    if out.header == NULL or bytes_left(&reader) < CERTIFICATE_FIXED_SIZE:
        return False
    families = reader.at[CERTIFICATE_FAMILY_COUNT]
    if not 1 <= families <= CERTIFICATE_MAX_FAMILIES:
        return False
    out.certificate_size = CERTIFICATE_FIXED_SIZE + CERTIFICATE_FAMILY_SIZE * families
    out.certificate = get_bytes(&reader, out.certificate_size)
    out.issuer = get_bytes(&reader, ISSUER_SIZE)
    return (out.issuer != NULL and bytes_left(&reader) == 0
            and out.header[HEADER_VERSION] == 1 and out.header[HEADER_TYPE] == 1
            and out.certificate[CERTIFICATE_VERSION] == 1 and out.certificate[CERTIFICATE_RESERVED] == 0
            and out.issuer[ISSUER_VERSION] == 1)


cdef bint families_ascend(const uint8_t* certificate) noexcept nogil:
    cdef const uint8_t* family = certificate + CERTIFICATE_FAMILIES
    cdef size_t i
    for i in range(1, certificate[CERTIFICATE_FAMILY_COUNT]):
        if load_u16(family + CERTIFICATE_FAMILY_SIZE * i) <= load_u16(family + CERTIFICATE_FAMILY_SIZE * (i - 1)):
            return False
    return True


cdef inline bint further_apart(uint64_t a, uint64_t b, uint64_t span) noexcept nogil:
    return (a - b if a > b else b - a) > span


cdef inline const uint8_t* certified_family(const uint8_t* certificate, uint8_t index) noexcept nogil:
    return certificate + CERTIFICATE_FAMILIES + CERTIFICATE_FAMILY_SIZE * index


cdef int check_bounds(const uint8_t* leaf, const uint8_t* family) noexcept nogil:
    """Steps 21 to 23: what a grant says against the certified family."""
    cdef uint32_t threshold = load_u32(leaf + LEAF_THRESHOLD), validity = load_u32(leaf + LEAF_VALIDITY)
    if load_u32(leaf + LEAF_COUNT) < threshold:
        return 21
    if threshold < load_u32(family + FAMILY_MINIMUM_THRESHOLD):
        return 22
    if not 1 <= validity <= min(load_u32(family + FAMILY_MAXIMUM_VALIDITY), <uint32_t>LONGEST_VALIDITY_MIN):
        return 23
    return 0


cdef int check_times(uint64_t time, uint64_t now_ms, uint64_t mark_ms) noexcept nogil:
    """Steps 24 and 25: the header's time, the client's clock and the highest header time accepted so far."""
    if further_apart(time, now_ms, 4 * HOUR_MS):
        return 24
    if mark_ms > min(time, now_ms) and mark_ms - min(time, now_ms) > 8 * HOUR_MS:
        return 25
    return 0


@cython.final
cdef class Checked:
    """An answer that passed all checks: a grant, or a refusal that the host signed (then `result` is not 0).

    `leaf` 118 bytes, `leaf_hash` 32, `header` 116 (without its signature); docs/protocol.md, "Answer".
    """

    cdef readonly bytes leaf
    cdef readonly bytes leaf_hash
    cdef readonly bytes header
    cdef readonly uint32_t result


@cython.final
cdef class Verifier:
    """Checks the answers to one SKU's requests: docs/protocol.md, "What a client checks".

    publisher_id: 16 bytes. roots: root public keys of 32 bytes. sku: its keys. family, generation: the SKU's.
    customer_id: the one pinned by the product, 0 for none. revoked: serials of the newest revocation list known.
    verify_signature(public_key32, signature64, message) -> bool: Ed25519. Immutable: a newer list needs a new Verifier.
    Raises ValueError for other lengths.
    """

    cdef bytes publisher_id
    cdef dict roots  # root key ID: root key
    cdef SkuKeys sku
    cdef uint16_t family
    cdef uint16_t generation
    cdef uint64_t customer_id
    cdef frozenset revoked
    cdef object verify_signature
    cdef certificates_memo certificates[REMEMBERED_CERTIFICATES]
    cdef header_memo headers[REMEMBERED_HEADERS]
    cdef size_t certificates_seen
    cdef size_t headers_seen

    def __cinit__(self, *, bytes publisher_id not None, roots, SkuKeys sku not None, uint16_t family,
                  uint16_t generation, uint64_t customer_id=0, revoked=(), verify_signature):
        if len(publisher_id) != ID_SIZE or any(len(root) != 32 for root in roots):
            raise ValueError("a publisher ID has 16 bytes and a root key 32")
        self.publisher_id = publisher_id
        self.roots = {sha256(root)[:ISSUER_ROOT_SIZE]: root for root in roots}
        self.sku = sku
        self.family = family
        self.generation = generation
        self.customer_id = customer_id
        self.revoked = frozenset(revoked)
        self.verify_signature = verify_signature

    cdef int check_answer(self, const uint8_t* request_hash, const uint8_t* siv_tag, const uint8_t* cmid,
                          const uint8_t* hardware_digest, const uint8_t* answer, Py_ssize_t n, uint64_t now_ms,
                          uint64_t mark_ms, bint accept, checked_t* out) except -1:
        """Takes an answer of `n` bytes through all steps, 24 and 25 only when `accept`: 0, or the step that failed.

        `request_hash` 32 bytes, `siv_tag`, `cmid` and `hardware_digest` 16 each: of the request that was sent.
        `mark_ms`: the highest header time accepted in a grant, 0 when none. `out` is whole only when the result is 0.
        """
        cdef answer_t parts
        cdef uint64_t time
        cdef int failed
        cdef bint revoked
        if not parse_answer(answer, n, &parts):
            return 1
        failed = self.check_leaf(request_hash, siv_tag, cmid, hardware_digest, answer, parts.header, out.leaf)
        if failed:
            return failed
        time = load_u64(parts.header + HEADER_TIME)
        failed = self.check_certificates(&parts, time, &revoked)
        if failed:
            return failed
        out.header = parts.header
        out.result = load_u32(out.leaf + LEAF_RESULT)
        out.index = load_u16(answer + ANSWER_INDEX)
        if out.result == GRANTED:
            failed = self.check_cover(out.leaf, parts.certificate)
            if failed:
                return failed
        if revoked:
            return 17
        failed = self.check_batch(&parts, out)
        if failed == 0 and out.result == GRANTED:
            failed = check_bounds(out.leaf, certified_family(parts.certificate, out.leaf[LEAF_FAMILY_INDEX]))
        if failed == 0 and accept and out.result != CLOCKS_DIFFER:
            failed = check_times(time, now_ms, mark_ms)
        return failed

    cdef int check_leaf(self, const uint8_t* request_hash, const uint8_t* siv_tag, const uint8_t* cmid,
                        const uint8_t* hardware_digest, const uint8_t* answer, const uint8_t* header,
                        uint8_t* leaf) except -1:
        """Steps 2 to 7: opens the leaf into 118 bytes; it must answer this request."""
        cdef uint8_t key[32]
        cdef uint8_t header_hash[HASH_SIZE]
        kf_sha256(header, HEADER_SIZE, header_hash)
        self.sku.answer_key(siv_tag, key)
        opened = siv_open_once(key, header_hash, HASH_SIZE, answer + ANSWER_TAG, TAG_SIZE + LEAF_SIZE, leaf)
        kf_wipe(key, sizeof(key))
        if not opened:
            return 2
        if leaf[LEAF_VERSION] != 1 or leaf[LEAF_TYPE] != 1 or leaf[LEAF_RESERVED] != 0:
            return 3
        if memcmp(leaf + LEAF_REQUEST_HASH, request_hash, HASH_SIZE) != 0:
            return 4
        if memcmp(leaf + LEAF_SKU, <const uint8_t*>self.sku.sku_id, ID_SIZE) != 0:
            return 5
        if memcmp(leaf + LEAF_CMID, cmid, ID_SIZE) != 0:
            return 6
        if memcmp(leaf + LEAF_HARDWARE, hardware_digest, ID_SIZE) != 0:
            return 7
        return 0

    cdef int check_certificates(self, const answer_t* parts, uint64_t time, bint* revoked) except -1:
        """Steps 8 to 14; `revoked` is what step 17 will ask for. All that does not depend on `time` is remembered."""
        cdef certificates_memo* memo
        cdef size_t size = parts.certificate_size + ISSUER_SIZE
        cdef bint known = False
        cdef int failed, i
        for i in range(REMEMBERED_CERTIFICATES):
            memo = &self.certificates[i]
            if memo.size == size and memcmp(memo.pair, parts.certificate, size) == 0:
                known = True
                revoked[0] = memo.revoked
                break
        if not known:
            failed = self.check_issuer(parts.issuer)
            if failed:
                return failed
        if not load_u64(parts.issuer + ISSUER_NOT_BEFORE) <= time <= load_u64(parts.issuer + ISSUER_NOT_AFTER):
            return 11
        if not known:
            failed = self.check_certificate(parts)
            if failed:
                return failed
            memo = &self.certificates[self.certificates_seen % REMEMBERED_CERTIFICATES]
            memo.size = size
            memo.revoked = revoked[0] = load_u64(parts.certificate + CERTIFICATE_SERIAL) in self.revoked
            memcpy(memo.pair, parts.certificate, size)
            self.certificates_seen += 1
        if not (load_u64(parts.certificate + CERTIFICATE_NOT_BEFORE) <= time
                <= load_u64(parts.certificate + CERTIFICATE_NOT_AFTER)):
            return 14
        return 0

    cdef int check_issuer(self, const uint8_t* issuer) except -1:
        """Steps 8 to 10, and of 11 what does not depend on the header's time."""
        cdef uint16_t rights = load_u16(issuer + ISSUER_RIGHTS)
        cdef uint64_t not_before = load_u64(issuer + ISSUER_NOT_BEFORE), not_after = load_u64(issuer + ISSUER_NOT_AFTER)
        root = self.roots.get(issuer[ISSUER_ROOT:ISSUER_ROOT + ISSUER_ROOT_SIZE])
        if root is None:
            return 8
        if not self.is_signed(root, ISSUER_CONTEXT, issuer, ISSUER_SIGNATURE):
            return 9
        if (issuer[ISSUER_KIND] != 1 or not rights & RIGHT_CERTIFY_HOSTS or rights & ~ALL_RIGHTS
                or memcmp(issuer + ISSUER_PUBLISHER, <const uint8_t*>self.publisher_id, ID_SIZE) != 0):
            return 10
        if not_before > not_after or not_after - not_before > ISSUER_LONGEST_MS:
            return 11
        return 0

    cdef int check_certificate(self, const answer_t* parts) except -1:
        """Steps 12 and 13."""
        cdef const uint8_t* certificate = parts.certificate
        if (load_u32(certificate + CERTIFICATE_ISSUER) != load_u32(parts.issuer + ISSUER_SERIAL)
                or not self.is_signed(parts.issuer[ISSUER_KEY:ISSUER_KEY + 32], CERTIFICATE_CONTEXT, certificate,
                                      parts.certificate_size - SIGNATURE_SIZE)):
            return 12
        if (certificate[CERTIFICATE_KIND] != 2 or not families_ascend(certificate)
                or memcmp(certificate + CERTIFICATE_PUBLISHER, <const uint8_t*>self.publisher_id, ID_SIZE) != 0
                or self.customer_id != 0 and load_u64(certificate + CERTIFICATE_CUSTOMER) != self.customer_id):
            return 13
        return 0

    cdef int check_cover(self, const uint8_t* leaf, const uint8_t* certificate) noexcept nogil:
        """Steps 15 and 16: the certified family and generation cover the SKU."""
        cdef uint16_t generation = load_u16(leaf + LEAF_GENERATION)
        cdef const uint8_t* family
        if leaf[LEAF_FAMILY_INDEX] >= certificate[CERTIFICATE_FAMILY_COUNT]:
            return 15
        family = certified_family(certificate, leaf[LEAF_FAMILY_INDEX])
        if load_u16(family + FAMILY_NUMBER) != self.family:
            return 15
        if generation != self.generation or generation > load_u16(family + FAMILY_GENERATION):
            return 16
        return 0

    cdef int check_batch(self, const answer_t* parts, checked_t* out) except -1:
        """Steps 18 to 20: the header is the certified host's, signed by it, and its tree holds the leaf."""
        cdef const uint8_t* header = parts.header
        cdef uint16_t tree_size = load_u16(header + HEADER_TREE_SIZE)
        if (memcmp(header + HEADER_HOST, parts.certificate + CERTIFICATE_HOST, ID_SIZE) != 0
                or memcmp(header + HEADER_SERIAL, parts.certificate + CERTIFICATE_SERIAL, 8) != 0):
            return 18
        if not self.header_is_signed(header, parts.certificate + CERTIFICATE_KEY):
            return 19
        kf_merkle_leaf_hash(out.leaf, LEAF_SIZE, out.leaf_hash)
        if tree_size > MAX_LEAVES or not kf_merkle_verify(out.leaf_hash, out.index, tree_size, parts.path,
                                                          parts.path_nodes, header + HEADER_ROOT):
            return 20
        return 0

    cdef bint header_is_signed(self, const uint8_t* signed_header, const uint8_t* host_key) except -1:
        cdef header_memo* memo
        cdef size_t i
        # the newest first: answers of one batch arrive together
        for i in range(min(self.headers_seen, <size_t>REMEMBERED_HEADERS)):
            memo = &self.headers[(self.headers_seen - 1 - i) % REMEMBERED_HEADERS]
            if (memcmp(memo.signed_header, signed_header, SIGNED_HEADER_SIZE) == 0
                    and memcmp(memo.host_key, host_key, 32) == 0):
                return True
        if not self.is_signed(host_key[:32], HEADER_CONTEXT, signed_header, HEADER_SIZE):
            return False
        memo = &self.headers[self.headers_seen % REMEMBERED_HEADERS]
        memcpy(memo.signed_header, signed_header, SIGNED_HEADER_SIZE)
        memcpy(memo.host_key, host_key, 32)
        self.headers_seen += 1
        return True

    cdef bint is_signed(self, bytes key, bytes context, const uint8_t* body, size_t n) except -1:
        """Whether the 64 bytes after the `n` of `body` are `key`'s signature over context || 0x00 || body."""
        return self.verify_signature(key, body[n:n + SIGNATURE_SIZE], context + body[:n])

    def check(self, bytes request not None, bytes cmid not None, bytes hardware_digest not None,
              bytes answer not None, *, uint64_t now_ms, uint64_t mark_ms=0, bint accept=True) -> Checked:
        """Checks the answer to a request of 220 bytes; `cmid` and `hardware_digest` (16 bytes each) were sealed in it.

        now_ms: the client's clock. mark_ms: the highest header time accepted in a grant, 0 when none. accept=False
        leaves out steps 24 and 25, for a stored lease. A refusal passes too: look at `result`. Raises AnswerRejected
        with the name of the check that failed and its step in details, ValueError for other lengths of what was sent.
        """
        cdef checked_t found
        cdef Checked checked
        cdef uint8_t request_hash[HASH_SIZE]
        cdef int failed
        if len(request) != REQUEST_SIZE or len(cmid) != ID_SIZE or len(hardware_digest) != ID_SIZE:
            raise ValueError("a request has 220 bytes, a CMID and a hardware digest 16 each")
        kf_sha256(request, REQUEST_SIZE, request_hash)
        failed = self.check_answer(request_hash, <const uint8_t*>request + REQUEST_TAG, cmid, hardware_digest, answer,
                                   len(answer), now_ms, mark_ms, accept, &found)
        if failed:
            name = CHECK_NAMES[failed]
            raise AnswerRejected(f"The host's answer failed check {failed}: {name}.", name=name, step=failed)
        checked = Checked.__new__(Checked)
        checked.leaf = found.leaf[:LEAF_SIZE]
        checked.leaf_hash = found.leaf_hash[:HASH_SIZE]
        checked.header = found.header[:HEADER_SIZE]
        checked.result = found.result
        return checked
