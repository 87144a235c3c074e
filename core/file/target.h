/* SPDX-License-Identifier: MIT */
/* Path resolution for a file that will be created or replaced. */
#ifndef NYMBL_FILE_TARGET_H
#define NYMBL_FILE_TARGET_H

#include "nymbl.h"

/* Path resolution for a file that will be created or replaced. */
typedef struct nymbl__target {
    int dir_fd;     /* -1: none */
    int base_fd;    /* where a relative `dir_path` starts, or -1 */
    char *dir_path; /* of `dir_fd`, without links; NULL: `base_fd` */
    char *name;     /* file name within the directory */
} nymbl__target;

/* Resolve a path, symbolic links included, to an open directory and a file name
 * in it. Fails with NYMBL_IO if the last name is anything but a regular file or
 * free, if the path leads over a symbolic link that another user placed in a
 * directory such as /tmp, through /proc or /dev/fd, or if the name is reserved
 * for temporary, partial or metadata files. */
nymbl_kind nymbl__target_resolve(nymbl__target *target, const char *path,
                                 bool overwrite, const char **reason);
/* Whether the directory's path still leads to the same directory. Changes of
 * the process's working directory do not matter. */
bool nymbl__target_is_unmoved(const nymbl__target *target, const char **reason);
void nymbl__target_free(nymbl__target *target);

#endif
