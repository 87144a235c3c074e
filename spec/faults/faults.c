/* SPDX-License-Identifier: MIT */
/* The functions of the C library in which faults are injected. */
#include "faults.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define ALWAYS_MAX 8
#define SMALL 16 /* bytes of a call that wakes a thread */

static struct {
    atomic_bool on;
    atomic_long calls;
    long kill_at, fail_at;
    int kill_with, fail_with;
    bool goes_on; /* all calls from fail_at on fail */
    bool shortens;
    _Atomic unsigned random;
    struct {
        char call[16];
        int error;
    } always[ALWAYS_MAX];
    int always_count;
    const char *_Atomic struck;
} plan;

void (*faults_watch)(const char *call, int fd);
const char *faults_boot;
static bool watching;

static void watch(const char *call, int fd)
{
    if (faults_watch == NULL || watching)
        return;
    watching = true;
    faults_watch(call, fd);
    watching = false;
}

static int error_of(const char *name)
{
    static const struct {
        const char *name;
        int code;
    } errors[] = {
        {"ENOSPC", ENOSPC}, {"EIO", EIO},
        {"EMFILE", EMFILE}, {"EINTR", EINTR},
        {"EPERM", EPERM},   {"EACCES", EACCES},
        {"EINVAL", EINVAL}, {"ENOTSUP", ENOTSUP},
        {"EXDEV", EXDEV},   {"EROFS", EROFS},
        {"EDQUOT", EDQUOT}, {"ENOLCK", ENOLCK},
        {"ENOENT", ENOENT}, {"ENOMEM", ENOMEM},
        {"EBADF", EBADF},   {"ENOSYS", ENOSYS},
        {"ENOTTY", ENOTTY}, {"EMLINK", EMLINK},
        {"EAGAIN", EAGAIN}, {"ECONNRESET", ECONNRESET},
    };

    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        if (strcmp(name, errors[i].name) == 0)
            return errors[i].code;
    }
    fprintf(stderr, "faults: unknown error %s\n", name);
    abort();
}

static void word_take(char *word)
{
    char *value = strchr(word, '=');
    char *colon;

    if (value == NULL) {
        fprintf(stderr, "faults: not a plan: %s\n", word);
        abort();
    }
    *value++ = '\0';
    colon = strchr(value, ':');
    if (strcmp(word, "kill") == 0 || strcmp(word, "term") == 0) {
        plan.kill_at = atol(value);
        plan.kill_with = *word == 'k' ? SIGKILL : SIGTERM;
    } else if ((strcmp(word, "fail") == 0 || strcmp(word, "from") == 0) &&
               colon != NULL) {
        plan.goes_on = strcmp(word, "from") == 0;
        plan.fail_at = atol(value);
        plan.fail_with = error_of(colon + 1);
    } else if (strcmp(word, "short") == 0) {
        plan.shortens = true;
        plan.random = (unsigned)atol(value);
    } else if (plan.always_count < ALWAYS_MAX) {
        snprintf(plan.always[plan.always_count].call, 16, "%s", word);
        plan.always[plan.always_count++].error = error_of(value);
    }
}

void faults_plan(const char *words)
{
    char text[256], *rest = NULL;

    plan.on = false;
    plan.calls = 0;
    plan.kill_at = plan.fail_at = 0;
    plan.goes_on = false;
    plan.shortens = false;
    plan.always_count = 0;
    plan.struck = NULL;
    if (words == NULL)
        return;
    snprintf(text, sizeof(text), "%s", words);
    for (char *word = strtok_r(text, " ", &rest); word != NULL;
         word = strtok_r(NULL, " ", &rest))
        word_take(word);
    plan.on = true;
}

long faults_calls(void)
{
    return plan.calls;
}

const char *faults_struck(void)
{
    return plan.struck;
}

__attribute__((constructor)) static void plan_of_the_environment(void)
{
    const char *words = getenv("NYMBL_FAULTS");

    faults_boot = getenv("NYMBL_FAULTS_BOOT");
    if (words != NULL)
        faults_plan(words);
}

