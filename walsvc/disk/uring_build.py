"""Builds walsvc.disk._uring: the part of the io_uring disk that has to be C, which is the ring itself.

cffi API mode with the limited API, so that one binary serves every CPython from 3.11 on. liburing is linked statically
where liburing.a is installed, because a wheel or a container image then needs no library at run time.

What is decided here and nowhere else:

* One ring, one thread. IORING_SETUP_SINGLE_ISSUER (6.0) and COOP_TASKRUN (5.19) spare locking and interrupts; a kernel
  that knows neither gives EINVAL and gets a plain ring.
* The ring's own descriptor is readable while completions wait (io_uring(7)), so every event loop can watch it. An eventfd beside it
  would cost a read and a wake-up more for each completion.
* A durable write is either one WRITE with RWF_DSYNC, or a WRITE linked to an FSYNC(DATASYNC). The link orders them: a
  short or failed write breaks it and the fsync ends with -ECANCELED (io_uring_enter(2), IOSQE_IO_LINK). Bit 0 of
  user_data tells the two completions apart.
* A link does not span two calls of io_uring_enter: a write that the kernel took alone has lost its sync, which would go
  alone next and may overtake it. So after such a call nothing is submitted any more.
* Every submission has IOSQE_ASYNC: a worker thread of the kernel issues it. Issued by the caller, a write blocks in
  io_uring_enter where the file system waits (for its journal, for a page of the page cache), and with it the event loop.
  The first workers are started when the ring is made, since later there may be no thread to be had.
* No error is judged here. Numbers go up to Python as the kernel gave them.
"""

from __future__ import annotations

import os
import subprocess
from typing import Any

from cffi import FFI

DECLARATIONS = """
struct walsvc_ring;
struct walsvc_ring *walsvc_ring_open(unsigned entries, int *error);
void walsvc_ring_close(struct walsvc_ring *);
int walsvc_ring_event(struct walsvc_ring *);
unsigned walsvc_ring_unsubmitted(struct walsvc_ring *);
int walsvc_ring_write(struct walsvc_ring *, int file, const char *bytes, unsigned length, uint64_t offset,
                      uint64_t token, int linked);
int walsvc_ring_flush(struct walsvc_ring *);
int walsvc_ring_reap(struct walsvc_ring *, uint64_t *tokens, int32_t *results, int room);
int walsvc_ring_wait(struct walsvc_ring *);
"""

