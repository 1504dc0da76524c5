/* Loaded into a host and its children (LD_PRELOAD), it writes down in one total order what they ask of the disk below
 * one folder and of their TCP connections. tests/durability/trace.py reads the result.
 *
 *   a change of the disk, or a send    is written down before the call and completed after it
 *   a sync                             takes a place when it begins and is written down after it returned
 *   a receive                          is written down after it returned
 *
 * DURABILITY_TRACE     the trace file, made by trace.py
 * DURABILITY_FOLDER    the folder, an absolute path without symbolic links
 * DURABILITY_PRETEND   syncs of files whose names contain this are not made and not written down: a negative control */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trace.h"

static const char *folder, *pretend;
static size_t folder_size;

#define NEXT(name) ((__typeof__(&name))next(#name))

static void *next(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

__attribute__((constructor)) static void open_trace(void)
{
    const char *path = getenv("DURABILITY_TRACE");
    struct stat found;
    int fd;
    folder = getenv("DURABILITY_FOLDER");
    pretend = getenv("DURABILITY_PRETEND");
    if (path == NULL || folder == NULL)
        return;
    folder_size = strlen(folder);
    fd = NEXT(open)(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &found) < 0)
        abort();
    trace = mmap(NULL, (size_t)found.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (trace == MAP_FAILED)
        abort();
    close(fd);
}

/* ---- what a descriptor or a path is to us */

static int is_below(const char *path)
{
    return strncmp(path, folder, folder_size) == 0 && (path[folder_size] == '/' || path[folder_size] == '\0');
}

static int read_link_of(int fd, char *out)
{
    char link[64];
    ssize_t size;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    size = readlink(link, out, PATH_MAX - 1);
    out[size < 0 ? 0 : size] = '\0';
    return size > 0;
}

enum target { OTHER, FILE_BELOW, CONNECTION };

/* Asked anew each time: descriptors are closed and used again in places that cannot be seen from here. */
static enum target look_at(int fd, uint64_t *file, char *path)
{
    struct stat found;
    int saved = errno, protocol = 0;
    socklen_t size = sizeof protocol;
    enum target target = OTHER;
    if (trace != NULL && fstat(fd, &found) == 0) {
        *file = found.st_ino;
        if (S_ISREG(found.st_mode) || S_ISDIR(found.st_mode))
            target = read_link_of(fd, path) && is_below(path) ? FILE_BELOW : OTHER;
        else if (S_ISSOCK(found.st_mode) && getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0)
            target = protocol == IPPROTO_TCP ? CONNECTION : OTHER;
    }
    errno = saved;
    return target;
}

static int find_path(int base, const char *path, char *out)
{
    char start[PATH_MAX] = "";
    int saved = errno, found;
    if (trace == NULL || path == NULL)
        return 0;
    if (path[0] != '/' && !(base == AT_FDCWD ? getcwd(start, sizeof start) != NULL : read_link_of(base, start)))
        return 0;
    found = snprintf(out, PATH_MAX, "%s%s%s", start, path[0] == '/' ? "" : "/", path) < PATH_MAX && is_below(out);
    errno = saved;
    return found;
}

/* ---- data: write, send, receive */

static int64_t find_offset(int fd)
{
    struct stat found;
    if (fcntl(fd, F_GETFL) & O_APPEND)
        return fstat(fd, &found) == 0 ? found.st_size : 0;
    return lseek(fd, 0, SEEK_CUR);
}

#define DATA_CALL(target_offset, parts, count, call)                                                                   \
    uint64_t file;                                                                                                     \
    char path[PATH_MAX];                                                                                               \
    enum target target = look_at(fd, &file, path);                                                                     \
    struct event *event;                                                                                               \
    ssize_t result;                                                                                                    \
    if (target == OTHER)                                                                                               \
        return call;                                                                                                   \
    event = target == CONNECTION ? write_down(SEND, file, 0, parts, count)                                             \
                                 : write_down(WRITE, file, target_offset, parts, count);                               \
    result = call;                                                                                                     \
    complete(event, result);                                                                                           \
    return result;

ssize_t write(int fd, const void *data, size_t size)
{
    struct iovec part = {(void *)data, size};
    DATA_CALL(find_offset(fd), &part, 1, NEXT(write)(fd, data, size))
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    DATA_CALL(find_offset(fd), parts, count, NEXT(writev)(fd, parts, count))
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    struct iovec part = {(void *)data, size};
    DATA_CALL(offset, &part, 1, NEXT(pwrite)(fd, data, size, offset))
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    struct iovec part = {(void *)data, size};
    DATA_CALL(offset, &part, 1, NEXT(pwrite64)(fd, data, size, offset))
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    DATA_CALL(offset, parts, count, NEXT(pwritev)(fd, parts, count, offset))
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset)
{
    DATA_CALL(offset, parts, count, NEXT(pwritev64)(fd, parts, count, offset))
}

ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    DATA_CALL(offset, parts, count, NEXT(pwritev2)(fd, parts, count, offset, flags))
}

ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags)
{
    DATA_CALL(offset, parts, count, NEXT(pwritev64v2)(fd, parts, count, offset, flags))
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    struct iovec part = {(void *)data, size};
    DATA_CALL(0, &part, 1, NEXT(send)(fd, data, size, flags))
}

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address, socklen_t length)
{
    struct iovec part = {(void *)data, size};
    DATA_CALL(0, &part, 1, NEXT(sendto)(fd, data, size, flags, address, length))
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    DATA_CALL(0, message->msg_iov, (int)message->msg_iovlen, NEXT(sendmsg)(fd, message, flags))
}

