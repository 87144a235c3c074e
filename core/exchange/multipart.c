/* SPDX-License-Identifier: MIT */
/* The body of an upload as multipart/form-data (RFC 7578), read by libcurl. */
#include "exchange/multipart.h"

#include "base/error.h"
#include "exchange/setopt.h"
#include "port/body.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* Whether the file has more bytes than at the start. */
static bool file_has_grown(const nymbl_body *body)
{
    char byte;

    return pread(body->fd, &byte, 1, (off_t)body->size) != 0;
}

static size_t path_read(nymbl__exchange *exchange, nymbl_body *body,
                        char *buffer, size_t size)
{
    int64_t remaining = body->size - body->bytes_read;
    const char *reason = nymbl__reason_changed;
    ssize_t got;

    if ((int64_t)size > remaining)
        size = (size_t)remaining;
    if (size == 0)
        return 0;
    do {
        got = pread(body->fd, buffer, size, (off_t)body->bytes_read);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        reason = nymbl_reason_from_errno(errno);
    if (got > 0) {
        /* The file is checked after its last byte was read and before libcurl
         * gets that byte. */
        if ((int64_t)got < remaining ||
            (!nymbl__snapshot_is_outdated(&body->snapshot) &&
             !file_has_grown(body)))
            return (size_t)got;
    }
    nymbl__exchange_fail(exchange, NYMBL_IO, reason);
    return CURL_READFUNC_ABORT;
}

static size_t stream_read(nymbl__exchange *exchange, nymbl_body *body,
                          char *buffer, size_t size)
{
    size_t got;

    nymbl__port_lock(exchange->port);
    if (size > nymbl__body_available(body))
        size = nymbl__body_available(body);
    got = nymbl__ring_take(&body->window, buffer, size);
    if (got == 0 && !body->finished) {
        exchange->port->send_paused = true;
        got = CURL_READFUNC_PAUSE;
    }
    body->eof_sent = got == 0;
    if (body->window.size <= body->window.max / 2)
        exchange->port->notify_pending = true;
    nymbl__port_unlock(exchange->port);
    return got;
}

/* The read callback of curl_mime_data_cb(), for the file. */
static size_t read_cb(char *buffer, size_t size, size_t count, void *payload)
{
    nymbl__exchange *exchange = payload;
    nymbl_body *body = exchange->port->body;
    size_t got;

    size *= count;
    switch (body->source) {
    case NYMBL__BODY_PATH:
        got = path_read(exchange, body, buffer, size);
        break;
    case NYMBL__BODY_BYTES:
        if ((int64_t)size > body->size - body->bytes_read)
            size = (size_t)(body->size - body->bytes_read);
        memcpy(buffer, body->data + body->bytes_read, size);
        got = size;
        break;
    default:
        got = stream_read(exchange, body, buffer, size);
        break;
    }
    if (got == CURL_READFUNC_ABORT || got == CURL_READFUNC_PAUSE)
        return got;
    body->bytes_read += (int64_t)got;
    nymbl__exchange_record_activity(exchange);
    return got;
}

/* The seek callback of curl_mime_data_cb(). libcurl rewinds the body before it
 * repeats a request on its own; prereq_cb() then refuses the repetition. */
static int seek_cb(void *payload, curl_off_t offset, int origin)
{
    nymbl__exchange *exchange = payload;
    nymbl_body *body = exchange->port->body;

    if (origin != SEEK_SET || offset != 0 ||
        (body->source == NYMBL__BODY_STREAM && body->bytes_read > 0))
        return CURL_SEEKFUNC_CANTSEEK;
    body->fully_sent = nymbl__body_all_read(body);
    body->rewound = nymbl__body_bytes_read(body);
    body->bytes_read = 0;
    return CURL_SEEKFUNC_OK;
}

static CURLcode text_part_add(curl_mime *mime, const char *name,
                              const char *value)
{
    curl_mimepart *part;
    CURLcode code;

    if (value == NULL)
        return CURLE_OK;
    part = curl_mime_addpart(mime);
    if (part == NULL)
        return CURLE_OUT_OF_MEMORY;
    code = curl_mime_name(part, name);
    if (code == CURLE_OK)
        code = curl_mime_data(part, value, CURL_ZERO_TERMINATED);
    return code;
}

nymbl_kind nymbl__multipart_apply(nymbl__exchange *exchange)
{
    const nymbl__form *form = &exchange->request.form;
    nymbl_body *body = exchange->port->body;
    CURL *easy = exchange->easy;
    CURLcode code = CURLE_OUT_OF_MEMORY;
    curl_mimepart *part;

    exchange->mime = curl_mime_init(easy);
    if (exchange->mime == NULL)
        return NYMBL_NO_MEMORY;
    part = curl_mime_addpart(exchange->mime);
    if (part == NULL)
        return NYMBL_NO_MEMORY;
    code = curl_mime_name(part, "file");
    if (code == CURLE_OK)
        code = curl_mime_filename(part, form->file_name);
    if (code == CURLE_OK)
        code = curl_mime_type(part, form->content_type);
    if (code == CURLE_OK)
        code = curl_mime_data_cb(part, (curl_off_t)body->size, read_cb, seek_cb,
                                 NULL, exchange);
    if (code == CURLE_OK)
        code =
            text_part_add(exchange->mime, "document_type", form->document_type);
    if (code == CURLE_OK)
        code = text_part_add(exchange->mime, "description", form->description);
    /* Escape quotes in a file name with a backslash, as in RFC 2045's
     * quoted-string. The alternative, %22, is ambiguous: a name may contain a
     * percent sign. */
    NYMBL__SETOPT(code, easy, CURLOPT_MIME_OPTIONS,
                  (long)CURLMIMEOPT_FORMESCAPE);
    NYMBL__SETOPT(code, easy, CURLOPT_MIMEPOST, exchange->mime);
    /* A large buffer saves a tenth of the time; an engine with a thread serves
     * many transfers and uses the default. */
    if (!body->mutex->threaded && (body->size < 0 || body->size > 65536))
        NYMBL__SETOPT(code, easy, CURLOPT_UPLOAD_BUFFERSIZE, 524288L);
    return code == CURLE_OK ? NYMBL_OK : NYMBL_NO_MEMORY;
}
