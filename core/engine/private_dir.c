/* SPDX-License-Identifier: MIT */
/* Directories for a listener, which no other user can enter. */
#include "engine/private_dir.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

bool nymbl__file_id_matches(const nymbl__file_id *id, const char *path)
{
    struct stat status;

    return lstat(path, &status) == 0 && status.st_dev == id->device &&
           status.st_ino == id->inode;
}

void nymbl__file_id_get(nymbl__file_id *id, const char *path)
{
    struct stat status = {0};

    (void)!lstat(path, &status);
    *id = (nymbl__file_id){status.st_dev, status.st_ino};
}

/* Their names are numbered, so that those left behind by a killed process are
 * found without reading the parent directory. A process holds flock(2) on its
 * directory as long as it lives. Numbers of the next group are used, and looked
 * at, only if all of a group are taken. */
#define GROUP 16
#define DIRS 256

static void dir_name(char path[32], const char *parent, int number)
{
    snprintf(path, 32, "%s/nymbl-%lu-%d", parent,
             (unsigned long)geteuid() & 0xffffffff, number);
}

/* Open and lock one of our directories. -1 with errno: EWOULDBLOCK if another
 * process holds it, ENOENT if it is gone, EACCES if another user can enter it.
 */
static int dir_lock(const char *path)
{
    struct stat opened, named;
    int problem;
    int fd = nymbl__fd_avoid_stdio(
        open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));

    if (fd < 0)
        return -1;
    problem = flock(fd, LOCK_EX | LOCK_NB) < 0 ? errno : 0;
    /* its name may have been removed before it was locked */
    if (problem == 0 &&
        (fstat(fd, &opened) < 0 || lstat(path, &named) < 0 ||
         named.st_dev != opened.st_dev || named.st_ino != opened.st_ino))
        problem = ENOENT;
    if (problem == 0 &&
        (opened.st_uid != geteuid() || (opened.st_mode & 077) != 0))
        problem = EACCES;
    if (problem == 0)
        return fd;
    close(fd);
    errno = problem;
    return -1;
}

static void dir_remove(const char *path)
{
    char socket[48];

    snprintf(socket, sizeof(socket), "%s/lease", path);
    unlink(socket);
    rmdir(path);
}

/* Create a directory, or take over one that was left behind, and remove the
 * socket in it. Returns the descriptor that holds its lock, or -1 with errno.
 */
static int dir_take(char path[32], const char *parent)
{
    for (int i = 0; i < DIRS; i++) {
        char socket[48];
        bool made;
        int fd;

        dir_name(path, parent, i);
        made = mkdir(path, 0700) == 0;
        if (!made && errno != EEXIST)
            return -1;
        if (made) /* regardless of the umask */
            fchmodat(AT_FDCWD, path, 0700, AT_SYMLINK_NOFOLLOW);
        fd = dir_lock(path);
        if (fd < 0 && made && errno != EWOULDBLOCK && errno != ENOENT) {
            rmdir(path); /* directories cannot be locked here */
            return -1;
        }
        if (fd < 0)
            continue;
        snprintf(socket, sizeof(socket), "%s/lease", path);
        unlink(socket);
        return fd;
    }
    errno = EEXIST;
    return -1;
}

/* Remove the directories that killed processes have left behind. */
static void dirs_sweep(const char *parent)
{
    int seen = GROUP;

    for (int i = 0; i < DIRS; i++) {
        struct stat status;
        char path[32];
        int fd;

        if (i % GROUP == 0) {
            if (seen < GROUP)
                return;
            seen = 0;
        }
        dir_name(path, parent, i);
        if (lstat(path, &status) < 0)
            continue;
        seen++;
        fd = dir_lock(path);
        if (fd < 0)
            continue;
        dir_remove(path);
        close(fd);
    }
}

/* If all names are taken, or directories cannot be locked: create one that
 * stays if the process is killed. */
static bool dir_make_unlocked(char path[32], const char *parent)
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
    int problem = 0;

    for (size_t i = 0; i < sizeof(parents) / sizeof(parents[0]); i++)
        dirs_sweep(parents[i]);
    for (size_t i = 0; i < sizeof(parents) / sizeof(parents[0]); i++) {
        *lock = dir_take(path, parents[i]);
        if (*lock >= 0 || dir_make_unlocked(path, parents[i]))
            return true;
        problem = errno;
    }
    path[0] = '\0';
    errno = problem;
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
