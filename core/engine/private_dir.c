/* SPDX-License-Identifier: MIT */
/* Directories for a listener, which no other user can enter. */
#include "engine/private_dir.h"

#include "base/fd.h"
#include "file/file_id.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* The directories are numbered, so that those left behind by killed processes
 * are found without reading the parent directory. A process locks its directory
 * with flock(2) until it ends. A further group of numbers is used, and swept,
 * only if all numbers of the group before it are in use. */
#define GROUP_SIZE 16
#define DIR_COUNT 256

static void dir_name(char path[32], const char *parent, int number)
{
    snprintf(path, 32, "%s/nymbl-%lu-%d", parent,
             (unsigned long)geteuid() & 0xffffffff, number);
}

/* Open and lock a numbered directory. Returns -1 with errno on failure:
 * EWOULDBLOCK if another process has locked it, ENOENT if it was removed,
 * EACCES if another user can enter it. */
static int dir_lock(const char *path)
{
    struct stat opened, named;
    int code;
    int fd = nymbl__fd_avoid_stdio(
        open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));

    if (fd < 0)
        return -1;
    code = flock(fd, LOCK_EX | LOCK_NB) < 0 ? errno : 0;
    /* another process may have removed it before it was locked */
    if (code == 0 &&
        (fstat(fd, &opened) < 0 || lstat(path, &named) < 0 ||
         named.st_dev != opened.st_dev || named.st_ino != opened.st_ino))
        code = ENOENT;
    if (code == 0 &&
        (opened.st_uid != geteuid() || (opened.st_mode & 077) != 0))
        code = EACCES;
    if (code == 0)
        return fd;
    close(fd);
    errno = code;
    return -1;
}

/* Add what the umask has taken from the mode of a new directory. What others
 * may enter is not changed: if this directory was swept, its path may have been
 * taken. */
static void mode_complete(const char *path)
{
    struct stat named;

    if (lstat(path, &named) == 0 && S_ISDIR(named.st_mode) &&
        named.st_uid == geteuid() && (named.st_mode & 077) == 0 &&
        (named.st_mode & 0700) != 0700)
        fchmodat(AT_FDCWD, path, 0700, AT_SYMLINK_NOFOLLOW);
}

static void socket_unlink(const char *dir)
{
    char path[48];

    snprintf(path, sizeof(path), "%s/" NYMBL__PRIVATE_DIR_SOCKET, dir);
    unlink(path);
}

static void dir_remove(const char *path)
{
    socket_unlink(path);
    rmdir(path);
}

/* Create and lock a directory, or one that was left behind. Returns the
 * descriptor of the lock, or -1 with errno. */
static int dir_acquire(char path[32], const char *parent)
{
    for (int i = 0; i < DIR_COUNT; i++) {
        bool is_new;
        int fd;

        dir_name(path, parent, i);
        is_new = mkdir(path, 0700) == 0;
        if (!is_new && errno != EEXIST)
            return -1;
        if (is_new)
            mode_complete(path);
        fd = dir_lock(path);
        if (fd < 0 && is_new && errno != EWOULDBLOCK && errno != ENOENT) {
            /* The file system cannot lock directories, or has no modes. (If
             * another program's is here by now, it stays unless it is empty.)
             */
            rmdir(path);
            return -1;
        }
        if (fd < 0)
            continue;
        fchmod(fd, 0700); /* another process may have made it just now */
        socket_unlink(path);
        return fd;
    }
    errno = EEXIST;
    return -1;
}

/* Remove the directories that killed processes have left behind. */
static void dirs_sweep(const char *parent)
{
    int found = GROUP_SIZE; /* numbers in use in the previous group */

    for (int i = 0; i < DIR_COUNT; i++) {
        struct stat status;
        char path[32];
        int fd;

        if (i % GROUP_SIZE == 0) {
            if (found < GROUP_SIZE)
                return;
            found = 0;
        }
        dir_name(path, parent, i);
        if (lstat(path, &status) < 0)
            continue;
        found++;
        fd = dir_lock(path);
        if (fd < 0)
            continue;
        dir_remove(path);
        close(fd);
    }
}

/* Create a directory with a random name, which is never swept. It is used only
 * if all numbers are in use or the file system cannot lock directories. */
static bool dir_create_unlocked(char path[32], const char *parent)
{
    snprintf(path, 32, "%s/nymbl-XXXXXX", parent);
    if (mkdtemp(path) == NULL)
        return false;
    chmod(path, 0700);
    return true;
}

bool nymbl__private_dir_create(char path[32], int *lock)
{
    static const char *const parents[] = {"/tmp", "/run", "/dev/shm"};
    int saved_errno = 0;

    for (size_t i = 0; i < sizeof(parents) / sizeof(parents[0]); i++)
        dirs_sweep(parents[i]);
    for (size_t i = 0; i < sizeof(parents) / sizeof(parents[0]); i++) {
        *lock = dir_acquire(path, parents[i]);
        if (*lock >= 0 || dir_create_unlocked(path, parents[i]))
            return true;
        saved_errno = errno;
    }
    path[0] = '\0';
    errno = saved_errno;
    return false;
}

void nymbl__private_dir_remove(char path[32], int *lock,
                               const nymbl__file_id *id)
{
    if (nymbl__file_id_matches(id, path))
        dir_remove(path);
    path[0] = '\0';
    if (*lock >= 0)
        close(*lock);
    *lock = -1;
}
