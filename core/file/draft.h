/* SPDX-License-Identifier: MIT */
/* A file while it is written. */
#ifndef NYMBL_FILE_DRAFT_H
#define NYMBL_FILE_DRAFT_H

#include "nymbl.h"

#define NYMBL__DRAFT_NAME 32
#define NYMBL__DRAFT_PREFIX ".nymbl-tmp-"

/* A file that is written and has not got its name. */
typedef struct nymbl__draft {
    int fd;                       /* locked */
    char name[NYMBL__DRAFT_NAME]; /* that it has meanwhile, or "" */
} nymbl__draft;

/* Remove what killed processes have left in a directory, if this one has not
 * done so before. */
void nymbl__drafts_sweep(int directory);
/* Begin a file in a directory. */
nymbl_kind nymbl__draft_open(nymbl__draft *draft, int directory,
                             const char **reason);
/* Whether one could be begun. */
nymbl_kind nymbl__draft_try(int directory, const char **reason);
/* Give it its name. 0, or -1 with errno: then it is still to be dropped. */
int nymbl__draft_publish(nymbl__draft *draft, int directory, const char *name,
                         bool overwrite);
/* Remove and close it; one without a file is left alone. */
void nymbl__draft_drop(nymbl__draft *draft, int directory);

/* Remove a file that a process has left behind. Returns whether there is no
 * file of that name now. */
bool nymbl__leftover_remove(int directory, const char *name);

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

#endif
