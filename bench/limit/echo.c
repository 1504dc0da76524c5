/* The echo limit: what the kernel alone leaves a server on this machine (bench/README.md).
 *
 * Answers a bind PDU with one ready-made answer and every other PDU with another, and does nothing else: epoll_wait of 512 events,
 * exactly one read and one write a request, TCP_NODELAY. It takes every read for one whole PDU; its clients send no other way.
 *
 *   echo BIND_ACK_HEX RESPONSE_HEX      prints "listening on 127.0.0.1:PORT" and runs until it is killed
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 512, BUFFER_SIZE = 65536, PTYPE_OFFSET = 2, PTYPE_BIND = 11 };

struct bytes {
    unsigned char *at;
    size_t size;
};

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static struct bytes read_hex(const char *hex)
{
    struct bytes bytes = {malloc(strlen(hex) / 2), strlen(hex) / 2};
    for (size_t i = 0; i < bytes.size; i++)
        if (sscanf(hex + 2 * i, "%2hhx", bytes.at + i) != 1) {
            fprintf(stderr, "not hexadecimal: %s\n", hex);
            exit(2);
        }
    return bytes;
}

static int listen_on_loopback(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) < 0 || listen(listener, 4096) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) < 0)
        fail("listen");
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

static void accept_all(int epoll, int listener)
{
    int connection, on = 1;
    while ((connection = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = connection};
        setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, connection, &event) < 0)
            fail("epoll_ctl");
    }
    if (errno != EAGAIN && errno != ECONNABORTED)
        fail("accept");
}

static void answer(int connection, struct bytes bind_ack, struct bytes response)
{
    unsigned char buffer[BUFFER_SIZE];
    ssize_t size = read(connection, buffer, sizeof buffer);
    if (size <= PTYPE_OFFSET) {
        close(connection);
        return;
    }
    struct bytes ready = buffer[PTYPE_OFFSET] == PTYPE_BIND ? bind_ack : response;
    if (write(connection, ready.at, ready.size) != (ssize_t)ready.size)
        close(connection);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: echo BIND_ACK_HEX RESPONSE_HEX\n");
        return 2;
    }
    struct bytes bind_ack = read_hex(argv[1]), response = read_hex(argv[2]);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = listen_on_loopback(), epoll = epoll_create1(0);
    struct epoll_event events[EVENTS], listening = {.events = EPOLLIN, .data.fd = listener};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &listening) < 0)
        fail("epoll");
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        if (ready < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == listener)
                accept_all(epoll, listener);
            else
                answer(events[i].data.fd, bind_ack, response);
        }
    }
}
