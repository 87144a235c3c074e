/* SPDX-License-Identifier: MIT */
/* Notes: what is said of a part of a document, in a file beside it. */
#ifndef NYMBL_FILE_META_H
#define NYMBL_FILE_META_H

#include "nymbl.h"

/* What the note says of the disk. */
typedef struct nymbl__partial_state {
    int64_t length;
    char boot[NYMBL_BOOT_ID_SIZE]; /* "": there are no more bytes */
    bool whole;
} nymbl__partial_state;

/* The validator that the part of this resource was begun under, and what is
 * said of the disk. */
bool nymbl__meta_read(int directory, const char *name, const char *resource,
                      char *validator, nymbl__partial_state *claim);
/* Begin a note. False: there is none. */
bool nymbl__meta_create(int directory, const char *name, const char *resource,
                        const char *validator);
/* Change what the note says of the disk, in place: a full disk must not cost
 * it. False: nothing can be gone on from. */
bool nymbl__meta_update(int directory, const char *name,
                        const nymbl__partial_state *claim, bool flush);

#endif
