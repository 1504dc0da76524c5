/* One durable append: all bytes at the offset, then a sync of the data. Returns 0 or an errno. */
#ifndef KF_COMMIT_H
#define KF_COMMIT_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

static int kf_commit(int fd, const uint8_t *record, size_t n, int64_t offset)
{
    while (n > 0) {
        ssize_t written = pwrite(fd, record, n, (off_t)offset);
        if (written < 0) {
            if (errno == EINTR)
                continue;
            return errno;
        }
        if (written == 0)
            return ENOSPC;
        record += written;
        offset += written;
        n -= (size_t)written;
    }
#ifdef __APPLE__
    /* fsync there leaves the data in the drive's cache. */
    return fcntl(fd, F_FULLFSYNC) == -1 ? errno : 0;
#else
    /* Never again after an error: the kernel may have dropped the pages and would report success (LWN 752063). */
    return fdatasync(fd) == -1 ? errno : 0;
#endif
}

#endif
