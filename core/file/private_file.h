/* SPDX-License-Identifier: MIT */
/* Files that belong to this user alone. */
#ifndef NYMBL_FILE_PRIVATE_FILE_H
#define NYMBL_FILE_PRIVATE_FILE_H

#include <sys/stat.h>

/* Open, or with O_CREAT create with mode 0600, a regular file that is owned by
 * this user, has one name, is not a symbolic link and gives others no
 * permissions. The directory may be shared, and another user's file must be
 * neither trusted nor written to. Returns -1 with errno on failure: EACCES if
 * the file breaks these rules. */
int nymbl__private_file_open(int dir_fd, const char *name, int flags);

/* The same for a path to a file that others may read, but not write to. Fills
 * in its status, or on failure the reason word. */
int nymbl__private_file_open_path(const char *path, int flags,
                                  struct stat *status, const char **reason);

#endif
