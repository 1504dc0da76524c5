# The sockets of a server: whoever connects becomes a Connection, and whatever is ready is worked off.
#
# The event loop watches the poller's one descriptor instead of thousands. Its transports cost a connection more than
# everything that is done here (docs/decisions.md). A Poller owns its descriptors; it borrows listening sockets. The
# event loop's thread is the only one here.

cdef enum:
    ACCEPTED_AT_ONCE = 256      # then the connections that are there have their turn


@cython.final
cdef class Listener:
    """A listening socket, and the port that its connections name in a bind_ack."""

    cdef int fd
    cdef bytes address

    def __cinit__(self, int fd, str port not None):
        self.fd, self.address = fd, port.encode("ascii") + b"\0"
        if len(self.address) > MAX_ADDRESS_SIZE:
            raise ValueError("a port has at most 5 digits")


@cython.final
cdef class Poller(SocketSet):
    """Accepts and serves the connections of a host.

    Poller(host, on_error): the event loop calls `work` whenever `fileno` is readable. `on_error(exception)` is told of
    a bug that cost a connection. Raises OSError when there are no descriptors left.
    """

    cdef Host host
    cdef object on_error
    cdef int spare_fd       # given up for a moment to turn away who comes when no descriptor is left
    cdef list listeners

    def __cinit__(self, Host host not None, object on_error):
        self.host, self.on_error, self.listeners = host, on_error, []
        self.spare_fd = kf_open_spare()
        if self.spare_fd < 0:
            raise OSError(errno, os.strerror(errno))

    def __dealloc__(self):
        if self.spare_fd >= 0:
            close_descriptor(self.spare_fd)

    def listen(self, int fd, str port not None) -> None:
        """Accepts connections of a listening, non-blocking socket from now on; it stays the caller's. `port` is what a
        bind_ack says. Raises OSError.
        """
        cdef Listener listener = Listener(fd, port)
        if kf_listen_without_delay(fd) < 0 or kf_poller_watch(self.fd, fd, <void*>listener, -1, KF_ACCEPT) < 0:
            raise OSError(errno, os.strerror(errno))
        self.listeners.append(listener)

    def stop_listening(self) -> None:
        """Accepts whoever waits now, and nobody after that."""
        cdef Listener listener
        for listener in self.listeners:
            while self.accept_waiting(listener):
                pass
            kf_poller_forget(self.fd, listener.fd)
        self.listeners = []

    def work(self) -> None:
        """Works off what is ready now."""
        cdef kf_ready[KF_READY_MAX] ready
        cdef Connection connection
        cdef object owner
        cdef int i
        for i in range(kf_poller_look(self.fd, ready)):
            owner = <object>ready[i].owner
            if isinstance(owner, Connection):
                connection = <Connection>owner
                try:
                    connection.on_ready(ready[i].what)
                except Exception as error:
                    connection.close()
                    self.on_error(error)
            else:
                self.accept_waiting(<Listener>owner)
        self.closed.clear()

    def adopt(self, int fd, str port not None, bytes peer=None) -> Connection:
        """Serves a connected, non-blocking socket from now on and owns it; `peer` are 18 bytes. For tests."""
        if peer is None:
            peer = bytes(PEER_SIZE)
        if len(peer) != PEER_SIZE:
            raise ValueError(f"a peer is {PEER_SIZE} bytes")
        return self.serve(fd, Listener(-1, port), peer)

    cdef bint accept_waiting(self, Listener listener) except -1:
        """Accepts some of those who wait; whether there may be more."""
        cdef uint8_t peer[PEER_SIZE]
        cdef int fd, i
        for i in range(ACCEPTED_AT_ONCE):
            fd = kf_accept(listener.fd, peer)
            if fd >= 0:
                self.serve(fd, listener, peer)
            elif errno == EMFILE or errno == ENFILE:
                if self.turn_away(listener) < 0:
                    return False
            elif errno != EINTR and errno != ECONNABORTED:
                return False
        return True

    cdef Connection serve(self, int fd, Listener listener, const uint8_t* peer):
        """The new connection; past the host's limit it is closed at once."""
        cdef Host host = self.host
        cdef Connection connection = Connection.__new__(Connection)
        connection.begin(host.rpc, listener.address, len(listener.address), host.next_association_group())
        connection.host, connection.poller, connection.fd, connection.watched = host, self, fd, KF_READ
        memcpy(connection.peer, peer, PEER_SIZE)
        if (<Py_ssize_t>len(host.connections) >= host.max_connections
                or kf_poller_watch(self.fd, fd, <void*>connection, -1, KF_READ) < 0):
            host.counted.connections_refused += 1
            connection.close()
        else:
            host.connections.add(connection)
            host.counted.connections += 1
        return connection

    cdef int turn_away(self, Listener listener) noexcept:
        """Closes the connection that waits longest, for which there is no descriptor; -1 when that is not possible.

        Otherwise it would wait, and its socket be ready, for ever.
        """
        cdef uint8_t peer[PEER_SIZE]
        cdef int fd
        if self.spare_fd >= 0:
            close_descriptor(self.spare_fd)
        fd = kf_accept(listener.fd, peer)
        if fd >= 0:
            self.host.counted.connections_refused += 1
            close_descriptor(fd)
        # Another process may have taken the system's last one meanwhile: then there is none until the next time.
        self.spare_fd = kf_open_spare()
        return -1 if fd < 0 else 0
