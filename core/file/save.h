/* SPDX-License-Identifier: MIT */
/* A file that appears under its name as a whole or not at all. */
#ifndef NYMBL_FILE_SAVE_H
#define NYMBL_FILE_SAVE_H

#include "nymbl.h"

/* A file that appears as a whole or not at all. */
typedef struct nymbl__save nymbl__save;

/* `resource`: keep a part of this, as nymbl__client_resource() names it; NULL:
 * keep none. */
nymbl_kind nymbl__save_open(nymbl__save **out, const char *path, unsigned mode,
                            bool overwrite, const char *resource,
                            nymbl_error *err);
/* Bytes of a part that are there, and the validator to ask for the rest under.
 */
int64_t nymbl__save_offset(const nymbl__save *save);
const char *nymbl__save_validator(const nymbl__save *save);
/* The part is as long as the document: have its last byte asked for again. */
void nymbl__save_step_back(nymbl__save *save);
/* Copy the first bytes of a part; gives how many. */
size_t nymbl__save_peek(const nymbl__save *save, void *buf, size_t cap);
/* The document comes from its first byte, under a validator or NULL. */
nymbl_kind nymbl__save_restart(nymbl__save *save, const char *validator,
                               const char **reason);
nymbl_kind nymbl__save_write(nymbl__save *save, const void *data, size_t size,
                             const char **reason);
/* Flush, name, release. */
nymbl_kind nymbl__save_commit(nymbl__save *save, const char **reason);
/* Release; what was written stays where it can be gone on from. */
void nymbl__save_keep_partial(nymbl__save *save);
/* Remove what was written, release. NULL does nothing. */
void nymbl__save_discard(nymbl__save *save);

#endif