int faults_begin(void *state)
{
    (void)state;
    faults_plan(getenv("NYMBL_FAULTS_LATER"));
    return 0;
}

int faults_end(void *state)
{
    const char *path = getenv("NYMBL_FAULTS_REPORT");
    long calls = plan.calls;
    const char *struck = plan.struck;
    FILE *report;

    (void)state;
    faults_plan(NULL);
    report = path != NULL ? fopen(path, "w") : NULL;
    if (report != NULL) {
        fprintf(report, "%ld %s\n", calls, struck != NULL ? struck : "-");
        fclose(report);
    }
    return 0;
}

static unsigned random_next(void)
{
    unsigned next = plan.random * 1664525u + 1013904223u;

    plan.random = next;
    return next >> 16;
}

/* Whether a call fails, with errno. */
static bool strikes(const char *call)
{
    long number;

    if (!plan.on || watching)
        return false;
    watch(call, -1);
    number = ++plan.calls;
    if (number == plan.kill_at)
        kill(getpid(), plan.kill_with);
    for (int i = 0; i < plan.always_count; i++) {
        if (strcmp(plan.always[i].call, call) == 0) {
            errno = plan.always[i].error;
            return true;
        }
    }
    if (number != plan.fail_at && !(plan.goes_on && number > plan.fail_at))
        return false;
    plan.struck = call;
    errno = plan.fail_with;
    return true;
}

/* The same for a call that transfers bytes. If all calls fail from some point
 * on, a few bytes on a socket pair still arrive: with these, threads wake each
 * other. */
static bool strikes_bytes(const char *call, size_t size)
{
    return !(plan.goes_on && size <= SMALL) && strikes(call);
}

static bool interrupts(void)
{
    if (!plan.on || watching || !plan.shortens || random_next() % 4 != 0)
        return false;
    errno = EINTR;
    return true;
}

/* The number of bytes that are read or written. Small ones are those of
 * wakeups. */
static size_t cut(size_t size)
{
    return plan.on && plan.shortens && size > SMALL ? 1 + random_next() % size
                                                    : size;
}

#define REAL(name)                                                             \
    do {                                                                       \
        if (real == NULL)                                                      \
            *(void **)&real = dlsym(RTLD_NEXT, name);                          \
    } while (0)

static mode_t mode_of(int flags, va_list list)
{
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE
               ? (mode_t)va_arg(list, unsigned)
               : 0;
}

