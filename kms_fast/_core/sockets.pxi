# Many sockets behind one descriptor, which the event loop watches: what a host's Poller and a LoadRun have in common.
#
# A SocketSet owns its descriptor and the buffer that every read of the set goes into; connections own their sockets.

cdef extern from "sockets.h" nogil:
    enum:
        KF_READ
        KF_WRITE
        KF_BROKEN
        KF_ENDED
        KF_ACCEPT
        KF_READY_MAX
    ctypedef struct kf_ready:
        void* owner
        int what
    ctypedef struct kf_address:
        pass
    int kf_poller_open()
    int kf_poller_watch(int poller, int fd, void* owner, int before, int what)
    void kf_poller_forget(int poller, int fd)
    int kf_poller_look(int poller, kf_ready* ready)
    int kf_listen_without_delay(int listener)
    int kf_accept(int listener, uint8_t* peer)
    int kf_parse_address(const char* text, uint16_t port, kf_address* out)
    int kf_connect(const kf_address* peer, const kf_address* source)
    int kf_open_spare()
    ssize_t kf_receive(int fd, uint8_t* out, size_t n)
    ssize_t kf_send(int fd, const uint8_t* data, size_t n)

cdef extern from "unistd.h" nogil:
    int close_descriptor "close"(int fd)

cdef enum:
    READ_SIZE = 1 << 16


@cython.final
cdef class Address:
    """Address("127.0.0.1", 1688): a literal IP address, IPv6 also with its zone, and a port. Raises ValueError."""

    cdef kf_address socket_address

    def __cinit__(self, str address not None, uint16_t port):
        if kf_parse_address(address.encode(), port, &self.socket_address) < 0:
            raise ValueError(f"{address} is no IP address")


cdef class SocketSet:
    """Sockets of which the event loop watches only `fileno`. Raises OSError when there are no descriptors left."""

    cdef int fd
    cdef list closed        # connections that what is ready in this round may still point to
    cdef uint8_t* buffer    # of the read in work

    def __cinit__(self):
        self.fd, self.closed = -1, []
        self.buffer = <uint8_t*>PyMem_Malloc(READ_SIZE)
        if self.buffer == NULL:
            raise MemoryError
        self.fd = kf_poller_open()
        if self.fd < 0:
            raise OSError(errno, os.strerror(errno))

    def __dealloc__(self):
        if self.fd >= 0:
            close_descriptor(self.fd)
        PyMem_Free(self.buffer)

    def fileno(self) -> int:
        """The descriptor to watch."""
        return self.fd
