/* SPDX-License-Identifier: MIT */
/* A ring buffer with a maximum size, which is wiped when it is freed. */
#ifndef NYMBL_BASE_RING_H
#define NYMBL_BASE_RING_H

#include "nymbl.h"

/* A ring buffer: the window between a producer and a consumer. */
typedef struct nymbl__ring {
    char *data;
    size_t start;
    size_t size;
    size_t capacity;
    size_t max;
} nymbl__ring;

void nymbl__ring_init(nymbl__ring *ring, size_t max);
size_t nymbl__ring_room(const nymbl__ring *ring);
/* Append all bytes. The caller has checked that there is room. Returns NYMBL_OK
 * or NYMBL_NO_MEMORY. */
nymbl_kind nymbl__ring_put(nymbl__ring *ring, const void *data, size_t size);
size_t nymbl__ring_peek(const nymbl__ring *ring, void *out, size_t cap);
/* Copy bytes without removing them, from an offset. */
size_t nymbl__ring_peek_at(const nymbl__ring *ring, size_t at, void *out,
                           size_t cap);
size_t nymbl__ring_take(nymbl__ring *ring, void *out, size_t cap);
void nymbl__ring_free(nymbl__ring *ring);

#endif
