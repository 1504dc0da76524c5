# What a host may decide: its products, as an immutable table that is swapped whole when catalog or certificate change.
#
# The table owns a C array with one row for each SKU and a reference to each SKU's keys. Lookups cannot fail with an
# exception.

cdef struct Product:
    uint8_t sku_id[ID_SIZE]
    uint8_t family          # row of the table's families
    uint8_t family_index    # position in the host certificate, NO_FAMILY when it is not there
    uint16_t generation
    bint covered            # family certified, generation not above the certified one
    uint32_t validity_min
    uint32_t activation_interval_min
    uint32_t renewal_interval_min
    PyObject* keys          # SkuKeys, owned by AdmissionTable.all_keys


@cython.final
cdef class AdmissionTable:
    """Products, families and certificates of a host: everything that answers depend on and that a reload may change.

    AdmissionTable(products, families, certificates, host_id, serial, not_before_ms, not_after_ms, revocations):
    `products` are tuples (SkuKeys, row of `families`, family index in the certificate, generation, covered, validity,
    activation interval, renewal interval), spans in minutes; `families` are FamilyCount; `certificates` is host
    certificate || issuer certificate as in an answer; `revocations` the newest signed list or b"". Raises ValueError
    for what cannot be, MemoryError.
    """

    cdef readonly list families
    cdef readonly bytes certificates
    cdef readonly bytes host_id
    cdef readonly bytes revocations
    cdef readonly uint64_t serial
    cdef readonly uint64_t not_before_ms
    cdef readonly uint64_t not_after_ms
    cdef list all_keys
    cdef Product* products
    cdef int product_count

    def __cinit__(
        self, list products not None, list families not None, bytes certificates not None, bytes host_id not None,
        uint64_t serial, uint64_t not_before_ms, uint64_t not_after_ms, bytes revocations not None,
    ):
        cdef SkuKeys keys
        cdef Product* row
        if len(host_id) != ID_SIZE:
            raise ValueError("a host ID has 16 bytes")
        if ANSWER_PATH + MAX_PATH_NODES * HASH_SIZE + SIGNED_HEADER_SIZE + len(certificates) > ANSWER_MAX_SIZE:
            raise ValueError(f"certificates of {len(certificates)} bytes do not fit an answer")
        if 0 < len(revocations) < REVOCATIONS_HEADER_SIZE:
            raise ValueError("a revocation list is longer than its header")
        self.families = [<FamilyCount?>family for family in families]
        self.certificates, self.host_id, self.revocations = certificates, host_id, revocations
        self.serial, self.not_before_ms, self.not_after_ms = serial, not_before_ms, not_after_ms
        self.all_keys = []
        self.products = <Product*>PyMem_Calloc(max(1, len(products)), sizeof(Product))
        if self.products == NULL:
            raise MemoryError
        for keys, family, family_index, generation, covered, validity, activation, renewal in products:
            if not 0 <= family < len(families):
                raise ValueError(f"a product names family {family} of {len(families)}")
            row = &self.products[self.product_count]
            memcpy(row.sku_id, <const uint8_t*>keys.sku_id, ID_SIZE)
            row.family, row.family_index, row.generation, row.covered = family, family_index, generation, covered
            row.validity_min, row.activation_interval_min, row.renewal_interval_min = validity, activation, renewal
            row.keys = <PyObject*>keys
            self.all_keys.append(keys)
            self.product_count += 1

    def __dealloc__(self):
        PyMem_Free(self.products)

    cdef int find_product(self, const uint8_t* sku_id) noexcept:
        """Row of the product with this SKU ID, -1 when it is not in the catalog."""
        cdef int row
        for row in range(self.product_count):
            if memcmp(self.products[row].sku_id, sku_id, ID_SIZE) == 0:
                return row
        return -1

    cdef uint32_t revocation_number(self) noexcept:
        return load_u32(<const uint8_t*>self.revocations + REVOCATIONS_NUMBER) if self.revocations else 0