int open(const char *path, int flags, ...)
{
    static int (*real)(const char *, int, ...);
    va_list list;
    mode_t mode;

    va_start(list, flags);
    mode = mode_of(flags, list);
    va_end(list);
    REAL("open");
    if (faults_boot != NULL && strstr(path, "/boot_id") != NULL)
        path = faults_boot;
    return strikes("open") ? -1 : real(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    static int (*real)(const char *, int, ...);
    va_list list;
    mode_t mode;

    va_start(list, flags);
    mode = mode_of(flags, list);
    va_end(list);
    REAL("open64");
    if (faults_boot != NULL && strstr(path, "/boot_id") != NULL)
        path = faults_boot;
    return strikes("open") ? -1 : real(path, flags, mode);
}

int openat(int directory, const char *path, int flags, ...)
{
    static int (*real)(int, const char *, int, ...);
    bool unnamed = (flags & O_TMPFILE) == O_TMPFILE;
    va_list list;
    mode_t mode;

    va_start(list, flags);
    mode = mode_of(flags, list);
    va_end(list);
    REAL("openat");
    return strikes(unnamed ? "tmpfile" : "openat")
               ? -1
               : real(directory, path, flags, mode);
}

int close(int fd)
{
    static int (*real)(int);
    bool fails = strikes("close");
    int error = errno, closed;

    REAL("close");
    closed = real(fd); /* the descriptor is closed whatever close() returns */
    if (!fails)
        return closed;
    errno = error;
    return -1;
}

ssize_t read(int fd, void *data, size_t size)
{
    static ssize_t (*real)(int, void *, size_t);

    REAL("read");
    return strikes_bytes("read", size) || interrupts()
               ? -1
               : real(fd, data, cut(size));
}

ssize_t pread(int fd, void *data, size_t size, off_t at)
{
    static ssize_t (*real)(int, void *, size_t, off_t);

    REAL("pread");
    return strikes("pread") || interrupts() ? -1
                                            : real(fd, data, cut(size), at);
}

ssize_t write(int fd, const void *data, size_t size)
{
    static ssize_t (*real)(int, const void *, size_t);

    REAL("write");
    return strikes_bytes("write", size) || interrupts()
               ? -1
               : real(fd, data, cut(size));
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    static ssize_t (*real)(int, const void *, size_t, off_t);

    REAL("pwrite");
    return strikes("pwrite") || interrupts() ? -1
                                             : real(fd, data, cut(size), at);
}

ssize_t recv(int fd, void *data, size_t size, int flags)
{
    static ssize_t (*real)(int, void *, size_t, int);

    REAL("recv");
    return strikes_bytes("recv", size) || interrupts()
               ? -1
               : real(fd, data, cut(size), flags);
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    static ssize_t (*real)(int, const void *, size_t, int);

    REAL("send");
    return strikes_bytes("send", size) || interrupts()
               ? -1
               : real(fd, data, cut(size), flags);
}

int socket(int family, int type, int protocol)
{
    static int (*real)(int, int, int);

    REAL("socket");
    return strikes("socket") ? -1 : real(family, type, protocol);
}

/* The address's type, a union of pointers for the compiler, is glibc's. */
int accept4(int fd, __SOCKADDR_ARG address, socklen_t *length, int flags)
{
    static int (*real)(int, __SOCKADDR_ARG, socklen_t *, int);

    REAL("accept4");
    return strikes("accept4") ? -1 : real(fd, address, length, flags);
}

int bind(int fd, __CONST_SOCKADDR_ARG address, socklen_t length)
{
    static int (*real)(int, __CONST_SOCKADDR_ARG, socklen_t);

    REAL("bind");
    return strikes("bind") ? -1 : real(fd, address, length);
}

int listen(int fd, int backlog)
{
    static int (*real)(int, int);

    REAL("listen");
    return strikes("listen") ? -1 : real(fd, backlog);
}

int connect(int fd, __CONST_SOCKADDR_ARG address, socklen_t length)
{
    static int (*real)(int, __CONST_SOCKADDR_ARG, socklen_t);

    REAL("connect");
    return strikes("connect") ? -1 : real(fd, address, length);
}

int socketpair(int family, int type, int protocol, int fds[2])
{
    static int (*real)(int, int, int, int[2]);

    REAL("socketpair");
    return strikes("socketpair") ? -1 : real(family, type, protocol, fds);
}

int poll(struct pollfd *fds, nfds_t count, int timeout)
{
    static int (*real)(struct pollfd *, nfds_t, int);

    REAL("poll");
    return !plan.goes_on && strikes("poll") ? -1 : real(fds, count, timeout);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                   void *(*run)(void *), void *payload)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *),
                       void *);

    REAL("pthread_create");
    return strikes("pthread_create") ? errno
                                     : real(thread, attributes, run, payload);
}

int mkdir(const char *path, mode_t mode)
{
    static int (*real)(const char *, mode_t);

    REAL("mkdir");
    return strikes("mkdir") ? -1 : real(path, mode);
}

int mkdirat(int directory, const char *path, mode_t mode)
{
    static int (*real)(int, const char *, mode_t);

    REAL("mkdirat");
    return strikes("mkdirat") ? -1 : real(directory, path, mode);
}

char *mkdtemp(char *path)
{
    static char *(*real)(char *);

    REAL("mkdtemp");
    return strikes("mkdtemp") ? NULL : real(path);
}

int posix_fallocate(int fd, off_t from, off_t size)
{
    static int (*real)(int, off_t, off_t);

    REAL("posix_fallocate");
    return strikes("posix_fallocate") ? errno : real(fd, from, size);
}

