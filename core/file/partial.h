/* SPDX-License-Identifier: MIT */
/* Partial files: the bytes of an interrupted download, kept beside its target.
 */
#ifndef NYMBL_FILE_PARTIAL_H
#define NYMBL_FILE_PARTIAL_H

#include "base/validator.h"
#include "nymbl.h"

#define NYMBL__PARTIAL_SUFFIX ".nymbl-part"
#define NYMBL__META_SUFFIX ".nymbl-meta"

/* A partial file and its metadata file. */
typedef struct nymbl__partial {
    int fd;
    int dir_fd; /* borrowed */
    char *name;
    char *meta_name;     /* name of the metadata file */
    char resource[65];   /* nymbl__client_resource() */
    int64_t intact_size; /* bytes that are known to be intact, or 0 */
    int64_t offset;      /* offset at which the download continues */
    char validator[NYMBL__VALIDATOR_MAX]; /* "" if it cannot be resumed */
} nymbl__partial;

/* Open or create the partial file for a target. Returns NYMBL_DONE if none can
 * be kept here: the name is a symbolic link or another user's file, or another
 * process is writing it. */
nymbl_kind nymbl__partial_open(nymbl__partial *partial, int dir_fd,
                               const char *target, const char *resource);
/* Restart at the first byte, and record the validator if there is one. Without
 * a validator nothing is kept after an interruption. Returns false, with errno
 * set, if the old metadata cannot be removed or the file cannot be emptied. */
bool nymbl__partial_restart(nymbl__partial *partial, const char *validator);
/* Step back by one byte. A partial file may hold the complete document, and a
 * range request must ask for at least one byte. */
void nymbl__partial_step_back(nymbl__partial *partial);
/* Flush the file and record its length, so that it also survives a power
 * failure. `complete`: it holds the whole document. Returns false if it cannot
 * be resumed. */
bool nymbl__partial_keep(nymbl__partial *partial, int64_t length,
                         bool complete);
/* Rename the file to its target. Returns 0, or -1 with errno; on failure the
 * partial file remains. */
int nymbl__partial_publish(nymbl__partial *partial, const char *target,
                           bool overwrite);
/* Remove the partial file's name if it is a second hard link to the target's
 * file. A process that was killed between link() and unlink() leaves both
 * names. */
void nymbl__partial_unlink_duplicate(int dir_fd, const char *target);
/* Remove the partial file and its metadata. */
void nymbl__partial_remove(const nymbl__partial *partial);
/* Remove the partial file and metadata of a target, unless another process is
 * writing them. */
void nymbl__partial_remove_unused(int dir_fd, const char *target);
/* Close and release. The files on disk remain. */
void nymbl__partial_free(nymbl__partial *partial);

#endif
