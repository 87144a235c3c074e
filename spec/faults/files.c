/* SPDX-License-Identifier: MIT */
/* The functions for files, terminals and clocks in which faults are injected.
 */
#include "faults.h"
#include "strike.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

/* ---- opened files ---- */

static mode_t mode_of(int flags, va_list list)
{
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE
               ? (mode_t)va_arg(list, unsigned)
               : 0;
}

static const char *path_of(const char *path)
{
    return faults_boot != NULL && strstr(path, "/boot_id") != NULL ? faults_boot
                                                                   : path;
}

/* Whether a path is that of the counts of a build for coverage, which it writes
 * when it ends. No plan is for that, or the counts would be damaged. */
static bool is_of_counts(const char *path)
{
    size_t length = strlen(path);

    return length > 5 && strcmp(path + length - 5, ".gcda") == 0;
}

static int file_open(int (*real)(const char *, int, ...), const char *path,
                     int flags, mode_t mode)
{
    int fd;

    if (!is_of_counts(path))
        return strikes("open") ? -1 : real(path_of(path), flags, mode);
    fd = real(path, flags, mode);
    spare(fd >= 0); /* until fclose() */
    return fd;
}

#define OPEN(name)                                                             \
    int name(const char *path, int flags, ...)                                 \
    {                                                                          \
        int (*real)(const char *, int, ...);                                   \
        va_list list;                                                          \
        mode_t mode;                                                           \
                                                                               \
        va_start(list, flags);                                                 \
        mode = mode_of(flags, list);                                           \
        va_end(list);                                                          \
        REAL(name);                                                            \
        return file_open(real, path, flags, mode);                             \
    }

OPEN(open)
OPEN(open64)

int openat(int directory, const char *path, int flags, ...)
{
    int (*real)(int, const char *, int, ...);
    bool unnamed = (flags & O_TMPFILE) == O_TMPFILE;
    va_list list;
    mode_t mode;

    va_start(list, flags);
    mode = mode_of(flags, list);
    va_end(list);
    REAL(openat);
    return strikes(unnamed ? "tmpfile" : "openat")
               ? -1
               : real(directory, path, flags, mode);
}

/* The descriptor is closed whatever close() returns. */
int close(int fd)
{
    int (*real)(int);
    bool fails = strikes("close");
    int error = errno, closed;

    REAL(close);
    closed = real(fd);
    if (!fails)
        return closed;
    errno = error;
    return -1;
}

/* The argument of a command is an int or a pointer. */
int fcntl(int fd, int command, ...)
{
    int (*real)(int, int, ...);
    va_list list;
    void *argument;

    va_start(list, command);
    argument = va_arg(list, void *);
    va_end(list);
    REAL(fcntl);
    return (command == F_DUPFD || command == F_DUPFD_CLOEXEC) &&
                   strikes("fcntl")
               ? -1
               : real(fd, command, argument);
}

CALL(int, -1, dup3, (int fd, int other, int flags), (fd, other, flags))

TRANSFER(read, (int fd, void *data, size_t size), (fd, data, size))
TRANSFER(write, (int fd, const void *data, size_t size), (fd, data, size))
TRANSFER(pread, (int fd, void *data, size_t size, off_t at),
         (fd, data, size, at))
TRANSFER(pwrite, (int fd, const void *data, size_t size, off_t at),
         (fd, data, size, at))

int fsync(int fd)
{
    int (*real)(int);
    int flushed;

    REAL(fsync);
    flushed = strikes("fsync") || interrupts() ? -1 : real(fd);
    if (flushed == 0)
        synced(fd);
    return flushed;
}

int flock(int fd, int operation)
{
    int (*real)(int, int);

    REAL(flock);
    return strikes("flock") || interrupts() ? -1 : real(fd, operation);
}

CALL(int, errno, posix_fallocate, (int fd, off_t from, off_t size),
     (fd, from, size))
CALL(int, -1, futimens, (int fd, const struct timespec times[2]), (fd, times))
CALL(int, -1, ftruncate, (int fd, off_t size), (fd, size))
CALL(off_t, -1, lseek, (int fd, off_t at, int whence), (fd, at, whence))
CALL(int, -1, fchmod, (int fd, mode_t mode), (fd, mode))
CALL(int, -1, fstat, (int fd, struct stat *status), (fd, status))
CALL(int, -1, fstatfs, (int fd, struct statfs *system), (fd, system))

/* ---- names ---- */

CALL(int, -1, chmod, (const char *path, mode_t mode), (path, mode))
CALL(int, -1, fchmodat, (int directory, const char *path, mode_t mode, int how),
     (directory, path, mode, how))
CALL(int, -1, mkdir, (const char *path, mode_t mode), (path, mode))
CALL(int, -1, mkdirat, (int directory, const char *path, mode_t mode),
     (directory, path, mode))