SOURCE = r"""
#include <errno.h>
#include <liburing.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef IORING_SETUP_COOP_TASKRUN
#define IORING_SETUP_COOP_TASKRUN (1U << 8)
#endif
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif

struct walsvc_ring {
    struct io_uring ring;
    int linked; /* what is queued are pairs */
    int halved; /* the kernel took half a pair */
};

/* Hands what is queued to the kernel. 0 when it took all; -EAGAIN, -EBUSY: later; anything else: the ring is lost, with
 * -ENOLINK because the kernel took a write without its sync. */
static int walsvc_ring_flush(struct walsvc_ring *self) {
    while (io_uring_sq_ready(&self->ring) > 0) {
        if (self->halved)
            return -ENOLINK;
        int taken = io_uring_submit(&self->ring);
        self->halved = self->linked && io_uring_sq_ready(&self->ring) % 2 != 0;
        if (taken == -EINTR || self->halved)
            continue;
        if (taken <= 0)
            return taken < 0 ? taken : -EAGAIN;
    }
    return 0;
}

/* Lets the kernel start worker threads for this thread's submissions, by a write and a sync of a file in memory: it has different
 * workers for the two. 0, or -EAGAIN where it cannot. */
static int walsvc_ring_start_workers(struct walsvc_ring *self) {
    int file = memfd_create("walsvc", MFD_CLOEXEC);
    if (file < 0) /* where a sandbox forbids it, they start with the first write */
        return errno == EPERM || errno == EACCES || errno == ENOSYS ? 0 : -errno;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&self->ring);
    io_uring_prep_write(sqe, file, "", 1, 0);
    sqe->flags |= IOSQE_ASYNC;
    sqe = io_uring_get_sqe(&self->ring);
    io_uring_prep_fsync(sqe, file, IORING_FSYNC_DATASYNC);
    sqe->flags |= IOSQE_ASYNC;
    int error = walsvc_ring_flush(self);
    for (int left = 2; left > 0 && error == 0;) {
        struct io_uring_cqe *cqe;
        int result = io_uring_wait_cqe(&self->ring, &cqe);
        if (result == -EINTR)
            continue;
        if (result < 0) {
            error = result;
            break;
        }
        if (cqe->res < 0)
            error = cqe->res == -ECANCELED ? -EAGAIN : cqe->res; /* -ECANCELED: no worker */
        io_uring_cqe_seen(&self->ring, cqe);
        left--;
    }
    close(file);
    return error;
}

static struct walsvc_ring *walsvc_ring_open(unsigned entries, int *error) {
    struct walsvc_ring *self = calloc(1, sizeof *self);
    if (self == NULL) {
        *error = ENOMEM;
        return NULL;
    }
    int result = io_uring_queue_init(entries, &self->ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN);
    if (result == -EINVAL)
        result = io_uring_queue_init(entries, &self->ring, 0);
    if (result < 0) {
        *error = -result;
        free(self);
        return NULL;
    }
    result = walsvc_ring_start_workers(self);
    if (result < 0) {
        *error = -result;
        io_uring_queue_exit(&self->ring);
        free(self);
        return NULL;
    }
    io_uring_ring_dontfork(&self->ring); /* a forked child that strays here dies, instead of taking our completions */
    return self;
}

static void walsvc_ring_close(struct walsvc_ring *self) {
    io_uring_queue_exit(&self->ring);
    free(self);
}

static int walsvc_ring_event(struct walsvc_ring *self) { return self->ring.ring_fd; }

static unsigned walsvc_ring_unsubmitted(struct walsvc_ring *self) { return io_uring_sq_ready(&self->ring); }

/* Queues one durable write and submits. 1: no room in the submission queue, nothing was queued. Else as flush. */
static int walsvc_ring_write(struct walsvc_ring *self, int file, const char *bytes, unsigned length, uint64_t offset,
                             uint64_t token, int linked) {
    if (io_uring_sq_space_left(&self->ring) < (linked ? 2 : 1))
        return 1;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&self->ring);
    io_uring_prep_write(sqe, file, bytes, length, offset);
    sqe->user_data = token << 1;
    sqe->flags |= IOSQE_ASYNC;
    self->linked = linked;
    if (linked) {
        sqe->flags |= IOSQE_IO_LINK;
        sqe = io_uring_get_sqe(&self->ring);
        io_uring_prep_fsync(sqe, file, IORING_FSYNC_DATASYNC);
        sqe->user_data = token << 1 | 1;
        sqe->flags |= IOSQE_ASYNC;
    } else {
        sqe->rw_flags = RWF_DSYNC;
    }
    return walsvc_ring_flush(self);
}

/* Takes up to room completions. The ring stays readable while there are more. */
static int walsvc_ring_reap(struct walsvc_ring *self, uint64_t *tokens, int32_t *results, int room) {
    int taken = 0;
    struct io_uring_cqe *cqe;
    while (taken < room && io_uring_peek_cqe(&self->ring, &cqe) == 0) {
        tokens[taken] = cqe->user_data;
        results[taken++] = cqe->res;
        io_uring_cqe_seen(&self->ring, cqe);
    }
    return taken;
}

/* Blocks until a completion is there: only for draining when no loop runs any more. */
static int walsvc_ring_wait(struct walsvc_ring *self) {
    struct io_uring_cqe *cqe;
    return io_uring_wait_cqe(&self->ring, &cqe);
}
"""


def library_directories() -> list[str]:
    """The directories in which liburing.a is looked for: LIBRARY_PATH's, which gcc knows, those of pkg-config, then the usual ones."""
    try:
        found = subprocess.run(
            ["pkg-config", "--variable=libdir", "liburing"], capture_output=True, text=True, check=True
        ).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        found = []
    named = os.environ.get("LIBRARY_PATH", "").split(os.pathsep)
    return [
        *filter(None, named),
        *found,
        f"/usr/lib/{os.uname().machine}-linux-gnu",
        "/usr/lib64",
        "/usr/local/lib",
        "/usr/lib",
    ]


def linking() -> dict[str, Any]:
    """liburing.a itself where it is installed, else -luring."""
    for directory in library_directories():
        archive = os.path.join(directory, "liburing.a")
        if os.path.exists(archive):
            return {"extra_objects": [archive]}
    return {"libraries": ["uring"]}


ffibuilder: FFI = FFI()
ffibuilder.cdef(DECLARATIONS)
ffibuilder.set_source(
    "walsvc.disk._uring", SOURCE, py_limited_api=True, extra_compile_args=["-O2"], optional=True, **linking()
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
