/* SPDX-License-Identifier: MIT */
/* A ring buffer with a maximum size, which is wiped when it is freed. */
#include "base/ring.h"

#include "base/secret.h"

#include <stdlib.h>
#include <string.h>

void nymbl__ring_init(nymbl__ring *ring, size_t max)
{
    *ring = (nymbl__ring){.max = max};
}

size_t nymbl__ring_room(const nymbl__ring *ring)
{
    return ring->max - ring->size;
}

static nymbl_kind ring_grow(nymbl__ring *ring, size_t needed)
{
    size_t capacity = ring->capacity == 0 ? 16384 : ring->capacity;
    size_t size = ring->size;
    char *data;

    while (capacity < needed)
        capacity *= 2;
    if (capacity > ring->max)
        capacity = ring->max;
    data = malloc(capacity);
    if (data == NULL)
        return NYMBL_NO_MEMORY;
    nymbl__ring_peek(ring, data, size);
    if (ring->data != NULL)
        nymbl__secret_wipe(ring->data, ring->capacity);
    free(ring->data);
    ring->data = data;
    ring->capacity = capacity;
    ring->start = 0;
    return NYMBL_OK;
}

nymbl_kind nymbl__ring_put(nymbl__ring *ring, const void *data, size_t size)
{
    size_t at, first;

    if (ring->size + size > ring->capacity) {
        nymbl_kind kind = ring_grow(ring, ring->size + size);

        if (kind < 0)
            return kind;
    }
    if (size == 0)
        return NYMBL_OK;
    at = (ring->start + ring->size) % ring->capacity;
    first = ring->capacity - at;
    if (first > size)
        first = size;
    memcpy(ring->data + at, data, first);
    memcpy(ring->data, (const char *)data + first, size - first);
    ring->size += size;
    return NYMBL_OK;
}

size_t nymbl__ring_peek_at(const nymbl__ring *ring, size_t at, void *out,
                           size_t cap)
{
    size_t size = at < ring->size ? ring->size - at : 0;
    size_t start, first;

    if (size > cap)
        size = cap;
    if (size == 0)
        return 0;
    start = (ring->start + at) % ring->capacity;
    first = ring->capacity - start;
    if (first > size)
        first = size;
    memcpy(out, ring->data + start, first);
    memcpy((char *)out + first, ring->data, size - first);
    return size;
}

size_t nymbl__ring_peek(const nymbl__ring *ring, void *out, size_t cap)
{
    return nymbl__ring_peek_at(ring, 0, out, cap);
}

size_t nymbl__ring_take(nymbl__ring *ring, void *out, size_t cap)
{
    size_t size = nymbl__ring_peek(ring, out, cap);

    if (size > 0) {
        ring->start = (ring->start + size) % ring->capacity;
        ring->size -= size;
        if (ring->size == 0)
            ring->start = 0; /* so that later copies are contiguous */
    }
    return size;
}

void nymbl__ring_free(nymbl__ring *ring)
{
    if (ring->data != NULL) {
        nymbl__secret_wipe(ring->data, ring->capacity);
        free(ring->data);
    }
    nymbl__ring_init(ring, ring->max);
}
