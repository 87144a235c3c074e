/* SPDX-License-Identifier: MIT */
/* The media type of a document by its content. */
#include "nymbl.h"

#include "exchange/sniff.h"
#include "port/body.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* A result for the caller: NULL also for a ZIP file of unknown type. */
static const char *public_type(const char *type)
{
    return type == NULL || strcmp(type, NYMBL__ZIP) == 0 ? NULL : type;
}

/* The payload of bytes_peek(). */
struct bytes {
    const char *data;
    size_t size;
};

/* Read callback of the view: copy bytes from a position. */
static size_t bytes_peek(void *payload, int64_t at, void *buf, size_t cap)
{
    const struct bytes *bytes = payload;
    size_t left = bytes->size - (size_t)at;

    if (cap > left)
        cap = left;
    if (cap > 0) /* the data may be NULL otherwise */
        memcpy(buf, bytes->data + at, cap);
    return cap;
}

const char *nymbl_sniff(const void *data, size_t size)
{
    struct bytes bytes = {data, size};
    nymbl__view view = {.read = bytes_peek,
                        .payload = &bytes,
                        .size = (int64_t)size,
                        .complete = true};

    return public_type(nymbl__sniff_detect_type(&view));
}

/* Read callback of the view of a body. */
static size_t body_peek(void *payload, int64_t at, void *buf, size_t cap)
{
    nymbl_body *body = payload;
    size_t size = 0;

    switch (body->source) {
    case NYMBL__BODY_PATH:
        while (size < cap) {
            ssize_t got = pread(body->fd, (char *)buf + size, cap - size,
                                (off_t)(at + (int64_t)size));

            if (got < 0 && errno == EINTR)
                continue;
            if (got <= 0)
                break;
            size += (size_t)got;
        }
        return size;
    case NYMBL__BODY_BYTES:
        size =
            cap < (size_t)(body->size - at) ? cap : (size_t)(body->size - at);
        memcpy(buf, body->data + at, size);
        return size;
    default:
        return nymbl__ring_peek_at(&body->window, (size_t)at, buf, cap);
    }
}

/* The available part of a body. The caller has locked it if it is a stream. */
static nymbl__view body_view(nymbl_body *body)
{
    nymbl__view view = {.read = body_peek, .payload = body, .complete = true};

    if (body->source != NYMBL__BODY_STREAM) {
        view.size = body->size;
        return view;
    }
    /* a stream that is being sent no longer has its first bytes */
    view.size = body->bytes_read > 0 ? 0 : (int64_t)body->window.size;
    view.complete =
        body->bytes_read == 0 &&
        (body->finished || body->size == (int64_t)body->window.size);
    return view;
}

const char *nymbl_body_type(nymbl_body *body)
{
    nymbl__view view;
    const char *type;

    if (body->problem != NYMBL_OK)
        return NULL;
    if (body->source == NYMBL__BODY_STREAM)
        nymbl__body_lock(body);
    view = body_view(body);
    type = nymbl__sniff_detect_type(&view);
    if (body->source == NYMBL__BODY_STREAM)
        nymbl__body_unlock(body);
    return public_type(type);
}

bool nymbl_body_is_type(nymbl_body *body, const char *content_type)
{
    nymbl__view view;
    bool is;

    if (body->problem != NYMBL_OK) /* the upload will report the problem */
        return true;
    if (body->source == NYMBL__BODY_STREAM)
        nymbl__body_lock(body);
    view = body_view(body);
    is = nymbl__sniff_may_be_type(&view, content_type);
    if (body->source == NYMBL__BODY_STREAM)
        nymbl__body_unlock(body);
    return is;
}
