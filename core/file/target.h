/* SPDX-License-Identifier: MIT */
/* Path resolution for a file that will be created or replaced. */
#ifndef NYMBL_FILE_TARGET_H
#define NYMBL_FILE_TARGET_H

#include "nymbl.h"

/* The file that will be created or replaced. */
typedef struct nymbl__target {
    int dir_fd;     /* the file's directory, or -1 */
    int base_fd;    /* the directory that `dir_path` is relative to, or -1 */
    char *dir_path; /* path of the directory; NULL if it is `base_fd` itself */
    char *name;     /* the file's name in the directory */
} nymbl__target;

/* Resolve a path, symbolic links included, to an open directory and a file name
 * in it. Fails with NYMBL_IO
 * - if the file exists and is not a regular file,
 * - if the path leads over a symbolic link that another user placed in a
 *   directory such as /tmp, or through /proc or /dev/fd,
 * - or if the name is reserved for temporary, partial or metadata files. */
nymbl_kind nymbl__target_resolve(nymbl__target *target, const char *path,
                                 bool overwrite, const char **reason);
/* The same for a file name in an open directory. A symbolic link of that name
 * is not followed: it fails with "symbolic_link". */
nymbl_kind nymbl__target_resolve_at(nymbl__target *target, int dir_fd,
                                    const char *name, bool overwrite,
                                    const char **reason);
/* Whether the directory's path still leads to the directory. If not, fills in
 * the reason. */
bool nymbl__target_is_unmoved(const nymbl__target *target, const char **reason);
void nymbl__target_free(nymbl__target *target);

#endif