static ssize_t note_received(int fd, const void *data, ssize_t size)
{
    uint64_t file;
    char path[PATH_MAX];
    struct iovec part = {(void *)data, size > 0 ? (size_t)size : 0};
    if (size > 0 && look_at(fd, &file, path) == CONNECTION)
        complete(write_down(RECEIVE, file, 0, &part, 1), size);
    return size;
}

ssize_t read(int fd, void *data, size_t size)
{
    return note_received(fd, data, NEXT(read)(fd, data, size));
}

ssize_t recv(int fd, void *data, size_t size, int flags)
{
    return note_received(fd, data, NEXT(recv)(fd, data, size, flags));
}

/* ---- sizes and syncs */

#define SIZE_CALL(kind, at, length, call)                                                                              \
    uint64_t file;                                                                                                     \
    char path[PATH_MAX];                                                                                               \
    struct event *event;                                                                                               \
    int result;                                                                                                        \
    if (look_at(fd, &file, path) != FILE_BELOW)                                                                        \
        return call;                                                                                                   \
    event = write_down(kind, file, at, NULL, 0);                                                                       \
    event->data_size = (uint64_t)(length);                                                                             \
    result = call;                                                                                                     \
    complete(event, result);                                                                                           \
    return result;

int ftruncate(int fd, off_t size)
{
    SIZE_CALL(TRUNCATE, size, 0, NEXT(ftruncate)(fd, size))
}

int ftruncate64(int fd, off64_t size)
{
    SIZE_CALL(TRUNCATE, size, 0, NEXT(ftruncate64)(fd, size))
}

int posix_fallocate(int fd, off_t offset, off_t size)
{
    SIZE_CALL(ALLOCATE, offset, size, NEXT(posix_fallocate)(fd, offset, size))
}

int posix_fallocate64(int fd, off64_t offset, off64_t size)
{
    SIZE_CALL(ALLOCATE, offset, size, NEXT(posix_fallocate64)(fd, offset, size))
}

#define SYNC_CALL(call)                                                                                                \
    uint64_t file;                                                                                                     \
    char path[PATH_MAX];                                                                                               \
    struct event *begin, *event;                                                                                       \
    int result;                                                                                                        \
    if (look_at(fd, &file, path) != FILE_BELOW)                                                                        \
        return call;                                                                                                   \
    if (pretend != NULL && strstr(path, pretend) != NULL)                                                              \
        return 0;                                                                                                      \
    begin = take_place(BEGIN, file, 0, 0);                                                                             \
    result = call;                                                                                                     \
    if (result == 0) {                                                                                                 \
        event = take_place(SYNC, file, 0, 0);                                                                          \
        event->begin = (uint64_t)((char *)begin - (char *)trace);                                                      \
        event->ready = 1;                                                                                              \
        complete(event, 0);                                                                                            \
    }                                                                                                                  \
    return result;

