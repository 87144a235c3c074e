/* SPDX-License-Identifier: MIT */
/* A file while it is written: it has no name, or one of a few, so that what a
 * killed process has left behind is found and removed without a search.
 *
 * Locks. Whoever writes holds flock(2) from before the file has a name until
 * after it has its final one. So a file that is named so and can be locked is
 * that of a process that is gone. */
#include "file/tempfile.h"

#include "base/buffer.h"
#include "base/descriptor.h"
#include "base/error.h"
#include "file/filesystem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Names are tried in order. Those of a group after the first are used, and
 * looked for, only while all of the group before it are taken. */
#define GROUP 16
#define NAMES 256

/* Seconds after which a file on a network file system is taken for one that
 * nobody writes any more: its lock may be that of another machine. */
#define LONG_AGO 86400

/* Directories that this process remembers to have swept. */
#define SWEPT 64

/* ---- names ---- */

/* Past the fixed ones a name that is not swept: only if 256 processes write
 * here at the same time, or if a stranger has taken all names. */
static void name_make(char name[NYMBL__TEMPFILE_NAME], int number)
{
    struct timespec now;

    if (number < NAMES) {
        snprintf(name, NYMBL__TEMPFILE_NAME, NYMBL__DRAFT_PREFIX "%02x",
                 (unsigned)number);
        return;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(name, NYMBL__TEMPFILE_NAME, NYMBL__DRAFT_PREFIX "%08lx%08lx",
             (unsigned long)getpid() & 0xffffffff,
             (unsigned long)(now.tv_nsec + number) & 0xffffffff);
}

/* Tries for a name: all fixed ones, and some that are made up. */
#define TRIES (NAMES + 16)

/* ---- what others have left ---- */

/* Two names has a file whose writer was killed between link() and unlink():
 * what is removed is the one of the draft, and the document keeps its own. */
static bool is_ours(const struct stat *status)
{
    return S_ISREG(status->st_mode) && status->st_uid == geteuid() &&
           (status->st_nlink == 1 || status->st_nlink == 2);
}

/* Some mode of a file of ours lets us open it; a lock needs no more, but over
 * NFS it needs the right to write. */
static int leftover_open(int directory, const char *name)
{
    static const int modes[] = {O_RDWR, O_RDONLY, O_WRONLY};
    int fd = -1;

    for (int i = 0; i < 3 && fd < 0; i++)
        fd = openat(directory, name,
                    modes[i] | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return nymbl__fd_high(fd);
}

bool nymbl__leftover_remove(int directory, const char *name)
{
    struct stat status;
    bool removed = false;
    int fd;

    if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT;
    if (!is_ours(&status) || (nymbl__fd_is_network(directory) &&
                              status.st_mtime > time(NULL) - LONG_AGO))
        return false;
    fd = leftover_open(directory, name);
    if (fd < 0)
        return false;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &status) == 0 &&
        is_ours(&status) && nymbl__fd_has_name(fd, directory, name))
        removed = unlinkat(directory, name, 0) == 0;
    close(fd);
    return removed;
}

/* Whether this process sees a directory for the first time. A child of fork()
 * is another process, and may be made at any moment: so no lock. */
static bool is_new(int directory)
{
    static _Atomic uint64_t swept[SWEPT];
    static atomic_uint count;
    uint64_t mark = 14695981039346656037u;
    struct stat status;

    if (fstat(directory, &status) < 0)
        return false;
    {
        const uint64_t parts[] = {(uint64_t)getpid(), (uint64_t)status.st_dev,
                                  (uint64_t)status.st_ino};

        for (int i = 0; i < 3; i++) /* FNV-1a */
            mark = (mark ^ parts[i]) * 1099511628211u;
    }
    for (int i = 0; i < SWEPT; i++) {
        if (swept[i] == mark)
            return false;
    }
    swept[count++ % SWEPT] = mark;
    return true;
}

