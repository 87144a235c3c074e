/* SPDX-License-Identifier: MIT */
/* Temporary files: files that are being written and do not have their final
 * name yet. */
#ifndef NYMBL_FILE_TEMPFILE_H
#define NYMBL_FILE_TEMPFILE_H

#include "nymbl.h"

#define NYMBL__TEMPFILE_NAME_SIZE 32
#define NYMBL__TEMPFILE_PREFIX ".nymbl-tmp-"

/* A temporary file. */
typedef struct nymbl__tempfile {
    int fd;                               /* locked */
    char name[NYMBL__TEMPFILE_NAME_SIZE]; /* temporary, or "" */
} nymbl__tempfile;

/* Remove the temporary files that killed processes left in a directory. */
void nymbl__tempfile_sweep(int dir_fd);
/* The same, but each process does this once for each directory. */
void nymbl__tempfile_sweep_once(int dir_fd);
/* Create a temporary file in a directory. */
nymbl_kind nymbl__tempfile_open(nymbl__tempfile *tempfile, int dir_fd,
                                const char **reason);
/* Check that a temporary file can be created in a directory; it is removed
 * again. */
nymbl_kind nymbl__tempfile_check(int dir_fd, const char **reason);
/* Link or rename the file to its final name. Returns 0, or -1 with errno: then
 * the file must still be discarded. */
int nymbl__tempfile_publish(nymbl__tempfile *tempfile, int dir_fd,
                            const char *name, bool overwrite);
/* Remove and close the file. Does nothing if there is none. */
void nymbl__tempfile_discard(nymbl__tempfile *tempfile, int dir_fd);

#endif
