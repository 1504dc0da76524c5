/* Non-blocking TCP sockets and who of many is ready: epoll, or kqueue where there is none.
 *
 * epoll tells once of what has come (edge-triggered): asked about every socket until it has been read empty, it looks
 * at each two or three times a request. Whoever may have left something unread watches for the same again.
 *
 * Descriptors belong to the caller. No call blocks or allocates; each returns -1 and sets errno when it fails. */
#ifndef KF_SOCKETS_H
#define KF_SOCKETS_H

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define KF_READ 1
#define KF_WRITE 2
#define KF_BROKEN 4 /* reset, or closed in both directions: told whatever is watched for */
#define KF_ENDED 8  /* with KF_READ: the end, or a mark of urgent data, stops a read before it has seen everything */
#define KF_ACCEPT 16 /* to watch a listening socket for: told as KF_READ for as long as somebody waits */
#define KF_READY_MAX 512

typedef struct {
    void *owner;
    int what;
} kf_ready;

typedef union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} kf_address;

#if defined(__linux__)
#include <sys/epoll.h>

static inline int kf_poller_open(void) { return epoll_create1(EPOLL_CLOEXEC); }

/* From now on watches a descriptor for `what`: KF_READ, KF_WRITE, both or neither, or KF_ACCEPT; `before` is what it
 * was watched for, -1 the first time. What is ready now is told, also again. Closing ends it, unless another process
 * has the same socket. */
static inline int kf_poller_watch(int poller, int fd, void *owner, int before, int what)
{
    struct epoll_event event = {.data.ptr = owner};
    event.events = what & KF_ACCEPT ? (uint32_t)EPOLLIN : (uint32_t)EPOLLET;
    event.events |= (what & KF_READ ? EPOLLIN | EPOLLRDHUP | EPOLLPRI : 0u) | (what & KF_WRITE ? EPOLLOUT : 0u);
    return epoll_ctl(poller, before < 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event);
}

static inline void kf_poller_forget(int poller, int fd)
{
    epoll_ctl(poller, EPOLL_CTL_DEL, fd, NULL);
}

/* Fills `ready` with at most KF_READY_MAX descriptors that are ready now; how many. */
static inline int kf_poller_look(int poller, kf_ready *ready)
{
    struct epoll_event events[KF_READY_MAX];
    int found = epoll_wait(poller, events, KF_READY_MAX, 0);
    for (int i = 0; i < found; i++) {
        uint32_t seen = events[i].events;
        ready[i].owner = events[i].data.ptr;
        ready[i].what = (seen & EPOLLIN ? KF_READ : 0) | (seen & EPOLLOUT ? KF_WRITE : 0) |
                        (seen & (EPOLLERR | EPOLLHUP) ? KF_BROKEN | KF_ENDED : 0) |
                        (seen & (EPOLLRDHUP | EPOLLPRI) ? KF_ENDED : 0);
    }
    return found;
}

