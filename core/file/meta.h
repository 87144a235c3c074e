/* SPDX-License-Identifier: MIT */
/* Metadata files: which document a partial file belongs to, and how much of it
 * is on disk. */
#ifndef NYMBL_FILE_META_H
#define NYMBL_FILE_META_H

#include "nymbl.h"

/* How much of a partial file is on disk. */
typedef struct nymbl__partial_state {
    int64_t length;
    char boot[NYMBL_BOOT_ID_SIZE]; /* if unflushed bytes may follow, else "" */
    bool complete;
} nymbl__partial_state;

/* Read a metadata file. Returns false if it is missing, damaged or for another
 * resource. */
bool nymbl__meta_read(int dir_fd, const char *name, const char *resource,
                      char *validator, nymbl__partial_state *state);
/* Create a metadata file. Returns false if it could not be written. */
bool nymbl__meta_create(int dir_fd, const char *name, const char *resource,
                        const char *validator);
/* Overwrite the recorded state in place, so that a full disk cannot destroy the
 * file. Returns false on failure: then the partial file cannot be resumed. */
bool nymbl__meta_update(int dir_fd, const char *name,
                        const nymbl__partial_state *state, bool flush);

#endif
