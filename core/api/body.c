/* SPDX-License-Identifier: MIT */
/* Bodies of uploads: a file, bytes or pushed pieces, as multipart/form-data. */
#include "api/body.h"

#include "api/calls.h"
#include "base/buffer.h"
#include "base/descriptor.h"
#include "base/error.h"
#include "engine/engine.h"
#include "engine/thread.h"
#include "exchange/exchange.h"
#include "exchange/sniff.h"
#include "file/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum body_source { BODY_PATH, BODY_BYTES, BODY_PUSHED };

/* The owner's until it is attached; then `window`, `finished`, `transfer` and
 * `was_sent` are used by both sides, under the lock of the engine. */
struct nymbl_body {
    atomic_int references;
    nymbl_engine *engine; /* of the last transfer; retained */
    enum body_source source;
    int64_t size; /* -1: not known (yet) */
    int fd;
    nymbl__watch watch; /* of the file that it is read from, if it is one */
    char *data;
    nymbl__ring window;
    int64_t pushed;
    bool finished;
    bool end_told;            /* to libcurl, where it knew no size */
    _Atomic int64_t released; /* bytes that libcurl has taken */
    _Atomic int64_t rewound;  /* the same, before it rewound the body */
    int64_t max;              /* bytes that may be pushed */
    nymbl_transfer *transfer; /* the one that sends it; not retained */
    bool was_sent;            /* a transfer has ended with it */
    bool was_whole;           /* all went out, then libcurl rewound it */
    nymbl_kind problem;       /* why it cannot be sent */
    const char *problem_reason;
};

/* ---- making ---- */

static nymbl_body *body_new(enum body_source source, int64_t size,
                            nymbl_error *err)
{
    nymbl_body *body = calloc(1, sizeof(*body));

    if (body == NULL) {
        nymbl__fail(err, NYMBL_NO_MEMORY, NULL);
        return NULL;
    }
    body->references = 1;
    body->source = source;
    body->size = size;
    body->fd = body->watch.fd = -1;
    body->max = INT64_MAX;
    nymbl__live(1);
    return body;
}

/* A file that says it is empty may not be: those of /proc have a size of 0, and
 * so have those of some FUSE file systems until they are read. All of it is
 * read now. False with errno set, or EFBIG past the limit. */
