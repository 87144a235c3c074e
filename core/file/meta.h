/* SPDX-License-Identifier: MIT */
/* Metadata files: which document a partial file belongs to, and how much of it
 * is on disk. */
#ifndef NYMBL_FILE_META_H
#define NYMBL_FILE_META_H

#include "nymbl.h"

/* The part of the metadata that changes: how much of a partial file is on disk.
 */
typedef struct nymbl__meta_state {
    int64_t length; /* bytes that were flushed */
    /* The boot id of the system that may have written further, unflushed bytes;
     * "" if all bytes were flushed. */
    char boot[NYMBL_BOOT_ID_SIZE];
    bool complete; /* the bytes are the whole document */
} nymbl__meta_state;

/* Read a metadata file. `resource` is a hash, as text, of what the partial file
 * was downloaded from. Returns false if the file is missing, damaged or for
 * another resource. */
bool nymbl__meta_read(int dir_fd, const char *name, const char *resource,
                      char *validator, nymbl__meta_state *state);
/* Create a metadata file. Returns false if it could not be written. */
bool nymbl__meta_create(int dir_fd, const char *name, const char *resource,
                        const char *validator);
/* Overwrite the recorded state within the file, so that a full disk cannot
 * destroy the file. Returns false on failure: then the partial file cannot be
 * resumed. */
bool nymbl__meta_update(int dir_fd, const char *name,
                        const nymbl__meta_state *state, bool flush);

#endif
