/* SPDX-License-Identifier: MIT */
/* A file while it is written. */
#ifndef NYMBL_FILE_TEMPFILE_H
#define NYMBL_FILE_TEMPFILE_H

#include "nymbl.h"

#define NYMBL__TEMPFILE_NAME 32
#define NYMBL__DRAFT_PREFIX ".nymbl-tmp-"

/* A file that is written and has not got its name. */
typedef struct nymbl__tempfile {
    int fd;                          /* locked */
    char name[NYMBL__TEMPFILE_NAME]; /* that it has meanwhile, or "" */
} nymbl__tempfile;

/* Remove what killed processes have left in a directory, if this one has not
 * done so before. */
void nymbl__tempfiles_sweep(int directory);
/* Begin a file in a directory. */
nymbl_kind nymbl__tempfile_open(nymbl__tempfile *draft, int directory,
                                const char **reason);
/* Whether one could be begun. */
nymbl_kind nymbl__tempfile_try(int directory, const char **reason);
/* Give it its name. 0, or -1 with errno: then it is still to be dropped. */
int nymbl__tempfile_publish(nymbl__tempfile *draft, int directory,
                            const char *name, bool overwrite);
/* Remove and close it; one without a file is left alone. */
void nymbl__tempfile_discard(nymbl__tempfile *draft, int directory);

/* Remove a file that a process has left behind. Returns whether there is no
 * file of that name now. */
bool nymbl__leftover_remove(int directory, const char *name);

#endif
