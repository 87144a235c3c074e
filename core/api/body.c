/* SPDX-License-Identifier: MIT */
/* Bodies of uploads: a file, bytes in memory, or a stream that the caller
 * writes. */
#include "api/body.h"

#include "base/error.h"
#include "base/fd.h"
#include "base/object_count.h"
#include "base/secret.h"
#include "engine/commands.h"
#include "engine/pump.h"
#include "port/body.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- creation ---- */

/* Size of the window of a stream. If its size is unknown, the window is larger,
 * so that the size of a short stream is determined before it is sent. */
#define SEND_WINDOW (128u << 10)
#define UNKNOWN_SIZE_WINDOW (1u << 20)

static nymbl_body *body_new(enum nymbl__body_source source, int64_t size,
                            nymbl_error *err)
{
    nymbl_body *body = calloc(1, sizeof(*body));

    if (body == NULL) {
        nymbl__error_set(err, NYMBL_NO_MEMORY, NULL);
        return NULL;
    }
    body->references = 1;
    body->source = source;
    body->size = size;
    body->fd = body->snapshot.fd = -1;
    body->max = INT64_MAX;
    nymbl__object_count_add(1);
    return body;
}

/* Read all of a file that reports a size of 0: it may have content anyway, as
 * the files of /proc and of some FUSE file systems do. Returns false with errno
 * on failure: EFBIG if the content exceeds the upload limit. */
static bool unsized_file_read(nymbl_body *body)
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
                nymbl__secret_wipe(body->data, capacity);
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

