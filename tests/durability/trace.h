/* The trace: a file that every process maps. A place in it is taken with one atomic addition, so places are the order of
 * events across threads and processes, and what a killed process wrote down stays. */
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

enum kind { BEGIN = 1, SYNC, WRITE, TRUNCATE, ALLOCATE, CREATE, MKDIR, RENAME, UNLINK, SEND, RECEIVE };

#define UNKNOWN INT64_MIN   /* the result of a call that had not returned when its process died */

struct event {
    _Atomic uint64_t size;      /* of the whole event, a multiple of 8 */
    uint64_t done;              /* the trace's end when the call had returned, 0 before */
    int64_t result;
    uint64_t begin;             /* SYNC: the place of its BEGIN */
    uint64_t file;              /* inode of a file, folder or socket */
    int64_t offset;             /* WRITE, ALLOCATE: where; TRUNCATE: the new size */
    uint64_t data_size;         /* ALLOCATE: the size allocated, without data */
    uint32_t kind;
    uint32_t ready;             /* whether what follows is complete: otherwise the call was not made */
    uint8_t data[];
};

struct head {
    char magic[8];
    _Atomic uint64_t end;
    uint64_t room;
};

static struct head *trace;

static struct event *take_place(enum kind kind, uint64_t file, int64_t offset, size_t data_size)
{
    uint64_t size = (sizeof(struct event) + data_size + 7) & ~(uint64_t)7;
    uint64_t place = atomic_fetch_add(&trace->end, size);
    struct event *event = (struct event *)((char *)trace + place);
    if (place + size > trace->room) {
        fprintf(stderr, "the trace is full\n");
        abort();
    }
    atomic_store(&event->size, size);
    event->result = UNKNOWN;
    event->file = file;
    event->offset = offset;
    event->data_size = data_size;
    event->kind = kind;
    return event;
}

static void complete(struct event *event, int64_t result)
{
    event->result = result;
    event->done = atomic_load(&trace->end);
}

static struct event *write_down(enum kind kind, uint64_t file, int64_t offset, const struct iovec *parts, int count)
{
    size_t size = 0, at = 0;
    struct event *event;
    for (int i = 0; i < count; i++)
        size += parts[i].iov_len;
    event = take_place(kind, file, offset, size);
    for (int i = 0; i < count; i++) {
        memcpy(event->data + at, parts[i].iov_base, parts[i].iov_len);
        at += parts[i].iov_len;
    }
    event->ready = 1;
    return event;
}
