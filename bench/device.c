/* The bare device: durable writes into a prepared file, and plain sequential reading, with nothing of Python in between.
 *
 *   device DIR BYTES    makes a file of BYTES written zeros in DIR, syncs it, removes its name; prints "ready DIRECT"
 *   then one command per line on standard input, one answer per line on standard output:
 *     write METHOD SIZE COUNT    -> "NS_P50 NS_TOTAL"   METHOD: dsync (RWF_DSYNC) or fdatasync
 *     read PATH CHUNK DIRECT     -> "BYTES NS_TOTAL"    from cold: cached pages of the file are dropped first
 *   an error ends the program with its message on standard error.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (1 << 20)
#define ALIGN 4096

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static char *aligned(size_t bytes)
{
    void *memory;
    if (posix_memalign(&memory, ALIGN, bytes))
        fail("memory");
    memset(memory, 0, bytes);
    return memory;
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int prepare(const char *dir, int64_t bytes, int *direct)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/floor.%d", dir, (int)getpid());
    int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0)
        fail(path);
    unlink(path);
    char *zeros = aligned(CHUNK);
    for (int64_t at = 0; at < bytes; at += CHUNK)
        if (pwrite(file, zeros, CHUNK, at) != CHUNK)
            fail("preparing");
    free(zeros);
    if (fsync(file))
        fail("fsync");
    *direct = fcntl(file, F_SETFL, O_DIRECT) == 0;
    return file;
}

static void write_loop(int file, int64_t bytes, const char *method, int64_t size, int64_t count)
{
    int dsync = strcmp(method, "dsync") == 0;
    char *data = aligned(size);
    memset(data, 0x5a, size);
    int64_t *taken = calloc(count, sizeof *taken), at = 0, began = now();
    struct iovec piece = {data, size};
    for (int64_t i = 0; i < count; i++, at += size) {
        if (at + size > bytes)
            at = 0;
        int64_t called = now();
        if (pwritev2(file, &piece, 1, at, dsync ? RWF_DSYNC : 0) != size)
            fail("write");
        if (!dsync && fdatasync(file))
            fail("fdatasync");
        taken[i] = now() - called;
    }
    int64_t total = now() - began;
    qsort(taken, count, sizeof *taken, ascending);
    printf("%lld %lld\n", (long long)taken[count / 2], (long long)total);
    free(taken);
    free(data);
}

static void read_all(const char *path, int64_t chunk, int direct)
{
    int file = open(path, O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0));
    if (file < 0)
        fail(path);
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    posix_fadvise(file, 0, 0, POSIX_FADV_SEQUENTIAL);
    char *data = aligned(chunk);
    int64_t bytes = 0, began = now();
    ssize_t got;
    while ((got = read(file, data, chunk)) > 0)
        bytes += got;
    if (got < 0)
        fail("read");
    int64_t total = now() - began;
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    close(file);
    free(data);
    printf("%lld %lld\n", (long long)bytes, (long long)total);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    int64_t bytes = atoll(argv[2]);
    int direct, file = prepare(argv[1], bytes, &direct);
    char line[8192], word[4096];
    long long a, b;
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("ready %d\n", direct);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "write %15s %lld %lld", word, &a, &b) == 3)
            write_loop(file, bytes, word, a, b);
        else if (sscanf(line, "read %4095s %lld %lld", word, &a, &b) == 3)
            read_all(word, a, (int)b);
        else
            return 2;
    }
    return 0;
}