CALL(char *, NULL, mkdtemp, (char *path), (path))
CALL(int, -1, rmdir, (const char *path), (path))
CALL(int, -1, unlink, (const char *path), (path))
CALL(int, -1, unlinkat, (int directory, const char *path, int flags),
     (directory, path, flags))
CALL(int, -1, stat, (const char *path, struct stat *status), (path, status))
CALL(int, -1, lstat, (const char *path, struct stat *status), (path, status))
CALL(int, -1, fstatat,
     (int directory, const char *path, struct stat *status, int flags),
     (directory, path, status, flags))
CALL(int, -1, statx,
     (int directory, const char *path, int flags, unsigned mask,
      struct statx *status),
     (directory, path, flags, mask, status))
CALL(int, -1, faccessat, (int directory, const char *path, int mode, int flags),
     (directory, path, mode, flags))
CALL(ssize_t, -1, readlink, (const char *path, char *to, size_t size),
     (path, to, size))
CALL(ssize_t, -1, readlinkat,
     (int directory, const char *path, char *to, size_t size),
     (directory, path, to, size))
CALL(char *, NULL, realpath, (const char *path, char *to), (path, to))
CALL(int, -1, linkat,
     (int from, const char *old, int to, const char *name, int flags),
     (from, old, to, name, flags))
CALL(int, -1, renameat, (int from, const char *old, int to, const char *name),
     (from, old, to, name))
CALL(int, -1, renameat2,
     (int from, const char *old, int to, const char *name, unsigned flags),
     (from, old, to, name, flags))

CALL(DIR *, NULL, fdopendir, (int fd), (fd))
CALL(struct dirent *, NULL, readdir, (DIR * directory), (directory))

int closedir(DIR *directory)
{
    int (*real)(DIR *);
    bool fails = strikes("closedir");
    int error = errno, closed;

    REAL(closedir);
    closed = real(directory);
    if (!fails)
        return closed;
    errno = error;
    return -1;
}

/* ---- streams of the standard library ---- */

/* Whether a function was called by the module. Lua itself reads its scripts by
 * the same functions, and no plan is for these. */
static bool is_of_module(void *caller)
{
    Dl_info info;
    const char *name = dladdr(caller, &info) != 0 ? info.dli_fname : NULL;
    size_t length = name != NULL ? strlen(name) : 0;

    return length >= 8 && strcmp(name + length - 8, "/core.so") == 0;
}

/* A failed call also sets the stream's flag, of glibc. */
static bool strikes_stream(const char *call, FILE *file, void *caller)
{
    if (!is_of_module(caller) || !strikes(call))
        return false;
    if (file != NULL)
        file->_flags |= _IO_ERR_SEEN;
    return true;
}

size_t fread(void *data, size_t size, size_t count, FILE *file)
{
    size_t (*real)(void *, size_t, size_t, FILE *);

    REAL(fread);
    return strikes_stream("fread", file, __builtin_return_address(0))
               ? 0
               : real(data, size, count, file);
}

size_t fwrite(const void *data, size_t size, size_t count, FILE *file)
{
    size_t (*real)(const void *, size_t, size_t, FILE *);

    REAL(fwrite);
    return strikes_stream("fwrite", file, __builtin_return_address(0))
               ? 0
               : real(data, size, count, file);
}

int getc(FILE *file)
{
    int (*real)(FILE *);

    REAL(getc);
    return strikes_stream("getc", file, __builtin_return_address(0))
               ? EOF
               : real(file);
}

int fflush(FILE *file)
{
    int (*real)(FILE *);

    REAL(fflush);
    return strikes_stream("fflush", file, __builtin_return_address(0))
               ? EOF
               : real(file);
}

/* The module closes none; see file_open(). */
int fclose(FILE *file)
{
    int (*real)(FILE *);
    int closed;

    REAL(fclose);
    closed = real(file);
    spare(false);
    return closed;
}

/* ---- terminals and clocks ---- */

int ioctl(int fd, unsigned long request, ...)
{
    int (*real)(int, unsigned long, ...);
    va_list list;
    void *argument;

    va_start(list, request);
    argument = va_arg(list, void *);
    va_end(list);
    REAL(ioctl);
    return request == TIOCGWINSZ && strikes("ioctl")
               ? -1
               : real(fd, request, argument);
}

CALL(int, 0, isatty, (int fd), (fd))

/* The other clocks of Linux cannot fail. */
int clock_gettime(clockid_t clock, struct timespec *now)
{
    int (*real)(clockid_t, struct timespec *);

    REAL(clock_gettime);
    return clock == CLOCK_BOOTTIME && strikes("clock_gettime")
               ? -1
               : real(clock, now);
}
