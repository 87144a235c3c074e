/* SPDX-License-Identifier: MIT */
/* Atomic files: a file appears under its name complete, or not at all. */
#ifndef NYMBL_FILE_SAVE_H
#define NYMBL_FILE_SAVE_H

#include "nymbl.h"

/* A file that is being written, and its target. */
typedef struct nymbl__save nymbl__save;

/* Open a file to write for a target path. `mode` 0 means 0600. `resource` (as
 * nymbl__client_resource() names it) keeps an interrupted download as a partial
 * file and resumes an existing one; NULL disables this. Fails with NYMBL_IO or
 * NYMBL_NO_MEMORY. */
nymbl_kind nymbl__save_open(nymbl__save **out, const char *path, unsigned mode,
                            bool overwrite, const char *resource,
                            nymbl_error *err);
/* Offset at which a partial file continues, or 0, and the validator to send
 * with the range request. */
int64_t nymbl__save_offset(const nymbl__save *save);
const char *nymbl__save_validator(const nymbl__save *save);
/* Step back by one byte: the partial file has the length of the document, and a
 * range request must ask for at least one byte. */
void nymbl__save_step_back(nymbl__save *save);
/* Copy the first bytes that were written so far. Returns how many. */
size_t nymbl__save_peek(const nymbl__save *save, void *buf, size_t cap);
/* Restart at the first byte. `validator` is the response's, or NULL if it is
 * not strong enough to resume with. */
nymbl_kind nymbl__save_restart(nymbl__save *save, const char *validator,
                               const char **reason);
nymbl_kind nymbl__save_write(nymbl__save *save, const void *data, size_t size,
                             const char **reason);
/* Flush the file, rename it to its target and release it. On failure the target
 * stays as it was; the file is released too. */
nymbl_kind nymbl__save_commit(nymbl__save *save, const char **reason);
/* Release. A partial file remains if it can be resumed. */
void nymbl__save_keep_partial(nymbl__save *save);
/* Remove what was written and release. NULL does nothing. */
void nymbl__save_discard(nymbl__save *save);

#endif