static inline int kf_accept_socket(int listener, struct sockaddr *address, socklen_t *size)
{
    return accept4(listener, address, size, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

static inline int kf_open_socket(int family)
{
    return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

#else /* nobody has run this part for this project yet */
#include <sys/event.h>

static inline int kf_poller_open(void) { return kqueue(); }

static inline int kf_poller_watch(int poller, int fd, void *owner, int before, int what)
{
    struct kevent changes[2];
    what |= what & KF_ACCEPT ? KF_READ : 0;
    int n = 0, changed = before < 0 ? what | KF_READ : before ^ what; /* told for as long as it is so: also again */
    if (changed & KF_READ)
        EV_SET(&changes[n++], fd, EVFILT_READ, EV_ADD | (what & KF_READ ? EV_ENABLE : EV_DISABLE), 0, 0, owner);
    if (changed & KF_WRITE)
        EV_SET(&changes[n++], fd, EVFILT_WRITE, what & KF_WRITE ? EV_ADD : EV_DELETE, 0, 0, owner);
    return kevent(poller, changes, n, NULL, 0, NULL);
}

static inline void kf_poller_forget(int poller, int fd)
{
    struct kevent change;
    EV_SET(&change, fd, EVFILT_READ, EV_DELETE, 0, 0, NULL);
    kevent(poller, &change, 1, NULL, 0, NULL);
}

static inline int kf_poller_look(int poller, kf_ready *ready)
{
    static const struct timespec now = {0, 0};
    struct kevent events[KF_READY_MAX];
    int found = kevent(poller, NULL, 0, events, KF_READY_MAX, &now);
    for (int i = 0; i < found; i++) {
        ready[i].owner = events[i].udata;
        ready[i].what = events[i].filter == EVFILT_READ ? KF_READ : KF_WRITE;
        /* a reader that only ended its side has no error */
        if (events[i].flags & EV_EOF && (events[i].fflags || events[i].filter == EVFILT_WRITE))
            ready[i].what |= KF_BROKEN;
    }
    return found;
}

static inline int kf_accept_socket(int listener, struct sockaddr *address, socklen_t *size)
{
    int fd = accept(listener, address, size);
    if (fd >= 0)
        fcntl(fd, F_SETFD, FD_CLOEXEC), fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static inline int kf_open_socket(int family)
{
    int fd = socket(family, SOCK_STREAM, 0);
    if (fd >= 0)
        fcntl(fd, F_SETFD, FD_CLOEXEC), fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}
#endif

/* Answers leave at once: a small write never waits for the acknowledgement of the last (RFC 896). Connections inherit
 * it from the socket that accepts them. */
static inline int kf_listen_without_delay(int listener)
{
    int on = 1;
    return setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* The next waiting connection, non-blocking. Its peer in 18 bytes: IPv6 or IPv4-mapped address (16), port (2,
 * little-endian); zeros when that is no IP address. */
static inline int kf_accept(int listener, uint8_t peer[18])
{
    kf_address address;
    socklen_t size = sizeof address;
    int fd = kf_accept_socket(listener, &address.any, &size);
    if (fd < 0)
        return -1;
    uint16_t port = 0;
    memset(peer, 0, 18);
    if (address.any.sa_family == AF_INET) {
        memset(peer + 10, 0xFF, 2);
        memcpy(peer + 12, &address.v4.sin_addr, 4);
        port = ntohs(address.v4.sin_port);
    } else if (address.any.sa_family == AF_INET6) {
        memcpy(peer, &address.v6.sin6_addr, 16);
        port = ntohs(address.v6.sin6_port);
    }
    peer[16] = (uint8_t)port;
    peer[17] = (uint8_t)(port >> 8);
    return fd;
}

/* A literal IP address with a port; -1 when it is none. The one call here that allocates, for a moment. */
static inline int kf_parse_address(const char *text, uint16_t port, kf_address *out)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(text, NULL, &hints, &found) != 0)
        return -1;
    memset(out, 0, sizeof *out);
    memcpy(out, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    if (out->any.sa_family == AF_INET)
        out->v4.sin_port = htons(port);
    else
        out->v6.sin6_port = htons(port);
    return 0;
}

static inline socklen_t kf_address_size(const kf_address *address)
{
    return address->any.sa_family == AF_INET ? sizeof address->v4 : sizeof address->v6;
}

/* A new socket that connects to `peer`, from `source` unless that is NULL; sends leave at once. What becomes of it, the
 * first send or receive tells. */
static inline int kf_connect(const kf_address *peer, const kf_address *source)
{
    int on = 1, fd = kf_open_socket(peer->any.sa_family);
    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if ((source && bind(fd, &source->any, kf_address_size(source)) < 0) ||
        (connect(fd, &peer->any, kf_address_size(peer)) < 0 && errno != EINPROGRESS)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

/* A descriptor to give up when there are no others left. */
static inline int kf_open_spare(void) { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

/* Bytes read, 0 at the end, -1 with EAGAIN when nothing is there. */
static inline ssize_t kf_receive(int fd, uint8_t *out, size_t n)
{
    ssize_t got;
    do
        got = recv(fd, out, n, 0);
    while (got < 0 && errno == EINTR);
    return got;
}

/* Bytes that the kernel took, maybe 0; -1 when the connection is gone. The interpreter ignores SIGPIPE. */
static inline ssize_t kf_send(int fd, const uint8_t *data, size_t n)
{
    ssize_t sent;
    do
        sent = send(fd, data, n, 0);
    while (sent < 0 && errno == EINTR);
    /* What is not connected yet says EAGAIN on Linux, ENOTCONN elsewhere. */
    return sent < 0 && (errno == EAGAIN || errno == ENOTCONN) ? 0 : sent;
}

#endif
