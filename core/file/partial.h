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
    char resource[65];   /* a hash, as text, of account, patient and document */
    int64_t intact_size; /* bytes that are known to be intact, or 0 */
    int64_t offset;      /* offset at which the download continues */
    char validator[NYMBL__VALIDATOR_MAX]; /* "" if it cannot be resumed */
} nymbl__partial;

/* Open or create the partial file for a target. Returns NYMBL_DONE if no
 * partial file can be used here: its name is a symbolic link or another user's
 * file, or another process is writing it. */
nymbl_kind nymbl__partial_open(nymbl__partial *partial, int dir_fd,
                               const char *target, const char *resource);
/* Restart at the first byte and record the validator. If it is NULL, the file
 * is not kept after an interruption. Returns false, with errno set, if the old
 * metadata cannot be removed or the file cannot be truncated. */
bool nymbl__partial_restart(nymbl__partial *partial, const char *validator);
/* Reduce the offset by one byte: the file may be the whole document, and a
 * range request must request at least one byte. */
void nymbl__partial_step_back(nymbl__partial *partial);
/* Flush the file and record its length, so that it survives a power failure
 * too. `complete`: it is the whole document. Returns false if it cannot be
 * resumed. */
bool nymbl__partial_keep(nymbl__partial *partial, int64_t length,
                         bool complete);
/* Rename the file to its target. Returns 0, or -1 with errno; on failure the
 * partial file remains. */
int nymbl__partial_publish(nymbl__partial *partial, const char *target,
                           bool overwrite);
/* Remove the partial file's name if it is a second hard link to the target,
 * left by a process that was killed between link() and unlink(). */
void nymbl__partial_unlink_duplicate(int dir_fd, const char *target);
/* Remove the partial file and its metadata. */
void nymbl__partial_remove(const nymbl__partial *partial);
/* Remove the partial file and the metadata of a target, unless another process
 * has locked the partial file. */
void nymbl__partial_remove_unused(int dir_fd, const char *target);
/* Close and release. The files on disk remain. */
void nymbl__partial_free(nymbl__partial *partial);

#endif
