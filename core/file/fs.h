/* SPDX-License-Identifier: MIT */
/* File operations with fallbacks for file systems that lack them. */
#ifndef NYMBL_FILE_FS_H
#define NYMBL_FILE_FS_H

#include <stdbool.h>

/* Whether an errno means that the file system does not support an operation.
 * Some file systems report a missing permission instead: CIFS, drvfs, FUSE and
 * NFS for modes and links, Android for all links. If the operation is really
 * forbidden, rename(), the last fallback, fails too. */
bool nymbl__fs_is_unsupported(int code);
/* fsync() that retries on EINTR. Returns 0; 1 if the file system does not
 * support it; or -1 with errno. */
int nymbl__fs_flush(int fd);
/* nymbl__fs_flush() for the entries of a directory. */
int nymbl__fs_flush_dir(int dir_fd);
/* fchmod(), ignored if the file system does not support it. Returns 0, or -1
 * with errno. */
int nymbl__fs_set_mode(int fd, unsigned mode);
/* Rename the open file `fd`. Without `overwrite` the function fails with EEXIST
 * if `to` exists. Returns 0, or -1 with errno. */
int nymbl__fs_rename(int fd, int dir_fd, const char *from, const char *to,
                     bool overwrite);
/* Whether a name refers to the open file `fd`. */
bool nymbl__fs_has_name(int fd, int dir_fd, const char *name);
/* Whether other machines may have mounted the file system: then flock(2) may
 * lock only on this machine. */
bool nymbl__fs_is_network(int dir_fd);

#endif
