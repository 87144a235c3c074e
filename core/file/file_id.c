/* SPDX-License-Identifier: MIT */
/* The identity of a file, by which it is recognized at its path. */
#include "file/file_id.h"

#include <sys/stat.h>

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

void nymbl__file_id_get_fd(nymbl__file_id *id, int fd)
{
    struct stat status = {0};

    (void)!fstat(fd, &status);
    *id = (nymbl__file_id){status.st_dev, status.st_ino};
}
