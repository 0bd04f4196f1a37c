/* A preloaded library that makes every sync of a file cost the same, and counts.
 *
 *     FIXED_SYNC_MICROS=130 FIXED_SYNC_COUNTS=/dev/shm/counts LD_PRELOAD=.../fixed_sync.so SERVER
 *
 * With FIXED_SYNC_MICROS a sync sleeps so long and does nothing else: meant for data on a RAM
 * disk, where the real call would be free. Without it the real call is made, and only counted.
 *
 * FIXED_SYNC_COUNTS is a file of COUNTERS 64-bit numbers in the order of `enum counter`, mapped
 * and counted in place. So it can be read at any time, survives kill -9, and sums up all
 * processes of a server.
 *
 * Only calls through the C library are seen. A program that enters the kernel by itself (a static
 * binary, inline assembly, io_uring) is not; `check_syncs.py` tells which do.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum counter {
    FSYNC,
    FDATASYNC,
    SYNC_FILE_RANGE,
    MSYNC,
    SYNCFS,
    SLEPT_NANOSECONDS, /* in all sleeps, oversleeping included */
    COUNTERS
};

static _Atomic uint64_t private_counts[COUNTERS];
static _Atomic uint64_t *counts = private_counts;
static long sleep_nanoseconds = -1;

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

__attribute__((constructor)) static void begin(void) {
    const char *micros = getenv("FIXED_SYNC_MICROS");
    const char *path = getenv("FIXED_SYNC_COUNTS");
    if (micros != NULL && *micros != '\0') sleep_nanoseconds = strtol(micros, NULL, 10) * 1000;
    if (path == NULL) return;
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0) return;
    size_t size = sizeof(private_counts);
    if (ftruncate(file, (off_t)size) == 0) {
        void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (map != MAP_FAILED) counts = map;
    }
    close(file);
}

/* Counts a call; sleeps and returns 1 if it is to cost a fixed time. */
static int charge(enum counter which) {
    atomic_fetch_add(&counts[which], 1);
    if (sleep_nanoseconds < 0) return 0;
    if (sleep_nanoseconds == 0) return 1;
    int error = errno;
    uint64_t began = now();
    /* Sleeps of a thread end up to its timer slack later, 50 us by default. */
    int slack = prctl(PR_GET_TIMERSLACK);
    prctl(PR_SET_TIMERSLACK, 1);
    struct timespec left = {sleep_nanoseconds / 1000000000, sleep_nanoseconds % 1000000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {}
    if (slack > 0) prctl(PR_SET_TIMERSLACK, (unsigned long)slack);
    atomic_fetch_add(&counts[SLEPT_NANOSECONDS], now() - began);
    errno = error;
    return 1;
}

/* The real call, looked up each time it is needed: nothing beside a sync of a real disk. */
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int file) { return charge(FSYNC) ? 0 : REAL(fsync)(file); }

int fdatasync(int file) { return charge(FDATASYNC) ? 0 : REAL(fdatasync)(file); }

int sync_file_range(int file, off64_t offset, off64_t bytes, unsigned int flags) {
    if (charge(SYNC_FILE_RANGE)) return 0;
    return REAL(sync_file_range)(file, offset, bytes, flags);
}

int msync(void *address, size_t bytes, int flags) {
    /* What does not wait is no sync. */
    if ((flags & MS_SYNC) != 0 && charge(MSYNC)) return 0;
    return REAL(msync)(address, bytes, flags);
}

int syncfs(int file) { return charge(SYNCFS) ? 0 : REAL(syncfs)(file); }
