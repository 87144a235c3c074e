/* SPDX-License-Identifier: MIT */
/* Memory with a maximum size, which is wiped when it is freed. */
#include "base/buffer.h"

#include <stdlib.h>
#include <string.h>

/* Called through a volatile pointer, so that no compiler removes it as a dead
 * store. */
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

/* Not realloc(), which would leave a copy of the old content behind. */
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
