/* SPDX-License-Identifier: MIT */
/* Files that belong to this user alone. */
#ifndef NYMBL_FILE_PRIVATE_FILE_H
#define NYMBL_FILE_PRIVATE_FILE_H

#include <sys/stat.h>

/* Open a regular file that is owned by this user, has one name, is not a
 * symbolic link and grants others no permissions; O_CREAT creates it with mode
 * 0600. The directory may be shared with other users, whose files must be
 * neither trusted nor written to. Returns -1 with errno on failure: EACCES if
 * the file is not as described. */
int nymbl__private_file_open(int dir_fd, const char *name, int flags);

/* Open the file at a path by the same rules, except that others may have the
 * permission to read it. Fills in its status, or on failure the reason. */
int nymbl__private_file_open_path(const char *path, int flags,
                                  struct stat *status, const char **reason);

#endif
