/* SPDX-License-Identifier: MIT */
/* Bytes that never grow past a maximum, and secrets that are wiped. */
#ifndef NYMBL_BASE_BUFFER_H
#define NYMBL_BASE_BUFFER_H

#include "nymbl.h"

/* Bytes in memory that are wiped when freed, and never grow past `max`. */
typedef struct nymbl__buffer {
    char *data; /* NUL-terminated where not NULL */
    size_t size;
    size_t capacity;
    size_t max;
} nymbl__buffer;

void nymbl__buffer_init(nymbl__buffer *buffer, size_t max);
/* NYMBL_OK, NYMBL_TOO_LARGE past the maximum, NYMBL_NO_MEMORY. */
nymbl_kind nymbl__buffer_append(nymbl__buffer *buffer, const void *data,
                                size_t size);
nymbl_kind nymbl__buffer_puts(nymbl__buffer *buffer, const char *text);
void nymbl__buffer_free(nymbl__buffer *buffer);
/* Move the text out: yours to release with nymbl__secret_free(). */
char *nymbl__buffer_take(nymbl__buffer *buffer);

/* A queue of bytes with a maximum: the window between two speeds. */
typedef struct nymbl__ring {
    char *data;
    size_t start;
    size_t size;
    size_t capacity;
    size_t max;
} nymbl__ring;

void nymbl__ring_init(nymbl__ring *ring, size_t max);
size_t nymbl__ring_room(const nymbl__ring *ring);
/* Put all of it in: the caller has looked at the room. */
nymbl_kind nymbl__ring_put(nymbl__ring *ring, const void *data, size_t size);
size_t nymbl__ring_peek(const nymbl__ring *ring, void *out, size_t cap);
/* The same from a position on. */
size_t nymbl__ring_peek_at(const nymbl__ring *ring, size_t at, void *out,
                           size_t cap);
size_t nymbl__ring_take(nymbl__ring *ring, void *out, size_t cap);
void nymbl__ring_free(nymbl__ring *ring);

void nymbl__wipe(void *data, size_t size);
/* Duplicate text, NULL for NULL. */
nymbl_kind nymbl__text_copy(char **out, const char *text);
/* Wipe text and free it. NULL does nothing. */
void nymbl__secret_free(char *text);

#endif
