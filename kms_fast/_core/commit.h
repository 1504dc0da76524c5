/* One durable append. */
#ifndef KF_COMMIT_H
#define KF_COMMIT_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

/* Writes all bytes at the offset. Returns 0 or an errno. */
static int kf_write_at(int fd, const uint8_t *data, size_t n, int64_t offset)
{
    while (n > 0) {
        ssize_t written = pwrite(fd, data, n, (off_t)offset);
        if (written < 0) {
            if (errno == EINTR)
                continue;
            return errno;
        }
        if (written == 0)
            return ENOSPC;
        data += written;
        offset += written;
        n -= (size_t)written;
    }
    return 0;
}

/* All bytes at the offset and zeros behind them up to `zeros_to`, if that lies further, then a sync of the data.
 * Returns 0 or an errno. */
static int kf_commit(int fd, const uint8_t *record, size_t n, int64_t offset, int64_t zeros_to)
{
    static uint8_t zeros[1 << 19]; /* never written, so they take no memory */
    int error = kf_write_at(fd, record, n, offset);
    for (int64_t at = offset + (int64_t)n; at < zeros_to && !error; at += (int64_t)sizeof zeros) {
        int64_t left = zeros_to - at;
        error = kf_write_at(fd, zeros, left < (int64_t)sizeof zeros ? (size_t)left : sizeof zeros, at);
    }
    if (error)
        return error;
#ifdef __APPLE__
    /* fsync there leaves the data in the drive's cache. */
    return fcntl(fd, F_FULLFSYNC) == -1 ? errno : 0;
#else
    /* Never again after an error: the kernel may have dropped the pages and would report success (LWN 752063). */
    return fdatasync(fd) == -1 ? errno : 0;
#endif
}

#endif