void nymbl__tempfiles_sweep(int directory)
{
    char name[NYMBL__TEMPFILE_NAME];
    int seen = GROUP;

    if (!is_new(directory))
        return;
    for (int i = 0; i < NAMES; i++) {
        struct stat status;

        if (i % GROUP == 0) {
            if (seen < GROUP)
                return;
            seen = 0;
        }
        name_make(name, i);
        if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0) {
            seen++;
            nymbl__leftover_remove(directory, name);
        }
    }
}

/* ---- one of ours ---- */

/* Lock a new file. A file system without locks has none to break, either. */
static int draft_lock(int fd)
{
    int locked;

    do
        locked = flock(fd, LOCK_EX | LOCK_NB);
    while (locked < 0 && errno == EINTR);
    if (locked < 0 && nymbl__is_lacking(errno))
        return 0;
    return locked;
}

static void proc_path(char path[32], int fd)
{
    snprintf(path, 32, "/proc/self/fd/%d", fd);
}

/* A file without a name that can be given one, or -1 with errno. */
static int unnamed_open(int directory)
{
#ifdef O_TMPFILE
    struct stat opened, seen;
    char path[32];
    int fd = nymbl__fd_high(
        openat(directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));

    if (fd < 0)
        return -1;
    proc_path(path, fd); /* its only handle, where /proc can be read */
    if (fstat(fd, &opened) == 0 && stat(path, &seen) == 0 &&
        opened.st_dev == seen.st_dev && opened.st_ino == seen.st_ino)
        return fd;
    close(fd);
#else
    (void)directory;
#endif
    errno = ENOTSUP;
    return -1;
}

/* Make a new file ours: 1 if it is, 0 if it was swept before it was locked, or
 * -1 with errno, and it is gone. */
static int named_lock(int fd, int directory, const char *name)
{
    int problem;

    if (draft_lock(fd) == 0)
        return nymbl__fd_has_name(fd, directory, name) ? 1 : 0;
    if (errno == EWOULDBLOCK)
        return 0;
    problem = errno;
    unlinkat(directory, name, 0);
    errno = problem;
    return -1;
}

