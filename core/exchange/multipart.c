/* SPDX-License-Identifier: MIT */
/* The body of an upload as multipart/form-data (RFC 7578), as libcurl reads it.
 */
#include "exchange/multipart.h"

#include "base/error.h"
#include "port/body.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* Whether the file has more bytes than it said it has, as those of size 0. */
static bool path_goes_on(const nymbl_body *body)
{
    char byte;

    return pread(body->fd, &byte, 1, (off_t)body->size) != 0;
}

static size_t path_read(nymbl__exchange *exchange, nymbl_body *body,
                        char *buffer, size_t size)
{
    int64_t left = body->size - body->bytes_read;
    const char *reason = "changed";
    ssize_t got;

    if ((int64_t)size > left)
        size = (size_t)left;
    if (size == 0)
        return 0;
    do {
        got = pread(body->fd, buffer, size, (off_t)body->bytes_read);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        reason = nymbl__errno_reason(errno);
    if (got > 0) {
        /* looked at once the last byte was read, before libcurl has it */
        if ((int64_t)got < left ||
            (!nymbl__watch_has_changed(&body->watch) && !path_goes_on(body)))
            return (size_t)got;
    }
    nymbl__exchange_fail(exchange, NYMBL_IO, reason);
    return CURL_READFUNC_ABORT;
}

static size_t pushed_read(nymbl__exchange *exchange, nymbl_body *body,
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
        exchange->notify_pending = true;
    nymbl__port_unlock(exchange->port);
    return got;
}

/* libcurl's read callback for the file part. */
static size_t body_read(char *buffer, size_t size, size_t count, void *payload)
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
        got = pushed_read(exchange, body, buffer, size);
        break;
    }
    if (got == CURL_READFUNC_ABORT || got == CURL_READFUNC_PAUSE)
        return got;
    body->bytes_read += (int64_t)got;
    nymbl__exchange_count_activity(exchange);
    return got;
}

/* libcurl rewinds before it would repeat a request; our guard then refuses. */
static int body_seek(void *payload, curl_off_t offset, int origin)
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

static CURLcode text_part(curl_mime *mime, const char *name, const char *value)
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
        code = curl_mime_data_cb(part, (curl_off_t)body->size, body_read,
                                 body_seek, NULL, exchange);
    if (code == CURLE_OK)
        code = text_part(exchange->mime, "document_type", form->document_type);
    if (code == CURLE_OK)
        code = text_part(exchange->mime, "description", form->description);
    /* Quotes in a file name as RFC 2045's quoted-string has them. Its other
     * form, %22, cannot be told from a name with a per cent sign. */
    if (code == CURLE_OK)
        code = curl_easy_setopt(easy, CURLOPT_MIME_OPTIONS,
                                (long)CURLMIMEOPT_FORMESCAPE);
    if (code == CURLE_OK)
        code = curl_easy_setopt(easy, CURLOPT_MIMEPOST, exchange->mime);
    /* the large one saves a tenth of the time; a server has many transfers */
    if (code == CURLE_OK && !body->mutex->threaded &&
        (body->size < 0 || body->size > 65536))
        code = curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, 524288L);
    return code == CURLE_OK ? NYMBL_OK : NYMBL_NO_MEMORY;
}
