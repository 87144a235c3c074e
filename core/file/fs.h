/* SPDX-License-Identifier: MIT */
/* File operations with fallbacks for file systems that lack them. */
#ifndef NYMBL_FILE_FS_H
#define NYMBL_FILE_FS_H

#include <stdbool.h>

/* Whether an errno means that the file system does not support an operation.
 * Some report this as a missing permission: CIFS, drvfs, FUSE and NFS for modes
 * and links, Android for all links. If the operation really is forbidden,
 * rename(), the last fallback, fails too. */
bool nymbl__fs_is_unsupported(int code);
/* fsync() that retries on EINTR. Returns 0; 1 if the file system does not
 * support it; or -1 with errno. */
int nymbl__fs_flush(int fd);
/* Flush the entries of a directory, with the same results. */
int nymbl__fs_flush_dir(int dir_fd);
/* fchmod(), ignored if the file system does not support it. Returns 0, or -1
 * with errno. */
int nymbl__fs_set_mode(int fd, unsigned mode);
/* Rename the open file. Without `overwrite` it fails with EEXIST if `to`
 * exists. Returns 0, or -1 with errno. */
int nymbl__fs_rename(int fd, int dir_fd, const char *from, const char *to,
                     bool overwrite);
/* Whether a name refers to the open file. */
bool nymbl__fs_has_name(int fd, int dir_fd, const char *name);
/* Whether the file system may be mounted on other machines, whose locks are not
 * visible here: flock(2) is then local, always or by mount options. */
bool nymbl__fs_is_network(int dir_fd);

#endif