/* A new file, or -1 with errno. A leftover of that name goes. */
static int named_make(int directory, const char *name)
{
    int fd = -1, high, problem;

    for (int i = 0; i < 2 && fd < 0; i++) {
        if (i > 0 &&
            (errno != EEXIST || !nymbl__leftover_remove(directory, name)))
            break;
        fd = openat(directory, name,
                    O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        problem = errno;
    }
    if (fd < 0) {
        errno = problem;
        return -1;
    }
    high = nymbl__fd_high(fd);
    if (high < 0) {
        problem = errno;
        unlinkat(directory, name, 0);
        errno = problem;
    }
    return high;
}

/* A locked file under a name that nobody has; -1 with errno. */
static int named_open(int directory, char name[NYMBL__TEMPFILE_NAME])
{
    for (int i = 0; i < TRIES; i++) {
        int fd, locked;

        name_make(name, i);
        fd = named_make(directory, name);
        if (fd < 0 && errno == EEXIST)
            continue;
        if (fd < 0)
            break;
        locked = named_lock(fd, directory, name);
        if (locked > 0)
            return fd;
        nymbl__fd_close(fd);
        if (locked < 0)
            break;
    }
    name[0] = '\0';
    return -1;
}

nymbl_kind nymbl__tempfile_open(nymbl__tempfile *draft, int directory,
                                const char **reason)
{
    draft->name[0] = '\0';
    draft->fd = unnamed_open(directory);
    if (draft->fd >= 0 && draft_lock(draft->fd) < 0) {
        close(draft->fd);
        draft->fd = -1;
    }
    if (draft->fd < 0)
        draft->fd = named_open(directory, draft->name);
    if (draft->fd >= 0)
        return NYMBL_OK;
    *reason = nymbl__errno_reason(errno);
    return NYMBL_IO;
}

nymbl_kind nymbl__tempfile_try(int directory, const char **reason)
{
    nymbl__tempfile draft = {.fd = unnamed_open(directory)};

    if (draft.fd < 0)
        draft.fd = named_open(directory, draft.name);
    if (draft.fd < 0) {
        *reason = nymbl__errno_reason(errno);
        return NYMBL_IO;
    }
    nymbl__tempfile_discard(&draft, directory);
    return NYMBL_OK;
}

/* Give a file without a name one; fails if it is taken. */
static int unnamed_link(int fd, int directory, const char *name)
{
    char path[32];

    proc_path(path, fd);
    return linkat(AT_FDCWD, path, directory, name, AT_SYMLINK_FOLLOW);
}

/* Give it one of our names, to be renamed. */
static int draft_link(nymbl__tempfile *draft, int directory)
{
    char name[NYMBL__TEMPFILE_NAME];

    for (int i = 0; i < TRIES; i++) {
        int linked;

        name_make(name, i);
        linked = unnamed_link(draft->fd, directory, name);
        if (linked < 0 && errno == EEXIST &&
            nymbl__leftover_remove(directory, name))
            linked = unnamed_link(draft->fd, directory, name);
        if (linked == 0) {
            memcpy(draft->name, name, sizeof(name));
            return 0;
        }
        if (errno != EEXIST)
            return -1;
    }
    return -1;
}

static int bytes_copy(int from, int to)
{
    char block[16384];
    off_t at = 0;

    for (;;) {
        ssize_t got = pread(from, block, sizeof(block), at), put = 0;

        if (got == 0)
            break;
        if (got < 0 && errno != EINTR)
            break;
        while (got > put) {
            ssize_t wrote =
                pwrite(to, block + put, (size_t)(got - put), at + put);

            if (wrote == 0)
                errno = ENOSPC;
            if (wrote == 0 || (wrote < 0 && errno != EINTR)) {
                nymbl__wipe(block, sizeof(block));
                return -1;
            }
            put += wrote > 0 ? wrote : 0;
        }
        at += put;
    }
    nymbl__wipe(block, sizeof(block));
    {
        struct stat all, copied;

        if (fstat(from, &all) < 0 || fstat(to, &copied) < 0)
            return -1;
        if (all.st_size == at && copied.st_size == at)
            return nymbl__file_set_mode(to, all.st_mode & 07777);
    }
    errno = EIO;
    return -1;
}

/* Have the bytes in a file with one of our names instead: some file systems
 * make files without a name and cannot link them. */
static int draft_copy(nymbl__tempfile *draft, int directory)
{
    nymbl__tempfile copy;
    int problem;

    copy.fd = named_open(directory, copy.name);
    if (copy.fd < 0)
        return -1;
    if (bytes_copy(draft->fd, copy.fd) == 0 &&
        nymbl__file_flush(copy.fd) >= 0) {
        close(draft->fd);
        *draft = copy;
        return 0;
    }
    problem = errno;
    nymbl__tempfile_discard(&copy, directory);
    errno = problem;
    return -1;
}

int nymbl__tempfile_publish(nymbl__tempfile *draft, int directory,
                            const char *name, bool overwrite)
{
    if (draft->name[0] == '\0') {
        if (unnamed_link(draft->fd, directory, name) == 0)
            return 0;
        if (errno == EEXIST && !overwrite)
            return -1;
        if ((errno != EEXIST || draft_link(draft, directory) < 0) &&
            draft_copy(draft, directory) < 0)
            return -1;
    }
    if (nymbl__file_rename(draft->fd, directory, draft->name, name, overwrite) <
        0)
        return -1;
    draft->name[0] = '\0';
    return 0;
}

void nymbl__tempfile_discard(nymbl__tempfile *draft, int directory)
{
    if (draft->fd < 0)
        return;
    /* before the lock ends, and only if the name is still this file's */
    if (draft->name[0] != '\0' &&
        nymbl__fd_has_name(draft->fd, directory, draft->name))
        unlinkat(directory, draft->name, 0);
    close(draft->fd);
    draft->fd = -1;
    draft->name[0] = '\0';
}
