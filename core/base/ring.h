/* SPDX-License-Identifier: MIT */
/* A ring buffer with a maximum size, which is wiped when it is freed. */
#ifndef NYMBL_BASE_RING_H
#define NYMBL_BASE_RING_H

#include "nymbl.h"

/* The bytes between a producer and a consumer. */
typedef struct nymbl__ring {
    char *data;
    size_t start; /* offset of the first byte */
    size_t size;
    size_t capacity;
    size_t max;
} nymbl__ring;

void nymbl__ring_init(nymbl__ring *ring, size_t max);
/* Number of bytes that can be appended. */
size_t nymbl__ring_room(const nymbl__ring *ring);
/* Append all bytes. The caller has checked that there is room. Returns NYMBL_OK
 * or NYMBL_NO_MEMORY. */
nymbl_kind nymbl__ring_put(nymbl__ring *ring, const void *data, size_t size);
/* Copy up to `cap` of the first bytes, without removing them. Returns how many.
 */
size_t nymbl__ring_peek(const nymbl__ring *ring, void *out, size_t cap);
/* Copy up to `cap` bytes from an offset, without removing them. */
size_t nymbl__ring_peek_at(const nymbl__ring *ring, size_t at, void *out,
                           size_t cap);
/* Copy up to `cap` of the first bytes and remove them. Returns how many. */
size_t nymbl__ring_take(nymbl__ring *ring, void *out, size_t cap);
void nymbl__ring_free(nymbl__ring *ring);

#endif
