/* SPDX-License-Identifier: MIT */
/* Memory with a maximum size, which is wiped when it is freed. */
#include "base/buffer.h"

#include "base/secret.h"

#include <stdlib.h>
#include <string.h>

void nymbl__buffer_init(nymbl__buffer *buffer, size_t max)
{
    *buffer = (nymbl__buffer){.max = max};
}

/* Not realloc(), which would leave a copy of the old content behind. */
static nymbl_kind buffer_grow(nymbl__buffer *buffer, size_t needed)
{
    size_t capacity = buffer->capacity == 0 ? 256 : 2 * buffer->capacity;
    char *data;

    if (capacity < needed)
        capacity = needed;
    data = malloc(capacity);
    if (data == NULL)
        return NYMBL_NO_MEMORY;
    if (buffer->data != NULL) {
        memcpy(data, buffer->data, buffer->size);
        nymbl__secret_wipe(buffer->data, buffer->size);
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

void nymbl__buffer_reserve(nymbl__buffer *buffer, size_t size)
{
    if (size > buffer->max)
        size = buffer->max;
    if (size + 1 > buffer->capacity)
        (void)buffer_grow(buffer, size + 1);
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
        nymbl__secret_wipe(buffer->data, buffer->size);
        free(buffer->data);
    }
    nymbl__buffer_init(buffer, buffer->max);
}
