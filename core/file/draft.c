/* SPDX-License-Identifier: MIT */
/* A file while it is written: it has no name, or one of a few, so that what a
 * killed process has left behind is found and removed without a search.
 *
 * Locks. Whoever writes holds flock(2) from before the file has a name until
 * after it has its final one. So a file that is named so and can be locked is
 * that of a process that is gone. */
#include "file/draft.h"

#include "base/buffer.h"
#include "base/descriptor.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/vfs.h>
#endif

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
static void name_make(char name[NYMBL__DRAFT_NAME], int number)
{
    struct timespec now;

    if (number < NAMES) {
        snprintf(name, NYMBL__DRAFT_NAME, NYMBL__DRAFT_PREFIX "%02x",
                 (unsigned)number);
        return;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(name, NYMBL__DRAFT_NAME, NYMBL__DRAFT_PREFIX "%08lx%08lx",
             (unsigned long)getpid() & 0xffffffff,
             (unsigned long)(now.tv_nsec + number) & 0xffffffff);
}

/* Tries for a name: all fixed ones, and some that are made up. */
#define TRIES (NAMES + 16)

bool nymbl__fd_has_name(int fd, int directory, const char *name)
{
    struct stat opened, named;

    return fstat(fd, &opened) == 0 &&
           fstatat(directory, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
           opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

/* ---- what others have left ---- */

/* Two names has a file whose writer was killed between link() and unlink():
 * what is removed is the one of the draft, and the document keeps its own. */
static bool is_ours(const struct stat *status)
{
    return S_ISREG(status->st_mode) && status->st_uid == geteuid() &&
           (status->st_nlink == 1 || status->st_nlink == 2);
}

/* Whether another machine may write here whose locks are not seen: flock(2)
 * stays on the machine, by mount options or always. */
static bool is_network(int directory)
{
#ifdef __linux__
    struct statfs system;

    if (fstatfs(directory, &system) < 0)
        return true;
    switch ((unsigned long)system.f_type & 0xffffffff) {
    case 0x6969:     /* NFS */
    case 0x517b:     /* SMB */
    case 0xfe534d42: /* SMB2 */
    case 0xff534d42: /* CIFS */
    case 0x65735546: /* FUSE, virtiofs */
    case 0x01021997: /* 9P */
    case 0x00c36400: /* Ceph */
    case 0x5346414f: /* AFS */
    case 0x6b414653: /* AFS of the kernel */
    case 0x73757245: /* Coda */
    case 0x01161970: /* GFS2 */
    case 0x7461636f: /* OCFS2 */
    case 0x0bd00bd0: /* Lustre */
    case 0x786f4256: /* VirtualBox */
    case 0xbacbacbc: /* VMware */
        return true;
    default:
        return false;
    }
#else
    (void)directory;
    return true;
#endif
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
    if (!is_ours(&status) ||
        (is_network(directory) && status.st_mtime > time(NULL) - LONG_AGO))
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

void nymbl__drafts_sweep(int directory)
{
    char name[NYMBL__DRAFT_NAME];
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

static void close_keeping_errno(int fd)
{
    int problem = errno;

    close(fd);
    errno = problem;
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
static int named_open(int directory, char name[NYMBL__DRAFT_NAME])
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
        close_keeping_errno(fd);
        if (locked < 0)
            break;
    }
    name[0] = '\0';
    return -1;
}

nymbl_kind nymbl__draft_open(nymbl__draft *draft, int directory,
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

nymbl_kind nymbl__draft_try(int directory, const char **reason)
{
    nymbl__draft draft = {.fd = unnamed_open(directory)};

    if (draft.fd < 0)
        draft.fd = named_open(directory, draft.name);
    if (draft.fd < 0) {
        *reason = nymbl__errno_reason(errno);
        return NYMBL_IO;
    }
    nymbl__draft_drop(&draft, directory);
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
static int draft_link(nymbl__draft *draft, int directory)
{
    char name[NYMBL__DRAFT_NAME];

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
static int draft_copy(nymbl__draft *draft, int directory)
{
    nymbl__draft copy;
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
    nymbl__draft_drop(&copy, directory);
    errno = problem;
    return -1;
}

int nymbl__draft_publish(nymbl__draft *draft, int directory, const char *name,
                         bool overwrite)
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

void nymbl__draft_drop(nymbl__draft *draft, int directory)
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

/* ---- steps of every file that gets its name ---- */

/* Bytes that a server or a FUSE program could not write are reported by fsync()
 * or by the next close(), and by no later one. So a copy is closed. */
static int copy_close(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

    if (copy < 0 || (close(copy) < 0 && errno != EINTR))
        return -1;
    return 0;
}

int nymbl__file_flush(int fd)
{
    int flushed;

    do
        flushed = fsync(fd);
    while (flushed < 0 && errno == EINTR);
    if (flushed < 0 && (errno == EINVAL || errno == ENOTSUP ||
                        errno == EOPNOTSUPP || errno == ENOSYS ||
                        errno == EROFS)) /* "does not support" it: fsync(2) */
        return copy_close(fd) < 0 ? -1 : 1;
    return flushed;
}

int nymbl__directory_flush(int directory)
{
    int flushed;
    int fd = nymbl__fd_high(
        openat(directory, ".", O_RDONLY | O_CLOEXEC | O_DIRECTORY));

    if (fd < 0) /* one that may be written to and not read, for example */
        return nymbl__is_lacking(errno) ? 1 : -1;
    flushed = nymbl__file_flush(fd);
    close_keeping_errno(fd);
    return flushed;
}

bool nymbl__is_lacking(int code)
{
    switch (code) {
    case EPERM:
    case EACCES:
    case EINVAL:
    case ENOSYS:
    case ENOTSUP:
#if EOPNOTSUPP != ENOTSUP
    case EOPNOTSUPP:
#endif
    case ENOTTY:
    case ENOLCK:
    case EROFS:
    case EXDEV:
    case EMLINK:
        return true;
    default:
        return false;
    }
}

int nymbl__file_set_mode(int fd, unsigned mode)
{
    /* it was made with 0600, or with what the file system gives every file */
    return fchmod(fd, (mode_t)mode) < 0 && !nymbl__is_lacking(errno) ? -1 : 0;
}

int nymbl__file_rename(int fd, int directory, const char *from, const char *to,
                       bool overwrite)
{
    struct stat status;

    /* should another process have removed it and begun its own file under the
     * same name, that one would be published half-written */
    if (!nymbl__fd_has_name(fd, directory, from)) {
        errno = ENOENT;
        return -1;
    }
    if (overwrite)
        return renameat(directory, from, directory, to);
#ifdef RENAME_NOREPLACE
    if (renameat2(directory, from, directory, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (!nymbl__is_lacking(errno))
        return -1;
#endif
    /* a kill between these two leaves both names: see is_ours() */
    if (linkat(directory, from, directory, to, 0) == 0) {
        unlinkat(directory, from, 0);
        return 0;
    }
    if (!nymbl__is_lacking(errno))
        return -1;
    /* file systems without links get the weaker test */
    if (fstatat(directory, to, &status, AT_SYMLINK_NOFOLLOW) == 0) {
        errno = EEXIST;
        return -1;
    }
    return renameat(directory, from, directory, to);
}
