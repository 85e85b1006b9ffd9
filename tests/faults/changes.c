/* Counts what a process changes on the disk below one folder, and lets the k-th change fail or kills the process at it.

   Loaded before the C library (LD_PRELOAD). Nothing is counted until `arm` is called; `fork` keeps the state, so that a parent
   can prepare and its children be tried. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { COUNT, KILL, EIO_ONCE, FULL, SHORT, TORN };

static char folder[4096];
static size_t folder_length;
static int mode;
static long at, count;
static char below[65536]; /* for each descriptor, whether it is of a file or folder below the folder */
static const char *kinds[1 << 16];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void arm(const char *path, int how, long k) {
    strncpy(folder, path, sizeof folder - 1);
    folder_length = strlen(folder);
    mode = how, at = k, count = 0;
}
long changes(void) { return count; }
const char *kind_of(long k) { return k > 0 && k < (1 << 16) ? kinds[k] : ""; }

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int is_below(const char *path) {
    return folder_length && path && !strncmp(path, folder, folder_length) &&
           (path[folder_length] == '/' || path[folder_length] == 0);
}
static int is_below_fd(int fd) { return folder_length && fd >= 0 && fd < (int)sizeof below && below[fd]; }
static int is_below_at(int fd, const char *path) {
    return is_below(path) || (path && path[0] != '/' && is_below_fd(fd));
}

/* Count a change: 0 lets it be, 1 makes it fail (errno is set), 2 lets it be done in part. `writes`: takes space of the disk. */
static int change(const char *kind, int writes) {
    pthread_mutex_lock(&lock);
    long now = ++count;
    if (now < (1 << 16)) kinds[now] = kind;
    pthread_mutex_unlock(&lock);
    if (mode == FULL && now >= at && writes) return errno = ENOSPC, 1;
    if (now != at) return 0;
    if (mode == KILL) kill(getpid(), SIGKILL);
    if (mode == EIO_ONCE) return errno = EIO, 1;
    if (mode == SHORT || mode == TORN) return 2;
    return 0;
}

static int opened(int fd, int yes) {
    if (fd >= 0 && fd < (int)sizeof below) below[fd] = yes;
    return fd;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; va_start(rest, flags); mode_t bits = va_arg(rest, mode_t); va_end(rest); \
        int here = is_below(path); \
        if (here && (flags & (O_CREAT | O_TRUNC)) && change("open", 1) == 1) return -1; \
        return opened(real(path, flags, bits), here); \
    }
OPEN(open)
OPEN(open64)
#define OPENAT(name) \
    int name(int dir, const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; va_start(rest, flags); mode_t bits = va_arg(rest, mode_t); va_end(rest); \
        int here = is_below_at(dir, path); \
        if (here && (flags & (O_CREAT | O_TRUNC)) && change("open", 1) == 1) return -1; \
        return opened(real(dir, path, flags, bits), here); \
    }
OPENAT(openat)
OPENAT(openat64)
int close(int fd) { REAL(close); opened(fd, 0); return real(fd); }

/* A write in part: half of the bytes; torn, the process dies then. */
#define WRITE(name, parameters, arguments, half) \
    ssize_t name parameters { \
        REAL(name); \
        if (!is_below_fd(fd)) return real arguments; \
        int what = change(#name, 1); \
        if (what == 1) return -1; \
        if (what == 2) { \
            ssize_t done = size > 1 ? real half : real arguments; \
            if (mode == TORN) kill(getpid(), SIGKILL); \
            return done; \
        } \
        return real arguments; \
    }
WRITE(write, (int fd, const void *bytes, size_t size), (fd, bytes, size), (fd, bytes, size / 2))
WRITE(pwrite, (int fd, const void *bytes, size_t size, off_t place), (fd, bytes, size, place), (fd, bytes, size / 2, place))
WRITE(pwrite64, (int fd, const void *bytes, size_t size, off64_t place), (fd, bytes, size, place), (fd, bytes, size / 2, place))
ssize_t sendfile64(int fd, int from, off64_t *place, size_t size);
WRITE(sendfile64, (int fd, int from, off64_t *place, size_t size), (fd, from, place, size), (fd, from, place, size / 2))

/* Calls that do all or nothing; in the modes of writes in part they are let be, or the process dies behind them. */
#define WHOLE(type, name, parameters, arguments, here, writes) \
    type name parameters { \
        REAL(name); \
        if (!(here)) return real arguments; \
        int what = change(#name, writes); \
        if (what == 1) return -1; \
        type done = real arguments; \
        if (what == 2 && mode == TORN) kill(getpid(), SIGKILL); \
        return done; \
    }
WHOLE(int, rename, (const char *a, const char *b), (a, b), is_below(a) || is_below(b), 0)
WHOLE(int, renameat, (int d, const char *a, int e, const char *b), (d, a, e, b), is_below_at(d, a) || is_below_at(e, b), 0)
WHOLE(int, renameat2, (int d, const char *a, int e, const char *b, unsigned flags), (d, a, e, b, flags),
      is_below_at(d, a) || is_below_at(e, b), 0)
WHOLE(int, unlink, (const char *path), (path), is_below(path), 0)
WHOLE(int, unlinkat, (int d, const char *path, int flags), (d, path, flags), is_below_at(d, path), 0)
WHOLE(int, rmdir, (const char *path), (path), is_below(path), 0)
WHOLE(int, mkdir, (const char *path, mode_t bits), (path, bits), is_below(path), 1)
WHOLE(int, mkdirat, (int d, const char *path, mode_t bits), (d, path, bits), is_below_at(d, path), 1)
WHOLE(int, link, (const char *a, const char *b), (a, b), is_below(b), 1)
WHOLE(int, linkat, (int d, const char *a, int e, const char *b, int flags), (d, a, e, b, flags), is_below_at(e, b), 1)
WHOLE(int, symlink, (const char *a, const char *b), (a, b), is_below(b), 1)
WHOLE(int, truncate, (const char *path, off_t size), (path, size), is_below(path), 1)
WHOLE(int, ftruncate, (int fd, off_t size), (fd, size), is_below_fd(fd), 1)
WHOLE(int, ftruncate64, (int fd, off64_t size), (fd, size), is_below_fd(fd), 1)
WHOLE(int, fsync, (int fd), (fd), is_below_fd(fd), 0)
WHOLE(int, fdatasync, (int fd), (fd), is_below_fd(fd), 0)
WHOLE(int, syncfs, (int fd), (fd), is_below_fd(fd), 0)

/* This one returns its error. */
#define ALLOCATE(name, offset) \
    int name(int fd, offset from, offset size) { \
        REAL(name); \
        if (is_below_fd(fd) && change(#name, 1) == 1) return errno; \
        return real(fd, from, size); \
    }
ALLOCATE(posix_fallocate, off_t)
ALLOCATE(posix_fallocate64, off64_t)
