/* SPDX-License-Identifier: MIT */
/* Folders for a listener, which nobody else can enter. */
#include "engine/private_dir.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

bool nymbl__file_id_matches(const nymbl__file_id *mark, const char *path)
{
    struct stat status;

    return lstat(path, &status) == 0 && status.st_dev == mark->device &&
           status.st_ino == mark->inode;
}

void nymbl__file_id_get(nymbl__file_id *mark, const char *path)
{
    struct stat status = {0};

    (void)!lstat(path, &status);
    *mark = (nymbl__file_id){status.st_dev, status.st_ino};
}

/* Folders that nobody else can enter. Their names are few, so that what a
 * killed process has left behind is found and removed without a search: whoever
 * made one holds flock(2) on it for life. Past a group they are used, and
 * looked for, only while all of the group are taken. */
#define GROUP 16
#define FOLDERS 256

static void folder_name(char path[32], const char *place, int number)
{
    snprintf(path, 32, "%s/nymbl-%lu-%d", place,
             (unsigned long)geteuid() & 0xffffffff, number);
}

/* Open and lock a folder of ours. -1 with errno: EWOULDBLOCK if it is another
 * process's, ENOENT or EACCES if it is gone or another user's. */
static int folder_lock(const char *path)
{
    struct stat opened, named;
    int problem;
    int fd = nymbl__fd_avoid_stdio(
        open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));

    if (fd < 0)
        return -1;
    problem = flock(fd, LOCK_EX | LOCK_NB) < 0 ? errno : 0;
    /* looked at once it is locked: until then it may be removed */
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

static void folder_remove(const char *path)
{
    char lease[48];

    snprintf(lease, sizeof(lease), "%s/lease", path);
    unlink(lease);
    rmdir(path);
}

/* Make a folder of a place, or take over one that was left behind: then its
 * socket goes. Returns its lock, or -1 with errno. */
static int folder_take(char path[32], const char *place)
{
    for (int i = 0; i < FOLDERS; i++) {
        char lease[48];
        bool made;
        int fd;

        folder_name(path, place, i);
        made = mkdir(path, 0700) == 0;
        if (!made && errno != EEXIST)
            return -1;
        if (made) /* whatever the host's umask */
            fchmodat(AT_FDCWD, path, 0700, AT_SYMLINK_NOFOLLOW);
        fd = folder_lock(path);
        if (fd < 0 && made && errno != EWOULDBLOCK && errno != ENOENT) {
            rmdir(path); /* directories cannot be locked here */
            return -1;
        }
        if (fd < 0)
            continue;
        snprintf(lease, sizeof(lease), "%s/lease", path);
        unlink(lease);
        return fd;
    }
    errno = EEXIST;
    return -1;
}

/* Remove the folders that killed processes have left in a place. */
static void folders_sweep(const char *place)
{
    int seen = GROUP;

    for (int i = 0; i < FOLDERS; i++) {
        struct stat status;
        char path[32];
        int fd;

        if (i % GROUP == 0) {
            if (seen < GROUP)
                return;
            seen = 0;
        }
        folder_name(path, place, i);
        if (lstat(path, &status) < 0)
            continue;
        seen++;
        fd = folder_lock(path);
        if (fd < 0)
            continue;
        folder_remove(path);
        close(fd);
    }
}

/* Where all names are taken, or directories cannot be locked, one that stays
 * after a kill. */
static bool folder_make(char path[32], const char *place)
{
    snprintf(path, 32, "%s/nymbl-XXXXXX", place);
    if (mkdtemp(path) == NULL)
        return false;
    chmod(path, 0700);
    return true;
}

bool nymbl__private_dir_create(char path[32], int *lock)
{
    static const char *const places[] = {"/tmp", "/run", "/dev/shm"};
    int problem = 0;

    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
        folders_sweep(places[i]);
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        *lock = folder_take(path, places[i]);
        if (*lock >= 0 || folder_make(path, places[i]))
            return true;
        problem = errno;
    }
    path[0] = '\0';
    errno = problem;
    return false;
}

void nymbl__private_dir_remove(char path[32], int *lock,
                               const nymbl__file_id *mark)
{
    if (nymbl__file_id_matches(mark, path))
        folder_remove(path);
    path[0] = '\0';
    if (*lock >= 0)
        close(*lock);
    *lock = -1;
}
