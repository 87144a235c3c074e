/* SPDX-License-Identifier: MIT */
/* What is certainly on the disk. After each fsync(), the folder
 * NYMBL_FAULTS_DISK has a file INODE.bytes with the bytes of a file, or
 * INODE.names with a line "INODE NAME" for each entry of a directory. */
#include "faults.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define INODES 256

static const char *folder;
/* Open files, so that no number of an inode is used again. */
static struct {
    ino_t number;
    int fd;
} inodes[INODES];

static void fail(const char *what)
{
    perror(what);
    abort();
}

/* Open the file again: a duplicate would share its lock. */
static int inode_keep(int fd, ino_t number)
{
    char path[32];
    int i = 0;

    while (i < INODES && inodes[i].fd > 0 && inodes[i].number != number)
        i++;
    if (i == INODES)
        fail("inodes");
    if (inodes[i].fd <= 0) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        inodes[i].number = number;
        inodes[i].fd = open(path, O_RDONLY | O_CLOEXEC);
        if (inodes[i].fd < 0)
            fail("open");
    }
    return inodes[i].fd;
}

static void names_write(FILE *to, int fd)
{
    DIR *dir = fdopendir(openat(fd, ".", O_RDONLY | O_CLOEXEC));
    struct dirent *entry;

    if (dir == NULL)
        fail("directory");
    while ((entry = readdir(dir)) != NULL) {
        struct stat status;

        if (strcmp(entry->d_name, ".") != 0 &&
            strcmp(entry->d_name, "..") != 0 &&
            fstatat(fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0)
            fprintf(to, "%llu %s\n", (unsigned long long)status.st_ino,
                    entry->d_name);
    }
    closedir(dir);
}

static void bytes_write(FILE *to, int fd)
{
    char data[65536];
    ssize_t got;

    for (off_t at = 0; (got = pread(fd, data, sizeof(data), at)) > 0; at += got)
        fwrite(data, 1, (size_t)got, to);
}

static void sync_record(const char *call, int fd)
{
    struct stat status;
    char path[256];
    FILE *to;

    if (strcmp(call, "synced") != 0)
        return;
    if (fstat(fd, &status) != 0)
        fail("fstat");
    fd = inode_keep(fd, status.st_ino);
    snprintf(path, sizeof(path), "%s/%llu.%s", folder,
             (unsigned long long)status.st_ino,
             S_ISDIR(status.st_mode) ? "names" : "bytes");
    to = fopen(path, "w");
    if (to == NULL)
        fail("record");
    if (S_ISDIR(status.st_mode))
        names_write(to, fd);
    else
        bytes_write(to, fd);
    if (fclose(to) != 0)
        fail("record");
}

__attribute__((constructor)) static void disk_of_the_environment(void)
{
    folder = getenv("NYMBL_FAULTS_DISK");
    if (folder != NULL)
        faults_watch = sync_record;
}