int fsync(int fd)
{
    SYNC_CALL(NEXT(fsync)(fd))
}

int fdatasync(int fd)
{
    SYNC_CALL(NEXT(fdatasync)(fd))
}

/* ---- names */

static struct event *write_down_path(enum kind kind, const char *path, const char *other)
{
    struct iovec parts[2] = {{(void *)path, strlen(path) + 1}, {(void *)other, other == NULL ? 0 : strlen(other) + 1}};
    return write_down(kind, 0, 0, parts, other == NULL ? 1 : 2);
}

static int note_made(struct event *event, const char *path, int result)
{
    struct stat found;
    int saved = errno;
    if (result >= 0 && lstat(path, &found) == 0)
        event->file = found.st_ino;
    complete(event, result);
    errno = saved;
    return result;
}

static int open_at(int base, const char *path, int flags, mode_t mode)
{
    char below[PATH_MAX];
    struct stat found;
    struct event *event;
    int saved = errno, there, result;
    if (!(flags & (O_CREAT | O_TRUNC)) || !find_path(base, path, below))
        return NEXT(openat)(base, path, flags, mode);
    there = lstat(below, &found) == 0;
    errno = saved;
    if (there && !(flags & O_TRUNC))
        return NEXT(openat)(base, path, flags, mode);
    event = there ? write_down(TRUNCATE, found.st_ino, 0, NULL, 0) : write_down_path(CREATE, below, NULL);
    result = NEXT(openat)(base, path, flags, mode);
    return note_made(event, below, result);
}

static mode_t take_mode(int flags, va_list arguments)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

#define OPEN_CALL(base, more_flags)                                                                                    \
    va_list arguments;                                                                                                 \
    mode_t mode;                                                                                                       \
    va_start(arguments, flags);                                                                                        \
    mode = take_mode(flags, arguments);                                                                                \
    va_end(arguments);                                                                                                 \
    return open_at(base, path, flags | more_flags, mode);

int open(const char *path, int flags, ...)
{
    OPEN_CALL(AT_FDCWD, 0)
}

int open64(const char *path, int flags, ...)
{
    OPEN_CALL(AT_FDCWD, O_LARGEFILE)
}

int openat(int base, const char *path, int flags, ...)
{
    OPEN_CALL(base, 0)
}

int openat64(int base, const char *path, int flags, ...)
{
    OPEN_CALL(base, O_LARGEFILE)
}

static int rename_at(int old_base, const char *old, int new_base, const char *new)
{
    char from[PATH_MAX], to[PATH_MAX];
    struct event *event;
    int result;
    if (!find_path(old_base, old, from) || !find_path(new_base, new, to))
        return NEXT(renameat)(old_base, old, new_base, new);
    event = write_down_path(RENAME, from, to);
    result = NEXT(renameat)(old_base, old, new_base, new);
    complete(event, result);
    return result;
}

int rename(const char *old, const char *new)
{
    return rename_at(AT_FDCWD, old, AT_FDCWD, new);
}

int renameat(int old_base, const char *old, int new_base, const char *new)
{
    return rename_at(old_base, old, new_base, new);
}

int unlinkat(int base, const char *path, int flags)
{
    char below[PATH_MAX];
    struct event *event;
    int result;
    if (!find_path(base, path, below))
        return NEXT(unlinkat)(base, path, flags);
    event = write_down_path(UNLINK, below, NULL);
    result = NEXT(unlinkat)(base, path, flags);
    complete(event, result);
    return result;
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int mkdirat(int base, const char *path, mode_t mode)
{
    char below[PATH_MAX];
    struct event *event;
    if (!find_path(base, path, below))
        return NEXT(mkdirat)(base, path, mode);
    event = write_down_path(MKDIR, below, NULL);
    return note_made(event, below, NEXT(mkdirat)(base, path, mode));
}

int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}