/* Turn the body into one of NYMBL__BODY_BYTES with the content of its file. */
static nymbl_kind unsized_file_load(nymbl_body *body, nymbl_error *err)
{
    if (!unsized_file_read(body)) {
        if (errno == EFBIG)
            return nymbl__error_set(err, NYMBL_TOO_LARGE, NULL);
        if (errno == ENOMEM)
            return nymbl__error_set(err, NYMBL_NO_MEMORY, NULL);
        return nymbl__error_set(err, NYMBL_IO, nymbl_reason_from_errno(errno));
    }
    body->source = NYMBL__BODY_BYTES;
    close(body->fd);
    body->fd = body->snapshot.fd = -1;
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
    fd = nymbl__fd_avoid_stdio(
        open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (fd < 0)
        return nymbl__error_set(err, NYMBL_IO, nymbl_reason_from_errno(errno));
    if (fstat(fd, &status) < 0) {
        nymbl__error_set(err, NYMBL_IO, nymbl_reason_from_errno(errno));
        close(fd);
        return NYMBL_IO;
    }
    if (!S_ISREG(status.st_mode)) {
        close(fd);
        return nymbl__error_set(err, NYMBL_IO,
                                S_ISDIR(status.st_mode)
                                    ? nymbl__reason_directory
                                    : nymbl__reason_not_a_file);
    }
    body = body_new(NYMBL__BODY_PATH, (int64_t)status.st_size, err);
    if (body == NULL) {
        close(fd);
        return NYMBL_NO_MEMORY;
    }
    body->fd = fd;
    body->is_file = true;
    nymbl__snapshot_take(&body->snapshot, fd);
    if (status.st_size == 0)
        kind = unsized_file_load(body, err);
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
    nymbl_body *body = body_new(NYMBL__BODY_BYTES, (int64_t)size, err);

    *out = NULL;
    if (body == NULL)
        return NYMBL_NO_MEMORY;
    body->data = malloc(size > 0 ? size : 1);
    if (body->data == NULL) {
        nymbl_body_free(body);
        return nymbl__error_set(err, NYMBL_NO_MEMORY, NULL);
    }
    if (size > 0)
        memcpy(body->data, data, size);
    *out = body;
    return NYMBL_OK;
}

nymbl_kind nymbl_body_stream(nymbl_body **out, int64_t size, nymbl_error *err)
{
    nymbl_body *body = body_new(NYMBL__BODY_STREAM, size < 0 ? -1 : size, err);

    *out = NULL;
    if (body == NULL)
        return NYMBL_NO_MEMORY;
    nymbl__ring_init(&body->window,
                     size < 0 ? UNKNOWN_SIZE_WINDOW : SEND_WINDOW);
    *out = body;
    return NYMBL_OK;
}

/* ---- streams ---- */

void nymbl_body_set_limit(nymbl_body *body, int64_t max)
{
    if (body->transfer == NULL && max >= 0)
        body->max = max;
}

int64_t nymbl_body_remaining(const nymbl_body *body)
{
    int64_t most = body->max;

    if (body->size >= 0 && body->size < most)
        most = body->size;
    if (most == INT64_MAX)
        return most;
    return most > body->written ? most - body->written : 0;
}

/* Fail the body and cancel the transfer that sends it. Its last block was not
 * sent yet, so the server has no complete request. */
static void body_fail(nymbl_body *body, nymbl_kind kind, const char *reason)
{
    nymbl_transfer *transfer;

    if (body->problem != NYMBL_OK)
        return;
    body->problem = kind;
    body->problem_reason = reason;
    nymbl__body_lock(body);
    transfer = body->transfer;
    if (transfer != NULL)
        transfer->references++;
    nymbl__body_unlock(body);
    if (transfer == NULL)
        return;
    nymbl_transfer_cancel(transfer, kind, reason);
    nymbl__transfer_release(transfer);
}

/* Under the lock: queue the resumption of a transfer that waits for bytes.
 * Returns it, with a reference for body_wake(), or NULL. */
static nymbl_transfer *body_resume(nymbl_body *body)
{
    nymbl_transfer *transfer = body->transfer;

    if (transfer == NULL || !body->port->send_paused)
        return NULL;
    nymbl__commands_add(transfer, NYMBL__COMMAND_UNPAUSE);
    transfer->references++;
    return transfer;
}

/* Without the lock: wake the pump for a resumed transfer. */
static void body_wake(nymbl_transfer *resumed)
{
    if (resumed == NULL)
        return;
    nymbl__pump_wake(resumed->engine);
    nymbl__transfer_release(resumed);
}

nymbl_kind nymbl_body_write(nymbl_body *body, const void *data, size_t size,
                            size_t *accepted)
{
    nymbl_kind kind = NYMBL_OK;
    nymbl_transfer *resumed = NULL;
    bool is_closed;
    size_t room;

    *accepted = 0;
    if (body->source != NYMBL__BODY_STREAM || body->finished)
        return NYMBL_MISUSE;
    nymbl__body_lock(body);
    is_closed = body->detached;
    nymbl__body_unlock(body);
    /* fork() may have copied the body while the parent's thread was changing it
     */
    if (body->mutex != NULL && body->mutex->threaded &&
        !nymbl__mutex_in_this_process(body->mutex))
        is_closed = true;
    if (body->problem != NYMBL_OK || is_closed)
        return NYMBL_DONE;
    if (body->size >= 0 && (int64_t)size > body->size - body->written) {
        body_fail(body, NYMBL_IO, nymbl__reason_size_mismatch);
        return NYMBL_DONE;
    }
    if ((int64_t)size > body->max - body->written) {
        body_fail(body, NYMBL_TOO_LARGE, NULL);
        return NYMBL_DONE;
    }
    nymbl__body_lock(body);
    room = nymbl__ring_room(&body->window);
    if (size > room) {
        size = room;
        kind = NYMBL_AGAIN;
        if (body->transfer != NULL)
            nymbl__port_rearm(body->port, kind);
    }
    if (nymbl__ring_put(&body->window, data, size) < 0) {
        kind = NYMBL_NO_MEMORY;
    } else {
        *accepted = size;
        resumed = body_resume(body);
    }
    nymbl__body_unlock(body);
    if (kind < 0) {
        body_fail(body, kind, NULL);
        return NYMBL_DONE;
    }
    body->written += (int64_t)size;
    body_wake(resumed);
    return kind;
}

void nymbl_body_set_source(nymbl_body *body, int fd)
{
    if (body->source == NYMBL__BODY_STREAM)
        nymbl__snapshot_take(&body->snapshot, fd);
}

size_t nymbl_body_room(const nymbl_body *body)
{
    size_t room;

    nymbl__body_lock(body);
    room = nymbl__ring_room(&body->window);
    nymbl__body_unlock(body);
    return room;
}

void nymbl_body_finish(nymbl_body *body)
{
    nymbl_transfer *resumed;

    if (body->source != NYMBL__BODY_STREAM || body->finished)
        return;
    if (body->size >= 0 && body->written != body->size) {
        body_fail(body, NYMBL_IO, nymbl__reason_size_mismatch);
        return;
    }
    if (nymbl__snapshot_is_outdated(&body->snapshot)) {
        body_fail(body, NYMBL_IO, nymbl__reason_changed);
        return;
    }
    nymbl__body_lock(body);
    body->finished = true;
    if (body->transfer == NULL)
        body->size = body->written;
    resumed = body_resume(body);
    nymbl__body_unlock(body);
    body_wake(resumed);
}

bool nymbl_body_is_ready(const nymbl_body *body)
{
    return body->source != NYMBL__BODY_STREAM || body->size >= 0 ||
           body->problem != NYMBL_OK || nymbl_body_room(body) == 0;
}

bool nymbl_body_can_rewind(const nymbl_body *body)
{
    return body->problem == NYMBL_OK &&
           (body->source != NYMBL__BODY_STREAM || body->bytes_read == 0);
}

int64_t nymbl_body_size(const nymbl_body *body)
{
    return body->size;
}

const struct stat *nymbl_body_status(const nymbl_body *body)
{
    return body->is_file ? &body->snapshot.status : NULL;
}

/* ---- sending ---- */

nymbl_kind nymbl__body_attach(nymbl_body *body, nymbl_transfer *transfer,
                              int64_t max, nymbl_error *err)
{
    bool is_attached;

    if (body->problem != NYMBL_OK)
        return nymbl__error_set(err, body->problem, body->problem_reason);
    nymbl__body_lock(body);
    is_attached = body->transfer != NULL;
    nymbl__body_unlock(body);
    if (is_attached || !nymbl_body_is_ready(body))
        return nymbl__error_set(err, NYMBL_MISUSE, "body");
    if (!nymbl_body_can_rewind(body))
        return nymbl__error_set(err, NYMBL_IO, nymbl__reason_cannot_rewind);
    if (body->size > max || body->written > max)
        return nymbl__error_set(err, NYMBL_TOO_LARGE, NULL);
    nymbl__body_retain(body);
    nymbl__mutex_retain(transfer->engine->mutex);
    if (body->mutex != NULL)
        nymbl__mutex_release(body->mutex);
    body->mutex = transfer->engine->mutex;
    body->max = max;
    body->detached = body->fully_sent = body->eof_sent = false;
    body->bytes_read = body->rewound = 0;
    body->port = &transfer->port;
    body->transfer = transfer;
    return NYMBL_OK;
}