int futimens(int fd, const struct timespec times[2])
{
    static int (*real)(int, const struct timespec[2]);

    REAL("futimens");
    return strikes("futimens") ? -1 : real(fd, times);
}

int fsync(int fd)
{
    static int (*real)(int);
    int synced;

    REAL("fsync");
    synced = strikes("fsync") || interrupts() ? -1 : real(fd);
    if (synced == 0 && plan.on)
        watch("synced", fd);
    return synced;
}

int flock(int fd, int operation)
{
    static int (*real)(int, int);

    REAL("flock");
    return strikes("flock") || interrupts() ? -1 : real(fd, operation);
}

int ftruncate(int fd, off_t size)
{
    static int (*real)(int, off_t);

    REAL("ftruncate");
    return strikes("ftruncate") ? -1 : real(fd, size);
}

off_t lseek(int fd, off_t at, int whence)
{
    static off_t (*real)(int, off_t, int);

    REAL("lseek");
    return strikes("lseek") ? -1 : real(fd, at, whence);
}

int fchmod(int fd, mode_t mode)
{
    static int (*real)(int, mode_t);

    REAL("fchmod");
    return strikes("fchmod") ? -1 : real(fd, mode);
}

DIR *fdopendir(int fd)
{
    static DIR *(*real)(int);

    REAL("fdopendir");
    return strikes("fdopendir") ? NULL : real(fd);
}

struct dirent *readdir(DIR *directory)
{
    static struct dirent *(*real)(DIR *);

    REAL("readdir");
    return strikes("readdir") ? NULL : real(directory);
}

int fstat(int fd, struct stat *status)
{
    static int (*real)(int, struct stat *);

    REAL("fstat");
    return strikes("fstat") ? -1 : real(fd, status);
}

int fstatat(int directory, const char *path, struct stat *status, int flags)
{
    static int (*real)(int, const char *, struct stat *, int);

    REAL("fstatat");
    return strikes("fstatat") ? -1 : real(directory, path, status, flags);
}

int lstat(const char *path, struct stat *status)
{
    static int (*real)(const char *, struct stat *);

    REAL("lstat");
    return strikes("lstat") ? -1 : real(path, status);
}

int fstatfs(int fd, struct statfs *system)
{
    static int (*real)(int, struct statfs *);

    REAL("fstatfs");
    return strikes("fstatfs") ? -1 : real(fd, system);
}

int faccessat(int directory, const char *path, int mode, int flags)
{
    static int (*real)(int, const char *, int, int);

    REAL("faccessat");
    return strikes("faccessat") ? -1 : real(directory, path, mode, flags);
}

int stat(const char *path, struct stat *status)
{
    static int (*real)(const char *, struct stat *);

    REAL("stat");
    return strikes("stat") ? -1 : real(path, status);
}

ssize_t readlinkat(int directory, const char *path, char *to, size_t size)
{
    static ssize_t (*real)(int, const char *, char *, size_t);

    REAL("readlinkat");
    return strikes("readlinkat") ? -1 : real(directory, path, to, size);
}

int linkat(int from, const char *old, int to, const char *name, int flags)
{
    static int (*real)(int, const char *, int, const char *, int);

    REAL("linkat");
    return strikes("linkat") ? -1 : real(from, old, to, name, flags);
}

int renameat(int from, const char *old, int to, const char *name)
{
    static int (*real)(int, const char *, int, const char *);

    REAL("renameat");
    return strikes("renameat") ? -1 : real(from, old, to, name);
}

int renameat2(int from, const char *old, int to, const char *name,
              unsigned flags)
{
    static int (*real)(int, const char *, int, const char *, unsigned);

    REAL("renameat2");
    return strikes("renameat2") ? -1 : real(from, old, to, name, flags);
}

int unlinkat(int directory, const char *path, int flags)
{
    static int (*real)(int, const char *, int);

    REAL("unlinkat");
    return strikes("unlinkat") ? -1 : real(directory, path, flags);
}
