/* SPDX-License-Identifier: MIT */
/* The body of an upload: a source of bytes that a caller creates and fills and
 * the pump empties. */
#include "port/body.h"

#include "base/object_count.h"
#include "base/secret.h"

#include <stdlib.h>
#include <unistd.h>

void nymbl__body_retain(nymbl_body *body)
{
    atomic_fetch_add(&body->references, 1);
}

void nymbl_body_free(nymbl_body *body)
{
    if (body == NULL || atomic_fetch_sub(&body->references, 1) > 1)
        return;
    if (body->mutex != NULL)
        nymbl__mutex_release(body->mutex);
    if (body->fd >= 0)
        close(body->fd);
    if (body->data != NULL)
        nymbl__secret_wipe(body->data, (size_t)body->size);
    free(body->data);
    nymbl__ring_free(&body->window);
    free(body);
    nymbl__object_count_add(-1);
}

void nymbl__body_lock(const nymbl_body *body)
{
    if (body->mutex != NULL)
        nymbl__mutex_lock(body->mutex);
}

void nymbl__body_unlock(const nymbl_body *body)
{
    if (body->mutex != NULL)
        nymbl__mutex_unlock(body->mutex);
}

void nymbl__body_detach(nymbl_body *body)
{
    nymbl__body_lock(body);
    body->transfer = NULL;
    body->port = NULL;
    body->detached = true;
    nymbl__body_unlock(body);
    nymbl_body_free(body);
}

bool nymbl__body_is_stream(const nymbl_body *body)
{
    return body->source == NYMBL__BODY_STREAM;
}

int64_t nymbl__body_bytes_read(const nymbl_body *body)
{
    int64_t bytes_read = body->bytes_read, rewound = body->rewound;

    return bytes_read > rewound ? bytes_read : rewound;
}

bool nymbl__body_all_read(const nymbl_body *body)
{
    bool all;

    if (body->source != NYMBL__BODY_STREAM)
        return body->fully_sent || body->bytes_read == body->size;
    nymbl__body_lock(body);
    /* A stream without a size ends with the last chunk, which follows the last
     * byte. A stream of size 0 has no byte that nymbl__body_available() could
     * keep back until the end. */
    all = body->size < 0
              ? body->eof_sent
              : (body->finished || body->size == 0) && body->window.size == 0;
    nymbl__body_unlock(body);
    return all;
}

/* The last byte of a stream with a stated size is kept back until the caller
 * has finished the stream, so that the upload can still be aborted. */
size_t nymbl__body_available(const nymbl_body *body)
{
    size_t available = body->window.size;

    if (!body->finished && body->size >= 0 && available > 0 &&
        body->bytes_read + (int64_t)available == body->size)
        available--;
    return available;
}

bool nymbl__body_can_resume(const nymbl_body *body)
{
    return body->source != NYMBL__BODY_STREAM || body->finished ||
           nymbl__body_available(body) > 0;
}
