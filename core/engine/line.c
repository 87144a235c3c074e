/* SPDX-License-Identifier: MIT */
/* A line: its lifetime, and the requests that it has not answered. */
#include "engine/line.h"

#include "base/object_count.h"
#include "base/secret.h"

#include <stdlib.h>
#include <string.h>

/* ---- lifetime ---- */

nymbl_line *nymbl__line_new(nymbl_engine *engine)
{
    nymbl_line *line = calloc(1, sizeof(*line));

    if (line == NULL)
        return NULL;
    line->received = malloc(NYMBL_REPLY_MAX);
    if (line->received == NULL) {
        free(line);
        return NULL;
    }
    line->references = 1;
    line->engine = engine;
    nymbl__engine_retain(engine);
    nymbl__buffer_init(&line->greeting, NYMBL_LINE_MAX_BYTES);
    nymbl__object_count_add(1);
    return line;
}

void nymbl__line_retain(nymbl_line *line)
{
    atomic_fetch_add(&line->references, 1);
}

void nymbl__line_release(nymbl_line *line)
{
    if (atomic_fetch_sub(&line->references, 1) > 1)
        return;
    nymbl__buffer_free(&line->greeting);
    nymbl__secret_wipe(line->received, NYMBL_REPLY_MAX);
    free(line->received);
    nymbl__raw_connection_free(&line->connection);
    nymbl__engine_release(line->engine);
    free(line);
    nymbl__object_count_add(-1);
}

nymbl__line_request *nymbl__line_request_new(const void *bytes, size_t size)
{
    nymbl__line_request *request = malloc(sizeof(*request) + size);

    if (request == NULL)
        return NULL;
    *request = (nymbl__line_request){.size = size};
    memcpy(request->bytes, bytes, size);
    return request;
}

void nymbl__line_request_free(nymbl__line_request *request)
{
    if (request == NULL)
        return;
    nymbl__secret_wipe(request->bytes, request->size);
    free(request);
}

/* ---- requests ---- */

bool nymbl__line_is_usable(const nymbl_line *line, double now)
{
    /* Without an I/O thread, the pump may not have noticed that the line was
     * idle for too long. */
    return !line->ended && !line->closing &&
           (line->awaited > 0 || now - line->active_at < line->idle_timeout);
}

bool nymbl__line_add(nymbl_line *line, nymbl__line_request *request, double now)
{
    if (line->count == NYMBL_LINE_MAX_REQUESTS ||
        request->size > NYMBL_LINE_MAX_BYTES - line->bytes)
        return false;
    if (line->last != NULL)
        line->last->next = request;
    else
        line->first = request;
    line->last = request;
    if (line->unsent == NULL)
        line->unsent = request;
    line->count++;
    line->awaited += request->transfer != NULL;
    line->bytes += request->size;
    line->active_at = now;
    return true;
}

nymbl__line_request *nymbl__line_begin_send(nymbl_line *line)
{
    nymbl__line_request *request;

    nymbl__engine_lock(line->engine);
    request = line->unsent;
    if (request != NULL && !request->sent) {
        nymbl_transfer *transfer = request->transfer;

        if (transfer != NULL &&
            (transfer->port.commands & NYMBL__COMMAND_CANCEL) != 0)
            request = NULL; /* the next pass removes it */
        else
            request->sent = true;
        if (request != NULL && transfer != NULL)
            transfer->port.sent = true;
    }
    nymbl__engine_unlock(line->engine);
    return request;
}

void nymbl__line_end_send(nymbl_line *line)
{
    nymbl__engine_lock(line->engine);
    line->unsent = line->unsent->next;
    nymbl__engine_unlock(line->engine);
}

/* Remove a request from the list, under the lock; `previous` is the one before
 * it. */
static void request_remove(nymbl_line *line, nymbl__line_request *previous,
                           nymbl__line_request *request)
{
    if (previous != NULL)
        previous->next = request->next;
    else
        line->first = request->next;
    if (line->last == request)
        line->last = previous;
    if (line->unsent == request)
        line->unsent = request->next;
    line->count--;
    line->awaited -= request->transfer != NULL;
    line->bytes -= request->size;
}

bool nymbl__line_take_answered(nymbl_line *line, nymbl_transfer **out)
{
    double now = nymbl_engine_now(line->engine);
    nymbl__line_request *request;

    nymbl__engine_lock(line->engine);
    request = line->first != line->unsent ? line->first : NULL;
    if (request != NULL) {
        *out = request->transfer;
        request_remove(line, NULL, request);
        line->active_at = now;
    }
    nymbl__engine_unlock(line->engine);
    nymbl__line_request_free(request);
    return request != NULL;
}

nymbl_transfer *nymbl__line_drop(nymbl_line *line,
                                 const nymbl_transfer *transfer)
{
    nymbl__line_request *previous = NULL, *request;
    nymbl_transfer *found = NULL;

    nymbl__engine_lock(line->engine);
    request = line->first;
    while (request != NULL && (transfer != NULL ? request->transfer != transfer
                                                : request->transfer == NULL)) {
        previous = request;
        request = request->next;
    }
    if (request != NULL)
        found = request->transfer;
    if (request != NULL && !request->sent) {
        request_remove(line, previous, request);
    } else if (request != NULL) {
        request->transfer = NULL;
        line->awaited--;
        request = NULL;
    }
    nymbl__engine_unlock(line->engine);
    nymbl__line_request_free(request);
    return found;
}

bool nymbl__line_has_unsent(const nymbl_line *line)
{
    bool has;

    nymbl__engine_lock(line->engine);
    has = line->unsent != NULL;
    nymbl__engine_unlock(line->engine);
    return has;
}

bool nymbl__line_is_busy(const nymbl_line *line)
{
    bool busy;

    nymbl__engine_lock(line->engine);
    busy = line->first != NULL;
    nymbl__engine_unlock(line->engine);
    return busy;
}

nymbl__line_request *nymbl__line_end(nymbl_line *line)
{
    nymbl_engine *engine = line->engine;
    nymbl__line_request *requests;
    nymbl_line *before;

    nymbl__engine_lock(engine);
    line->ended = true;
    requests = line->first;
    line->first = line->last = line->unsent = NULL;
    line->count = line->awaited = 0;
    line->bytes = 0;
    before = engine->lines;
    if (before == line) {
        engine->lines = line->next;
    } else {
        while (before->next != line)
            before = before->next;
        before->next = line->next;
    }
    nymbl__engine_unlock(engine);
    return requests;
}
