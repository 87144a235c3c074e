/* SPDX-License-Identifier: MIT */
/* Bounded memory: a text that grows, and a queue of bytes. */
#include "base/buffer.h"

#include <stdlib.h>
#include <string.h>

/* Through a volatile pointer, so that no compiler drops it as a dead store. */
static void *(*const volatile wipe)(void *, int, size_t) = memset;

void nymbl__wipe(void *data, size_t size)
{
    wipe(data, 0, size);
}

nymbl_kind nymbl__text_copy(char **out, const char *text)
{
    size_t size;

    *out = NULL;
    if (text == NULL)
        return NYMBL_OK;
    size = strlen(text) + 1;
    *out = malloc(size);
    if (*out == NULL)
        return NYMBL_NO_MEMORY;
    memcpy(*out, text, size);
    return NYMBL_OK;
}

void nymbl__secret_free(char *text)
{
    if (text == NULL)
        return;
    nymbl__wipe(text, strlen(text));
    free(text);
}

void nymbl__buffer_init(nymbl__buffer *buffer, size_t max)
{
    *buffer = (nymbl__buffer){.max = max};
}

/* Not realloc: it would leave a copy of what was there. */
static nymbl_kind buffer_grow(nymbl__buffer *buffer, size_t needed)
{
    size_t capacity = buffer->capacity == 0 ? 256 : buffer->capacity;
    char *data;

    while (capacity < needed)
        capacity *= 2;
    data = malloc(capacity);
    if (data == NULL)
        return NYMBL_NO_MEMORY;
    if (buffer->data != NULL) {
        memcpy(data, buffer->data, buffer->size);
        nymbl__wipe(buffer->data, buffer->size);
        free(buffer->data);
    }
    buffer->data = data;
    buffer->capacity = capacity;
    return NYMBL_OK;
}

nymbl_kind nymbl__buffer_append(nymbl__buffer *buffer, const void *data,
                                size_t size)
{
    if (size > buffer->max || buffer->size > buffer->max - size)
        return NYMBL_TOO_LARGE;
    if (buffer->size + size + 1 > buffer->capacity) {
        nymbl_kind kind = buffer_grow(buffer, buffer->size + size + 1);

        if (kind < 0)
            return kind;
    }
    if (size > 0)
        memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
    buffer->data[buffer->size] = '\0';
    return NYMBL_OK;
}

nymbl_kind nymbl__buffer_puts(nymbl__buffer *buffer, const char *text)
{
    return nymbl__buffer_append(buffer, text, strlen(text));
}

char *nymbl__buffer_take(nymbl__buffer *buffer)
{
    char *data = buffer->data;

    nymbl__buffer_init(buffer, buffer->max);
    return data;
}

void nymbl__buffer_free(nymbl__buffer *buffer)
{
    if (buffer->data != NULL) {
        nymbl__wipe(buffer->data, buffer->size);
        free(buffer->data);
    }
    nymbl__buffer_init(buffer, buffer->max);
}

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
        nymbl__wipe(ring->data, ring->capacity);
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
            ring->start = 0; /* keeps a slow reader's copies in one piece */
    }
    return size;
}

void nymbl__ring_free(nymbl__ring *ring)
{
    if (ring->data != NULL) {
        nymbl__wipe(ring->data, ring->capacity);
        free(ring->data);
    }
    nymbl__ring_init(ring, ring->max);
}
