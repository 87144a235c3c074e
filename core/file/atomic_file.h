/* SPDX-License-Identifier: MIT */
/* Atomic files: a file appears under its name complete, or not at all. */
#ifndef NYMBL_FILE_ATOMIC_FILE_H
#define NYMBL_FILE_ATOMIC_FILE_H

#include "nymbl.h"

/* A file that is being written, and its target. */
typedef struct nymbl__atomic_file nymbl__atomic_file;

/* Open a file to write for a target path. `mode` 0 means 0600. If `resource`
 * (see file/meta.h) is not NULL, an interrupted download is kept as a partial
 * file, and an existing partial file of the same resource is resumed. Fails
 * with NYMBL_IO or NYMBL_NO_MEMORY. */
nymbl_kind nymbl__atomic_file_open(nymbl__atomic_file **out, const char *path,
                                   unsigned mode, bool overwrite,
                                   const char *resource, nymbl_error *err);
/* The same for a file name in an open directory (see
 * nymbl__target_resolve_at()). */
nymbl_kind nymbl__atomic_file_open_at(nymbl__atomic_file **out, int dir_fd,
                                      const char *name, unsigned mode,
                                      bool overwrite, const char *resource,
                                      nymbl_error *err);
/* The offset at which a partial file continues, or 0. */
int64_t nymbl__atomic_file_offset(const nymbl__atomic_file *file);
/* The validator of a partial file, to send with the range request; or "". */
const char *nymbl__atomic_file_validator(const nymbl__atomic_file *file);
/* Reduce the offset by one byte: the partial file has the length of the
 * document, and a range request must request at least one byte. */
void nymbl__atomic_file_step_back(nymbl__atomic_file *file);
/* Copy up to `cap` of the file's first bytes. Returns how many. */
size_t nymbl__atomic_file_peek(const nymbl__atomic_file *file, void *buf,
                               size_t cap);
/* Read up to `size` bytes at an offset that the file has. Returns NYMBL_OK and
 * how many it has read, at least one; or NYMBL_IO and a reason. */
nymbl_kind nymbl__atomic_file_read(const nymbl__atomic_file *file, int64_t at,
                                   void *buf, size_t size, size_t *got,
                                   const char **reason);
/* Restart at the first byte. `validator`: the response's strong validator, or
 * NULL if it has none, so that the file cannot be resumed. */
nymbl_kind nymbl__atomic_file_restart(nymbl__atomic_file *file,
                                      const char *validator,
                                      const char **reason);
/* Append bytes to the file. */
nymbl_kind nymbl__atomic_file_write(nymbl__atomic_file *file, const void *data,
                                    size_t size, const char **reason);
/* Flush the file, rename it to its target and release it. On failure the target
 * stays as it was; the file is released too. */
nymbl_kind nymbl__atomic_file_commit(nymbl__atomic_file *file,
                                     const char **reason);
/* Keep the file as a partial file if it can be resumed, else remove it; release
 * it. NULL does nothing. */
void nymbl__atomic_file_keep_partial(nymbl__atomic_file *file);
/* Remove the file and release it. NULL does nothing. */
void nymbl__atomic_file_discard(nymbl__atomic_file *file);

#endif