static bool unsized_read(nymbl_body *body)
{
    size_t capacity = 0;

    for (;;) {
        ssize_t got;

        if ((size_t)body->size == capacity) {
            size_t larger = capacity == 0 ? 4096 : capacity * 2;
            char *data;

            if (capacity > NYMBL_MAX_UPLOAD_BYTES) {
                errno = EFBIG;
                return false;
            }
            data = malloc(larger);
            if (data == NULL) {
                errno = ENOMEM;
                return false;
            }
            if (capacity > 0) {
                memcpy(data, body->data, capacity);
                nymbl__wipe(body->data, capacity);
            }
            free(body->data);
            body->data = data;
            capacity = larger;
        }
        got = pread(body->fd, body->data + body->size,
                    capacity - (size_t)body->size, (off_t)body->size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return false;
        if (got == 0)
            return true;
        body->size += got;
    }
}

static nymbl_kind unsized_take(nymbl_body *body, nymbl_error *err)
{
    if (!unsized_read(body)) {
        if (errno == EFBIG)
            return nymbl__fail(err, NYMBL_TOO_LARGE, NULL);
        if (errno == ENOMEM)
            return nymbl__fail(err, NYMBL_NO_MEMORY, NULL);
        return nymbl__fail(err, NYMBL_IO, nymbl__errno_reason(errno));
    }
    body->source = BODY_BYTES;
    close(body->fd);
    body->fd = body->watch.fd = -1;
    return NYMBL_OK;
}

nymbl_kind nymbl_body_from_path(nymbl_body **out, const char *path,
                                nymbl_error *err)
{
    struct stat status;
    nymbl_kind kind = NYMBL_OK;
    nymbl_body *body;
    int fd;

    *out = NULL;
    /* O_NONBLOCK: opening a FIFO must not wait for its writer */
    fd = nymbl__fd_high(
        open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (fd < 0)
        return nymbl__fail(err, NYMBL_IO, nymbl__errno_reason(errno));
    if (fstat(fd, &status) < 0) {
        nymbl__fail(err, NYMBL_IO, nymbl__errno_reason(errno));
        close(fd);
        return NYMBL_IO;
    }
    if (!S_ISREG(status.st_mode)) {
        close(fd);
        return nymbl__fail(err, NYMBL_IO,
                           S_ISDIR(status.st_mode) ? "directory"
                                                   : "not_a_file");
    }
    body = body_new(BODY_PATH, (int64_t)status.st_size, err);
    if (body == NULL) {
        close(fd);
        return NYMBL_NO_MEMORY;
    }
    body->fd = fd;
    nymbl__watch_begin(&body->watch, fd);
    if (status.st_size == 0)
        kind = unsized_take(body, err);
    if (kind < 0) {
        nymbl_body_free(body);
        return kind;
    }
    *out = body;
    return NYMBL_OK;
}

nymbl_kind nymbl_body_from_bytes(nymbl_body **out, const void *data,
                                 size_t size, nymbl_error *err)
{
    nymbl_body *body = body_new(BODY_BYTES, (int64_t)size, err);

    *out = NULL;
    if (body == NULL)
        return NYMBL_NO_MEMORY;
    body->data = malloc(size > 0 ? size : 1);
    if (body->data == NULL) {
        nymbl_body_free(body);
        return nymbl__fail(err, NYMBL_NO_MEMORY, NULL);
    }
    if (size > 0)
        memcpy(body->data, data, size);
    *out = body;
    return NYMBL_OK;
}

nymbl_kind nymbl_body_pushed(nymbl_body **out, int64_t size, nymbl_error *err)
{
    nymbl_body *body = body_new(BODY_PUSHED, size < 0 ? -1 : size, err);

    *out = NULL;
    if (body == NULL)
        return NYMBL_NO_MEMORY;
    nymbl__ring_init(&body->window,
                     size < 0 ? NYMBL__LEARN_MAX : NYMBL__SEND_WINDOW);
    *out = body;
    return NYMBL_OK;
}

void nymbl__body_retain(nymbl_body *body)
{
    atomic_fetch_add(&body->references, 1);
}

void nymbl_body_free(nymbl_body *body)
{
    if (body == NULL || atomic_fetch_sub(&body->references, 1) > 1)
        return;
    if (body->engine != NULL)
        nymbl__engine_release(body->engine);
    if (body->fd >= 0)
        close(body->fd);
    if (body->data != NULL)
        nymbl__wipe(body->data, (size_t)body->size);
    free(body->data);
    nymbl__ring_free(&body->window);
    free(body);
    nymbl__live(-1);
}

/* ---- pushing ---- */

void nymbl_body_limit(nymbl_body *body, int64_t max)
{
    if (body->transfer == NULL && max >= 0)
        body->max = max;
}

int64_t nymbl_body_left(const nymbl_body *body)
{
    int64_t most = body->max;

    if (body->size >= 0 && body->size < most)
        most = body->size;
    if (most == INT64_MAX)
        return most;
    return most > body->pushed ? most - body->pushed : 0;
}

static void body_lock(const nymbl_body *body)
{
    if (body->engine != NULL)
        nymbl__engine_lock(body->engine);
}

static void body_unlock(const nymbl_body *body)
{
    if (body->engine != NULL)
        nymbl__engine_unlock(body->engine);
}

/* It cannot be sent: the transfer ends before the last block is released, so
 * that no server takes what it has for a document. */
static void body_spoil(nymbl_body *body, nymbl_kind kind, const char *reason)
{
    nymbl_transfer *transfer;

    if (body->problem != NYMBL_OK)
        return;
    body->problem = kind;
    body->problem_reason = reason;
    body_lock(body);
    transfer = body->transfer;
    if (transfer != NULL)
        transfer->references++;
    body_unlock(body);
    if (transfer == NULL)
        return;
    nymbl_transfer_cancel(transfer, kind, reason);
    nymbl__transfer_release(transfer);
}

/* Under the lock: have a transfer go on that waits for bytes. */
static bool body_resume(nymbl_body *body)
{
    if (body->transfer == NULL || !body->transfer->send_paused)
        return false;
    nymbl__engine_queue(body->engine, body->transfer, NYMBL__UNPAUSE);
    return true;
}

nymbl_kind nymbl_body_write(nymbl_body *body, const void *data, size_t size,
                            size_t *taken)
{
    nymbl_kind kind = NYMBL_OK;
    bool resume = false, over;
    size_t room;

    *taken = 0;
    if (body->source != BODY_PUSHED || body->finished)
        return NYMBL_MISUSE;
    body_lock(body);
    over = body->was_sent;
    body_unlock(body);
    /* left behind by a fork, perhaps in the middle of a change */
    if (body->engine != NULL && body->engine->threaded &&
        !nymbl_engine_is_own(body->engine))
        over = true;
    if (body->problem != NYMBL_OK || over)
        return NYMBL_DONE;
    if (body->size >= 0 && (int64_t)size > body->size - body->pushed) {
        body_spoil(body, NYMBL_IO, "size_mismatch");
        return NYMBL_DONE;
    }
    if ((int64_t)size > body->max - body->pushed) {
        body_spoil(body, NYMBL_TOO_LARGE, NULL);
        return NYMBL_DONE;
    }
    body_lock(body);
    room = nymbl__ring_room(&body->window);
    if (size > room) {
        size = room;
        kind = NYMBL_WAIT;
        if (body->transfer != NULL)
            body->transfer->signaled = false;
    }
    if (nymbl__ring_put(&body->window, data, size) < 0) {
        kind = NYMBL_NO_MEMORY;
    } else {
        *taken = size;
        resume = body_resume(body);
    }
    body_unlock(body);
    if (kind < 0) {
        body_spoil(body, kind, NULL);
        return NYMBL_DONE;
    }
    body->pushed += (int64_t)size;
    if (resume)
        nymbl__engine_wake(body->engine);
    return kind;
}

void nymbl_body_watch(nymbl_body *body, int fd)
{
    if (body->source == BODY_PUSHED)
        nymbl__watch_begin(&body->watch, fd);
}

size_t nymbl_body_room(const nymbl_body *body)
{
    size_t room;

    body_lock(body);
    room = nymbl__ring_room(&body->window);
    body_unlock(body);
    return room;
}

void nymbl_body_finish(nymbl_body *body)
{
    bool resume;

    if (body->source != BODY_PUSHED || body->finished)
        return;
    if (body->size >= 0 && body->pushed != body->size) {
        body_spoil(body, NYMBL_IO, "size_mismatch");
        return;
    }
    if (nymbl__watch_has_changed(&body->watch)) {
        body_spoil(body, NYMBL_IO, "changed");
        return;
    }
    body_lock(body);
    body->finished = true;
    if (body->transfer == NULL)
        body->size = body->pushed;
    resume = body_resume(body);
    body_unlock(body);
    if (resume)
        nymbl__engine_wake(body->engine);
}

bool nymbl_body_is_ready(const nymbl_body *body)
{
    return body->source != BODY_PUSHED || body->size >= 0 ||
           body->problem != NYMBL_OK || nymbl_body_room(body) == 0;
}

bool nymbl_body_can_rewind(const nymbl_body *body)
{
    return body->problem == NYMBL_OK &&
           (body->source != BODY_PUSHED || body->released == 0);
}

/* Bytes of the body, by position, for a view of it. */
static size_t body_look(void *payload, int64_t at, void *buf, size_t cap)
{
    nymbl_body *body = payload;
    size_t size = 0;

    switch (body->source) {
    case BODY_PATH:
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
    case BODY_BYTES:
        size =
            cap < (size_t)(body->size - at) ? cap : (size_t)(body->size - at);
        memcpy(buf, body->data + at, size);
        return size;
    default:
        return nymbl__ring_peek_at(&body->window, (size_t)at, buf, cap);
    }
}

/* What can be seen of the body; under the lock, if it is a pushed one. */
static nymbl__view body_view(nymbl_body *body)
{
    nymbl__view view = {.read = body_look, .payload = body, .whole = true};

    if (body->source != BODY_PUSHED) {
        view.size = body->size;
        return view;
    }
    /* of a body that is being sent the beginning has gone */
    view.size = body->released > 0 ? 0 : (int64_t)body->window.size;
    view.whole = body->released == 0 &&
                 (body->finished || body->size == (int64_t)body->window.size);
    return view;
}

const char *nymbl_body_type(nymbl_body *body)
{
    nymbl__view view;
    const char *type;

    if (body->problem != NYMBL_OK)
        return NULL;
    if (body->source == BODY_PUSHED)
        body_lock(body);
    view = body_view(body);
    type = nymbl__sniff_view(&view);
    if (body->source == BODY_PUSHED)
        body_unlock(body);
    return type == NULL || strcmp(type, NYMBL__ZIP) == 0 ? NULL : type;
}

bool nymbl_body_is_type(nymbl_body *body, const char *content_type)
{
    nymbl__view view;
    bool is;

    if (body->problem != NYMBL_OK) /* which says more */
        return true;
    if (body->source == BODY_PUSHED)
        body_lock(body);
    view = body_view(body);
    is = nymbl__sniff_is_type(&view, content_type);
    if (body->source == BODY_PUSHED)
        body_unlock(body);
    return is;
}

int64_t nymbl_body_size(const nymbl_body *body)
{
    return body->size;
}

/* ---- sending ---- */

nymbl_kind nymbl__body_attach(nymbl_body *body, nymbl_transfer *transfer,
                              int64_t max, nymbl_error *err)
{
    bool taken;

    if (body->problem != NYMBL_OK)
        return nymbl__fail(err, body->problem, body->problem_reason);
    body_lock(body);
    taken = body->transfer != NULL;
    body_unlock(body);
    if (taken || !nymbl_body_is_ready(body))
        return nymbl__fail(err, NYMBL_MISUSE, "body");
    if (!nymbl_body_can_rewind(body))
        return nymbl__fail(err, NYMBL_IO, "cannot_rewind");
    if (body->size > max || body->pushed > max)
        return nymbl__fail(err, NYMBL_TOO_LARGE, NULL);
    nymbl__body_retain(body);
    nymbl__engine_retain(transfer->engine);
    if (body->engine != NULL)
        nymbl__engine_release(body->engine);
    body->engine = transfer->engine;
    body->max = max;
    body->was_sent = body->was_whole = body->end_told = false;
    body->released = body->rewound = 0;
    body->transfer = transfer;
    return NYMBL_OK;
}

void nymbl__body_detach(nymbl_body *body)
{
    body_lock(body);
    body->transfer = NULL;
    body->was_sent = true;
    body_unlock(body);
    nymbl_body_free(body);
}

bool nymbl__body_is_pushed(const nymbl_body *body)
{
    return body->source == BODY_PUSHED;
}

int64_t nymbl__body_released(const nymbl_body *body)
{
    int64_t released = body->released, rewound = body->rewound;

    return released > rewound ? released : rewound;
}

bool nymbl__body_all_released(const nymbl_body *body)
{
    bool all;

    if (body->source != BODY_PUSHED)
        return body->was_whole || body->released == body->size;
    body_lock(body);
    /* without a size the last chunk goes out after the last byte; of no bytes
     * nothing could be kept back until the end is told */
    all = body->size < 0
              ? body->end_told
              : (body->finished || body->size == 0) && body->window.size == 0;
    body_unlock(body);
    return all;
}

/* Bytes that may go out now. Of a stated size the last one is kept back until
 * the source has said that nothing follows it. */
static size_t pushed_available(const nymbl_body *body)
{
    size_t available = body->window.size;

    if (!body->finished && body->size >= 0 && available > 0 &&
        body->released + (int64_t)available == body->size)
        available--;
    return available;
}

bool nymbl__body_can_go_on(const nymbl_body *body)
{
    return body->source != BODY_PUSHED || body->finished ||
           pushed_available(body) > 0;
}

/* Whether the file has more bytes than it said it has, as those of size 0. */
static bool path_goes_on(const nymbl_body *body)
{
    char byte;

    return pread(body->fd, &byte, 1, (off_t)body->size) != 0;
}

static size_t path_read(nymbl_body *body, char *buffer, size_t size)
{
    int64_t left = body->size - body->released;
    const char *reason = "changed";
    ssize_t got;

    if ((int64_t)size > left)
        size = (size_t)left;
    if (size == 0)
        return 0;
    do {
        got = pread(body->fd, buffer, size, (off_t)body->released);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        reason = nymbl__errno_reason(errno);
    if (got > 0) {
        /* looked at once the last byte was read, before libcurl has it */
        if ((int64_t)got < left ||
            (!nymbl__watch_has_changed(&body->watch) && !path_goes_on(body)))
            return (size_t)got;
    }
    nymbl__transfer_failing(body->transfer, NYMBL_IO, reason);
    return CURL_READFUNC_ABORT;
}

static size_t pushed_read(nymbl_body *body, char *buffer, size_t size)
{
    nymbl_transfer *transfer = body->transfer;
    size_t got;

    nymbl__engine_lock(transfer->engine);
    if (size > pushed_available(body))
        size = pushed_available(body);
    got = nymbl__ring_take(&body->window, buffer, size);
    if (got == 0 && !body->finished) {
        transfer->send_paused = true;
        got = CURL_READFUNC_PAUSE;
    }
    body->end_told = got == 0;
    if (body->window.size <= body->window.max / 2)
        transfer->dirty = true;
    nymbl__engine_unlock(transfer->engine);
    return got;
}

/* libcurl's read callback for the file part. */
static size_t body_read(char *buffer, size_t size, size_t count, void *payload)
{
    nymbl_body *body = payload;
    size_t got;

    size *= count;
    switch (body->source) {
    case BODY_PATH:
        got = path_read(body, buffer, size);
        break;
    case BODY_BYTES:
        if ((int64_t)size > body->size - body->released)
            size = (size_t)(body->size - body->released);
        memcpy(buffer, body->data + body->released, size);
        got = size;
        break;
    default:
        got = pushed_read(body, buffer, size);
        break;
    }
    if (got == CURL_READFUNC_ABORT || got == CURL_READFUNC_PAUSE)
        return got;
    body->released += (int64_t)got;
    nymbl__transfer_moved(body->transfer);
    return got;
}

/* libcurl rewinds before it would repeat a request; our guard then refuses. */
static int body_seek(void *payload, curl_off_t offset, int origin)
{
    nymbl_body *body = payload;

    if (origin != SEEK_SET || offset != 0 ||
        (body->source == BODY_PUSHED && body->released > 0))
        return CURL_SEEKFUNC_CANTSEEK;
    body->was_whole = nymbl__body_all_released(body);
    body->rewound = nymbl__body_released(body);
    body->released = 0;
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

nymbl_kind nymbl__body_apply(nymbl_body *body, const nymbl__form *form,
                             CURL *easy, curl_mime **mime)
{
    CURLcode code = CURLE_OUT_OF_MEMORY;
    curl_mimepart *part;

    *mime = curl_mime_init(easy);
    if (*mime == NULL)
        return NYMBL_NO_MEMORY;
    part = curl_mime_addpart(*mime);
    if (part == NULL)
        return NYMBL_NO_MEMORY;
    code = curl_mime_name(part, "file");
    if (code == CURLE_OK)
        code = curl_mime_filename(part, form->file_name);
    if (code == CURLE_OK)
        code = curl_mime_type(part, form->content_type);
    if (code == CURLE_OK)
        code = curl_mime_data_cb(part, (curl_off_t)body->size, body_read,
                                 body_seek, NULL, body);
    if (code == CURLE_OK)
        code = text_part(*mime, "document_type", form->document_type);
    if (code == CURLE_OK)
        code = text_part(*mime, "description", form->description);
    /* Quotes in a file name as RFC 2045's quoted-string has them. Its other
     * form, %22, cannot be told from a name with a per cent sign. */
    if (code == CURLE_OK)
        code = curl_easy_setopt(easy, CURLOPT_MIME_OPTIONS,
                                (long)CURLMIMEOPT_FORMESCAPE);
    if (code == CURLE_OK)
        code = curl_easy_setopt(easy, CURLOPT_MIMEPOST, *mime);
    /* the large one saves a tenth of the time; a server has many transfers */
    if (code == CURLE_OK && !body->engine->threaded &&
        (body->size < 0 || body->size > 65536))
        code = curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, 524288L);
    return code == CURLE_OK ? NYMBL_OK : NYMBL_NO_MEMORY;
}
