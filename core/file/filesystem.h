/* SPDX-License-Identifier: MIT */
/* Steps of every file that gets its name, on file systems that lack some. */
#ifndef NYMBL_FILE_FILESYSTEM_H
#define NYMBL_FILE_FILESYSTEM_H

#include <stdbool.h>

/* Whether an error says that a file system lacks a step. Some say so as if it
 * were forbidden: CIFS, drvfs, FUSE and NFS for modes and links; Android for
 * all links. If it really is forbidden, or nothing may be written at all,
 * rename(), the last resort, fails too. */
bool nymbl__is_lacking(int code);
/* fsync(), not to be interrupted. 0; 1 if the file system cannot do that; -1
 * with errno. */
int nymbl__file_flush(int fd);
/* The same for the names in a directory. */
int nymbl__directory_flush(int directory);
/* fchmod(), if the file system can do that. 0, or -1 with errno. */
int nymbl__file_set_mode(int fd, unsigned mode);
/* Rename the file that is open here; without `overwrite` it fails with EEXIST
 * where there is one. 0, or -1 with errno. */
int nymbl__file_rename(int fd, int directory, const char *from, const char *to,
                       bool overwrite);
/* Whether a name is that of the file that is open here. */
bool nymbl__fd_has_name(int fd, int directory, const char *name);
/* Whether another machine may write here whose locks are not seen: flock(2)
 * stays on the machine, by mount options or always. */
bool nymbl__fd_is_network(int directory);
/* A file of ours alone: no link to elsewhere, nobody else's, closed to others.
 * A folder may be shared; what somebody put there must not be spliced into a
 * document, nor written through. */
int nymbl__private_open(int directory, const char *name, int flags);

#endif
