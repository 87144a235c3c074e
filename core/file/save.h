/* SPDX-License-Identifier: MIT */
/* Atomic files: a file appears under its name complete, or not at all. */
#ifndef NYMBL_FILE_SAVE_H
#define NYMBL_FILE_SAVE_H

#include "nymbl.h"

/* A file that is being written, and its target. */
typedef struct nymbl__save nymbl__save;

/* Open a file to write for a target path. `mode` 0 means 0600. If `resource`
 * (see file/meta.h) is not NULL, an interrupted download is kept as a partial
 * file, and an existing partial file of the same resource is resumed. Fails
 * with NYMBL_IO or NYMBL_NO_MEMORY. */
nymbl_kind nymbl__save_open(nymbl__save **out, const char *path, unsigned mode,
                            bool overwrite, const char *resource,
                            nymbl_error *err);
/* The offset at which a partial file continues, or 0. */
int64_t nymbl__save_offset(const nymbl__save *save);
/* The validator of a partial file, to send with the range request; or "". */
const char *nymbl__save_validator(const nymbl__save *save);
/* Reduce the offset by one byte: the partial file has the length of the
 * document, and a range request must request at least one byte. */
void nymbl__save_step_back(nymbl__save *save);
/* Copy up to `cap` of the file's first bytes. Returns how many. */
size_t nymbl__save_peek(const nymbl__save *save, void *buf, size_t cap);
/* Restart at the first byte. `validator`: the response's strong validator, or
 * NULL if it has none, so that the file cannot be resumed. */
nymbl_kind nymbl__save_restart(nymbl__save *save, const char *validator,
                               const char **reason);
/* Append bytes to the file. */
nymbl_kind nymbl__save_write(nymbl__save *save, const void *data, size_t size,
                             const char **reason);
/* Flush the file, rename it to its target and release it. On failure the target
 * stays as it was; the file is released too. */
nymbl_kind nymbl__save_commit(nymbl__save *save, const char **reason);
/* Keep the file as a partial file if it can be resumed, else remove it; release
 * it. NULL does nothing. */
void nymbl__save_keep_partial(nymbl__save *save);
/* Remove the file and release it. NULL does nothing. */
void nymbl__save_discard(nymbl__save *save);

#endif
