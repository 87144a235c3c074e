/* SPDX-License-Identifier: MIT */
/* Temporary files. A file has no name (O_TMPFILE), or one from a fixed list, so
 * that files left by killed processes are found without reading the directory.
 *
 * The writer locks the file with flock(2) before it gets a temporary name, and
 * unlocks it after it has got its final one. So a file with a temporary name
 * that can be locked was left by a process that no longer exists. */
#include "file/tempfile.h"

#include "base/fd.h"
#include "base/fnv1a.h"
#include "base/secret.h"
#include "file/fs.h"
#include "file/leftover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Names are tried in order, in groups. A further group is used, and swept, only
 * if all names of the group before it are in use. */
#define GROUP_SIZE 16
#define NAME_COUNT 256
#define TRIES (NAME_COUNT + 16) /* names to try, with some random ones */

#define SWEPT_MAX 64 /* directories that this process remembers as swept */

/* ---- names ---- */

/* After the fixed names come random ones, which are never swept. They are used
 * only if 256 processes write in a directory at the same time, or if another
 * user has taken all fixed names. */
static void name_make(char name[NYMBL__TEMPFILE_NAME_SIZE], int number)
{
    struct timespec now;

    if (number < NAME_COUNT) {
        snprintf(name, NYMBL__TEMPFILE_NAME_SIZE, NYMBL__TEMPFILE_PREFIX "%02x",
                 (unsigned)number);
        return;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(name, NYMBL__TEMPFILE_NAME_SIZE,
             NYMBL__TEMPFILE_PREFIX "%08lx%08lx",
             (unsigned long)getpid() & 0xffffffff,
             (unsigned long)(now.tv_nsec + number) & 0xffffffff);
}

/* Remember that this process sweeps a directory. Returns false if it has done
 * so before. Atomic variables, because a forked child could inherit a locked
 * mutex. */
static bool swept_add(int dir_fd)
{
    static _Atomic uint64_t swept[SWEPT_MAX];
    static atomic_uint count;
    struct stat status;
    uint64_t hash;

    if (fstat(dir_fd, &status) < 0)
        return false;
    {
        const uint64_t fields[] = {(uint64_t)getpid(), (uint64_t)status.st_dev,
                                   (uint64_t)status.st_ino};

        hash = nymbl__fnv1a(NYMBL__FNV1A_INIT, fields, sizeof(fields));
    }
    for (int i = 0; i < SWEPT_MAX; i++) {
        if (swept[i] == hash)
            return false;
    }
    swept[count++ % SWEPT_MAX] = hash;
    return true;
}

void nymbl__tempfile_sweep(int dir_fd)
{
    char name[NYMBL__TEMPFILE_NAME_SIZE];
    int found = GROUP_SIZE; /* names in use in the previous group */

    for (int i = 0; i < NAME_COUNT; i++) {
        struct stat status;

        if (i % GROUP_SIZE == 0) {
            if (found < GROUP_SIZE)
                return;
            found = 0;
        }
        name_make(name, i);
        if (fstatat(dir_fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0) {
            found++;
            nymbl__leftover_remove(dir_fd, name);
        }
    }
}

void nymbl__tempfile_sweep_once(int dir_fd)
{
    if (swept_add(dir_fd))
        nymbl__tempfile_sweep(dir_fd);
}

/* ---- creating and publishing ---- */

/* Lock a new file. A file system without locks is no failure: no other process
 * can lock the file there, so none removes it. */
static int tempfile_lock(int fd)
{
    int locked;

    do
        locked = flock(fd, LOCK_EX | LOCK_NB);
    while (locked < 0 && errno == EINTR);
    if (locked < 0 && nymbl__fs_is_unsupported(errno))
        return 0;
    return locked;
}

static void proc_fd_path(char path[32], int fd)
{
    snprintf(path, 32, "/proc/self/fd/%d", fd);
}

/* Create a file without a name, to be linked later. Returns -1 with errno on
 * failure. */
static int unnamed_create(int dir_fd)
{
#ifdef O_TMPFILE
    struct stat opened, found;
    char path[32];
    int fd = nymbl__fd_avoid_stdio(
        openat(dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));

    if (fd < 0)
        return -1;
    /* linkat() needs this path, so check that /proc is mounted */
    proc_fd_path(path, fd);
    if (fstat(fd, &opened) == 0 && stat(path, &found) == 0 &&
        opened.st_dev == found.st_dev && opened.st_ino == found.st_ino)
        return fd;
    close(fd);
#else
    (void)dir_fd;
#endif
    errno = ENOTSUP;
    return -1;
}

/* Lock a new file that has a name. Returns 1; 0 if another process has locked
 * and removed the file first; or -1 with errno, and the file is removed. */
static int named_lock(int fd, int dir_fd, const char *name)
{
    int saved_errno;

    if (tempfile_lock(fd) == 0)
        return nymbl__fs_has_name(fd, dir_fd, name) ? 1 : 0;
    if (errno == EWOULDBLOCK)
        return 0;
    saved_errno = errno;
    unlinkat(dir_fd, name, 0);
    errno = saved_errno;
    return -1;
}

/* Create a file, replacing one that a killed process left behind. Returns -1
 * with errno on failure. */
static int named_create(int dir_fd, const char *name)
{
    int fd = -1, saved_errno;

    for (int i = 0; i < 2 && fd < 0; i++) {
        if (i > 0 && (errno != EEXIST || !nymbl__leftover_remove(dir_fd, name)))
            break;
        fd = openat(dir_fd, name,
                    O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        saved_errno = errno;
    }
    if (fd < 0) {
        errno = saved_errno;
        return -1;
    }
    fd = nymbl__fd_avoid_stdio(fd);
    if (fd < 0) {
        saved_errno = errno;
        unlinkat(dir_fd, name, 0);
        errno = saved_errno;
    }
    return fd;
}

/* Create and lock a file under a free temporary name. Returns -1 with errno on
 * failure. */
static int named_create_locked(int dir_fd, char name[NYMBL__TEMPFILE_NAME_SIZE])
{
    for (int i = 0; i < TRIES; i++) {
        int fd, locked;

        name_make(name, i);
        fd = named_create(dir_fd, name);
        if (fd < 0 && errno == EEXIST)
            continue;
        if (fd < 0)
            break;
        locked = named_lock(fd, dir_fd, name);
        if (locked > 0)
            return fd;
        nymbl__fd_close(fd);
        if (locked < 0)
            break;
    }
    name[0] = '\0';
    return -1;
}

nymbl_kind nymbl__tempfile_open(nymbl__tempfile *tempfile, int dir_fd,
                                const char **reason)
{
    tempfile->name[0] = '\0';
    tempfile->fd = unnamed_create(dir_fd);
    if (tempfile->fd >= 0 && tempfile_lock(tempfile->fd) < 0) {
        close(tempfile->fd);
        tempfile->fd = -1;
    }
    if (tempfile->fd < 0)
        tempfile->fd = named_create_locked(dir_fd, tempfile->name);
    if (tempfile->fd >= 0)
        return NYMBL_OK;
    *reason = nymbl_reason_from_errno(errno);
    return NYMBL_IO;
}

nymbl_kind nymbl__tempfile_check(int dir_fd, const char **reason)
{
    nymbl__tempfile tempfile = {.fd = unnamed_create(dir_fd)};

    if (tempfile.fd < 0)
        tempfile.fd = named_create_locked(dir_fd, tempfile.name);
    if (tempfile.fd < 0) {
        *reason = nymbl_reason_from_errno(errno);
        return NYMBL_IO;
    }
    nymbl__tempfile_discard(&tempfile, dir_fd);
    return NYMBL_OK;
}

/* Link a file without a name; fails with EEXIST if the name is taken. */
static int unnamed_link(int fd, int dir_fd, const char *name)
{
    char path[32];

    proc_fd_path(path, fd);
    return linkat(AT_FDCWD, path, dir_fd, name, AT_SYMLINK_FOLLOW);
}

/* Link a file without a name under a temporary one, to be renamed later. */
static int tempfile_link(nymbl__tempfile *tempfile, int dir_fd)
{
    char name[NYMBL__TEMPFILE_NAME_SIZE];

    for (int i = 0; i < TRIES; i++) {
        int linked;

        name_make(name, i);
        linked = unnamed_link(tempfile->fd, dir_fd, name);
        if (linked < 0 && errno == EEXIST &&
            nymbl__leftover_remove(dir_fd, name))
            linked = unnamed_link(tempfile->fd, dir_fd, name);
        if (linked == 0) {
            memcpy(tempfile->name, name, sizeof(name));
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
                nymbl__secret_wipe(block, sizeof(block));
                return -1;
            }
            put += wrote > 0 ? wrote : 0;
        }
        at += put;
    }
    nymbl__secret_wipe(block, sizeof(block));
    {
        struct stat all, copied;

        if (fstat(from, &all) < 0 || fstat(to, &copied) < 0)
            return -1;
        if (all.st_size == at && copied.st_size == at)
            return nymbl__fs_set_mode(to, all.st_mode & 07777);
    }
    errno = EIO;
    return -1;
}

/* Copy the file to a new one with a temporary name: some file systems can
 * create files without a name but not link them. */
static int tempfile_copy(nymbl__tempfile *tempfile, int dir_fd)
{
    nymbl__tempfile copy;
    int saved_errno;

    copy.fd = named_create_locked(dir_fd, copy.name);
    if (copy.fd < 0)
        return -1;
    if (bytes_copy(tempfile->fd, copy.fd) == 0 &&
        nymbl__fs_flush(copy.fd) >= 0) {
        close(tempfile->fd);
        *tempfile = copy;
        return 0;
    }
    saved_errno = errno;
    nymbl__tempfile_discard(&copy, dir_fd);
    errno = saved_errno;
    return -1;
}

int nymbl__tempfile_publish(nymbl__tempfile *tempfile, int dir_fd,
                            const char *name, bool overwrite)
{
    if (tempfile->name[0] == '\0') {
        if (unnamed_link(tempfile->fd, dir_fd, name) == 0)
            return 0;
        if (errno == EEXIST && !overwrite)
            return -1;
        if ((errno != EEXIST || tempfile_link(tempfile, dir_fd) < 0) &&
            tempfile_copy(tempfile, dir_fd) < 0)
            return -1;
    }
    if (nymbl__fs_rename(tempfile->fd, dir_fd, tempfile->name, name,
                         overwrite) < 0)
        return -1;
    tempfile->name[0] = '\0';
    return 0;
}

void nymbl__tempfile_discard(nymbl__tempfile *tempfile, int dir_fd)
{
    if (tempfile->fd < 0)
        return;
    /* The name is removed before close() unlocks the file, and only if it still
     * refers to this file. */
    if (tempfile->name[0] != '\0' &&
        nymbl__fs_has_name(tempfile->fd, dir_fd, tempfile->name))
        unlinkat(dir_fd, tempfile->name, 0);
    close(tempfile->fd);
    tempfile->fd = -1;
    tempfile->name[0] = '\0';
}
