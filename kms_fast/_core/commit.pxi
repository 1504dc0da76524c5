# The commit thread: writes one record and syncs it, without ever needing the interpreter.
#
# The loop's thread hands over one batch at a time and is woken through a file descriptor, so that no commit waits for
# the interpreter lock. The committer keeps a reference to the batch while its record is being written; it owns no
# descriptor.

cdef extern from "commit.h" nogil:
    int kf_commit(int fd, const uint8_t* record, size_t n, int64_t offset, int64_t zeros_to)


@cython.final
cdef class Committer:
    """Writes records and syncs them in a thread of its own, one at a time.

    Committer(wake_fd): one byte is written to `wake_fd` when a commit has ended. `run` is the thread's body; `submit`
    starts a commit, `finish` gives its outcome, `stop` ends the thread.
    """

    cdef PyThread_type_lock work
    cdef Batch batch
    cdef int wake_fd
    cdef int fd
    cdef int64_t offset
    cdef int64_t zeros_to
    cdef size_t size
    cdef int error
    cdef bint stopping

    def __cinit__(self, int wake_fd):
        self.wake_fd = wake_fd
        self.work = PyThread_allocate_lock()
        if self.work == NULL:
            raise MemoryError
        PyThread_acquire_lock(self.work, WAIT_LOCK)

    def __dealloc__(self):
        if self.work != NULL:
            PyThread_free_lock(self.work)

    def run(self) -> None:
        """Waits for work until `stop`; runs in a thread of its own and gives the interpreter lock back at once."""
        cdef const uint8_t* record
        with nogil:
            while True:
                PyThread_acquire_lock(self.work, WAIT_LOCK)
                if self.stopping:
                    break
                record = self.batch.record
                self.error = kf_commit(self.fd, record, self.size, self.offset, self.zeros_to)
                while write(self.wake_fd, b"\x01", 1) < 0 and errno == EINTR:
                    pass

    def submit(self, Batch batch not None, int fd, int64_t offset, int64_t zeros_to=0) -> int:
        """Starts writing a sealed batch's record at `offset`, and zeros behind it up to `zeros_to`; the record's size
        in bytes. The previous commit must be finished.
        """
        if self.batch is not None:
            raise RuntimeError("a commit is under way")
        self.batch, self.fd, self.size = batch, fd, batch.record_size()
        self.offset, self.zeros_to = offset, zeros_to
        PyThread_release_lock(self.work)
        return self.size

    def finish(self) -> Batch:
        """The batch of the commit that has ended, now on disk. Raises OSError when it is not; then nothing is known
        of the file.
        """
        batch, self.batch = self.batch, None
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return batch

    def stop(self) -> None:
        """Ends the thread once it is idle."""
        self.stopping = True
        PyThread_release_lock(self.work)
