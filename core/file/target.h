/* SPDX-License-Identifier: MIT */
/* Where a file is to be. */
#ifndef NYMBL_FILE_TARGET_H
#define NYMBL_FILE_TARGET_H

#include "nymbl.h"

/* Where a file is to be. */
typedef struct nymbl__target {
    int directory; /* -1: none */
    int from;      /* where `folder` begins, if it is relative; or -1 */
    char *folder;  /* path of `directory`, without links; NULL: `from` */
    char *name;    /* in it */
} nymbl__target;

/* Follow a path, links included, to a directory and a name in it that is free
 * or a file's. Refuses links that strangers have put into a directory such as
 * /tmp, descriptor paths, names of drafts and parts, and what is no place for a
 * file. */
nymbl_kind nymbl__target_resolve(nymbl__target *place, const char *path,
                                 bool overwrite, const char **reason);
/* Whether the directory is still where it was found. Where the process is now
 * does not matter. */
bool nymbl__target_is_unmoved(const nymbl__target *place, const char **reason);
void nymbl__target_free(nymbl__target *place);

#endif
