/* SPDX-License-Identifier: MIT */
/* Memory with a maximum size, which is wiped when it is freed. */
#ifndef NYMBL_BASE_BUFFER_H
#define NYMBL_BASE_BUFFER_H

#include "nymbl.h"

/* A growing array of bytes. */
typedef struct nymbl__buffer {
    char *data; /* NUL-terminated, or NULL */
    size_t size;
    size_t capacity;
    size_t max;
} nymbl__buffer;

void nymbl__buffer_init(nymbl__buffer *buffer, size_t max);
/* Append bytes. Returns NYMBL_OK, NYMBL_TOO_LARGE beyond the maximum, or
 * NYMBL_NO_MEMORY. */
nymbl_kind nymbl__buffer_append(nymbl__buffer *buffer, const void *data,
                                size_t size);
/* Allocate the memory for a size, or for the maximum, at once. If that is not
 * possible, nothing changes. */
void nymbl__buffer_reserve(nymbl__buffer *buffer, size_t size);
nymbl_kind nymbl__buffer_puts(nymbl__buffer *buffer, const char *text);
void nymbl__buffer_free(nymbl__buffer *buffer);
/* Move the text out of the buffer. It is yours to release with
 * nymbl__secret_free(). */
char *nymbl__buffer_take(nymbl__buffer *buffer);

#endif
