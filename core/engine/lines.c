/* SPDX-License-Identifier: MIT */
/* The engine's lines: connecting, sending, receiving, and their time limits. */
#include "engine/lines.h"

#include "base/error.h"
#include "base/resp.h"
#include "base/secret.h"
#include "engine/connections.h"
#include "engine/waitfds.h"

#include <poll.h>
#include <string.h>

/* Longest time to wait for replies when a line closes: milliseconds of a poll,
 * and the number of polls. A server that has been silent for so long already is
 * not waited for. */
#define FINISH_POLL 10
#define FINISH_POLLS 20

/* ---- the end ---- */

/* Close the connection, or abort the attempt to connect. */
static void connection_close(nymbl_line *line)
{
    CURL *easy = line->connection.easy;

    line->connection.easy = NULL;
    if (easy == NULL)
        return;
    curl_multi_remove_handle(line->engine->multi, easy);
    curl_easy_cleanup(easy);
}

static void transfer_succeed(nymbl_transfer *transfer, const char *reply,
                             size_t size)
{
    nymbl_error result = {.retry_after = -1};

    result.kind =
        nymbl__buffer_append(&transfer->port.response_body, reply, size);
    nymbl__transfer_end(transfer, &result);
}

/* End the line, and each of its requests with a failure; or, if `reply` is not
 * NULL, with this reply. */
static void line_end(nymbl_line *line, nymbl_kind kind, const char *reason,
                     const char *reply, size_t reply_size)
{
    nymbl_error result = {.kind = kind, .reason = reason, .retry_after = -1};
    nymbl__line_request *request;

    if (line->stage == NYMBL__LINE_ENDED)
        return;
    line->stage = NYMBL__LINE_ENDED;
    connection_close(line);
    nymbl__buffer_free(&line->greeting);
    request = nymbl__line_end(line);
    while (request != NULL) {
        nymbl__line_request *next = request->next;

        if (request->transfer != NULL && reply != NULL)
            transfer_succeed(request->transfer, reply, reply_size);
        else if (request->transfer != NULL)
            nymbl__transfer_end(request->transfer, &result);
        nymbl__line_request_free(request);
        request = next;
    }
    nymbl__line_release(line); /* the engine's reference */
}

static void line_fail(nymbl_line *line, nymbl_kind kind, const char *reason)
{
    line_end(line, kind, reason, NULL, 0);
}

/* ---- receiving ---- */

/* Process one reply. */
static void reply_process(nymbl_line *line, const char *reply, size_t size)
{
    bool is_first = !line->answered, is_error = *reply == '-';
    nymbl_transfer *transfer = NULL;

    line->answered = true;
    if (line->stage == NYMBL__LINE_GREETING && !is_error) {
        if (line->sent < line->greeting.size) {
            line_fail(line, NYMBL_PROTOCOL, nymbl__reason_bad_response);
        } else if (--line->greeting_replies == 0) {
            line->stage = NYMBL__LINE_OPEN;
            line->sent = 0;
            nymbl__buffer_free(&line->greeting);
        }
    } else if (line->stage == NYMBL__LINE_GREETING) {
        line_end(line, NYMBL_OK, NULL, reply, size);
    } else if (nymbl__line_take_answered(line, &transfer)) {
        if (transfer != NULL)
            transfer_succeed(transfer, reply, size);
    } else if (is_first && is_error) {
        /* Redis refuses a connection with an error that answers no request:
         * too many clients, protected mode */
        line_end(line, NYMBL_OK, NULL, reply, size);
    } else { /* the replies would be matched with the wrong requests */
        line_fail(line, NYMBL_PROTOCOL, nymbl__reason_bad_response);
    }
}

/* Process the complete replies among the received bytes. */
static void replies_process(nymbl_line *line)
{
    size_t at = 0, left, length;
    nymbl_kind kind = NYMBL_OK;

    while (line->stage != NYMBL__LINE_ENDED && at < line->received_size) {
        kind = nymbl__resp_length(line->received + at, line->received_size - at,
                                  &length);
        if (kind != NYMBL_OK)
            break;
        reply_process(line, line->received + at, length);
        at += length;
    }
    if (kind < 0)
        line_fail(line, NYMBL_PROTOCOL,
                  kind == NYMBL_TOO_LARGE ? nymbl__reason_response_too_long
                                          : nymbl__reason_bad_response);
    left = line->received_size - at;
    memmove(line->received, line->received + at, left);
    nymbl__secret_wipe(line->received + left, line->received_size - left);
    line->received_size = left;
}

static bool is_connected(const nymbl_line *line)
{
    return line->stage == NYMBL__LINE_GREETING ||
           line->stage == NYMBL__LINE_OPEN;
}

/* Receive all bytes that have arrived. */
static void line_receive(nymbl_line *line)
{
    while (is_connected(line)) {
        const char *reason = NULL;
        size_t got;
        nymbl_kind kind = nymbl__raw_connection_receive(
            &line->connection, line->received + line->received_size,
            NYMBL_REPLY_MAX - line->received_size, &got, &reason);

        if (kind == NYMBL_AGAIN)
            return;
        if (kind < 0) {
            line_fail(line, kind, reason);
            return;
        }
        line->received_size += got;
        replies_process(line);
    }
}

/* ---- sending ---- */

/* Send the rest of some bytes. Returns whether all of them were sent. */
static bool bytes_send(nymbl_line *line, const char *bytes, size_t size)
{
    const char *reason = NULL;

    while (line->sent < size) {
        size_t sent;
        nymbl_kind kind =
            nymbl__raw_connection_send(&line->connection, bytes + line->sent,
                                       size - line->sent, &sent, &reason);

        line->send_blocked = kind == NYMBL_AGAIN;
        if (kind < 0)
            line_fail(line, kind, reason);
        if (kind != NYMBL_OK)
            return false;
        line->sent += sent;
    }
    return true;
}

/* Send what can be sent without waiting. */
static void line_send(nymbl_line *line)
{
    if (line->stage == NYMBL__LINE_GREETING)
        bytes_send(line, line->greeting.data, line->greeting.size);
    while (line->stage == NYMBL__LINE_OPEN) {
        nymbl__line_request *request = nymbl__line_begin_send(line);

        if (request == NULL || !bytes_send(line, request->bytes, request->size))
            return;
        line->sent = 0;
        nymbl__line_end_send(line);
    }
}

/* ---- connecting ---- */

static void line_connect(nymbl_line *line)
{
    nymbl_engine *engine = line->engine;
    CURL *easy = nymbl__connections_get_handle(engine);

    if (easy == NULL ||
        nymbl__raw_connection_start(&line->connection, easy) < 0 ||
        curl_multi_add_handle(engine->multi, easy) != CURLM_OK)
        line_fail(line, NYMBL_NO_MEMORY, NULL);
    else
        line->stage = NYMBL__LINE_CONNECTING;
}

/* ---- steps ---- */

/* Close a line that its caller has released: its transfers end at once. What
 * was sent has a moment to be answered. */
static void line_close(nymbl_line *line, double now, double active_at)
{
    nymbl_error result = {.kind = NYMBL_CANCELED,
                          .reason = nymbl__reason_closed,
                          .retry_after = -1};
    nymbl_transfer *transfer;

    if (line->close_at == 0)
        line->close_at = active_at + FINISH_POLLS * FINISH_POLL / 1000.0;
    while ((transfer = nymbl__line_drop(line, NULL)) != NULL)
        nymbl__transfer_end(transfer, &result);
    if (line->stage != NYMBL__LINE_OPEN || !nymbl__line_is_busy(line) ||
        now >= line->close_at)
        line_fail(line, NYMBL_CANCELED, nymbl__reason_closed);
}

static void limits_enforce(nymbl_line *line)
{
    double now = nymbl_engine_now(line->engine);
    double active_at;
    bool closing, usable;

    nymbl__engine_lock(line->engine);
    active_at = line->active_at;
    closing = line->closing;
    usable = nymbl__line_is_usable(line, now);
    nymbl__engine_unlock(line->engine);
    if (closing)
        line_close(line, now, active_at);
    else if (line->stage == NYMBL__LINE_OPEN && !usable)
        line_fail(line, NYMBL_NETWORK, nymbl__reason_reset);
    else if (line->stage != NYMBL__LINE_OPEN &&
             line->connect_time >= line->connection.settings.connect_timeout)
        line_fail(line, NYMBL_TIMEOUT, nymbl__reason_connect);
}

static void line_step(nymbl_line *line)
{
    bool may_receive = line->may_receive;

    nymbl__line_retain(line);
    line->may_receive = false;
    if (line->stage == NYMBL__LINE_NEW)
        line_connect(line);
    /* first receive: nothing is sent if the peer has closed the connection, or
     * has sent a reply for which no request waits, since the last poll, too */
    if (may_receive || nymbl__line_has_unsent(line))
        line_receive(line);
    line_send(line);
    if (line->stage != NYMBL__LINE_ENDED)
        limits_enforce(line);
    nymbl__line_release(line);
}

void nymbl__lines_step(nymbl_engine *engine)
{
    nymbl_line *line = engine->lines;

    while (line != NULL) {
        nymbl_line *next = line->next; /* it may be freed */

        line_step(line);
        line = next;
    }
}

void nymbl__lines_step_one(nymbl_line *line)
{
    line->may_receive = true;
    line_step(line);
}

bool nymbl__lines_complete(nymbl_engine *engine, CURL *easy, CURLcode code)
{
    nymbl_line *line = engine->lines;
    const char *reason = NULL;
    nymbl_kind kind;

    while (line != NULL && line->connection.easy != easy)
        line = line->next;
    if (line == NULL)
        return false;
    kind = nymbl__raw_connection_complete(&line->connection, code, &reason);
    if (kind < 0) {
        line_fail(line, kind, reason);
        return true;
    }
    if (kind == NYMBL_AGAIN) { /* only connect_time ends the attempts */
        connection_close(line);
        line->stage = NYMBL__LINE_NEW;
    } else {
        line->stage = line->greeting_replies > 0 ? NYMBL__LINE_GREETING
                                                 : NYMBL__LINE_OPEN;
        line->may_receive = true;
    }
    line_step(line);
    return true;
}

void nymbl__lines_cancel(nymbl_transfer *transfer, nymbl_kind kind,
                         const char *reason)
{
    nymbl_error result = {.kind = kind, .reason = reason, .retry_after = -1};

    nymbl__line_drop(transfer->line, transfer);
    nymbl__transfer_end(transfer, &result);
}

void nymbl__lines_finish(nymbl_line *line)
{
    nymbl__line_retain(line);
    for (int i = 0; i < FINISH_POLLS && line->stage != NYMBL__LINE_ENDED; i++) {
        struct pollfd socket = {.fd = line->connection.fd, .events = POLLIN};

        if (line->send_blocked)
            socket.events |= POLLOUT;
        if (i > 0)
            poll(&socket, 1, FINISH_POLL);
        nymbl__lines_step_one(line);
    }
    line_fail(line, NYMBL_CANCELED, nymbl__reason_closed);
    nymbl__line_release(line);
}

void nymbl__lines_close(nymbl_engine *engine)
{
    nymbl_line *line;

    while ((line = engine->lines) != NULL) {
        line->closing = true;
        nymbl__lines_finish(line);
    }
}

/* ---- waiting ---- */

void nymbl__lines_expect_bytes(nymbl_engine *engine)
{
    for (nymbl_line *line = engine->lines; line != NULL; line = line->next)
        line->may_receive = true;
}

void nymbl__lines_collect_fds(nymbl_engine *engine)
{
    for (nymbl_line *line = engine->lines; line != NULL; line = line->next) {
        if (is_connected(line))
            nymbl__waitfds_add(engine, line->connection.fd,
                               line->send_blocked
                                   ? CURL_WAIT_POLLIN | CURL_WAIT_POLLOUT
                                   : CURL_WAIT_POLLIN);
    }
}

void nymbl__lines_polled(nymbl_engine *engine, double seconds)
{
    for (nymbl_line *line = engine->lines; line != NULL; line = line->next) {
        /* a new line was added during the poll */
        if (line->stage == NYMBL__LINE_CONNECTING ||
            line->stage == NYMBL__LINE_GREETING)
            line->connect_time += seconds;
        for (unsigned i = 0; is_connected(line) && i < engine->waitfd_count;
             i++) {
            if (engine->waitfds[i].fd == line->connection.fd)
                line->may_receive =
                    line->may_receive || engine->waitfds[i].revents != 0;
        }
    }
    if (engine->waitfds_incomplete)
        nymbl__lines_expect_bytes(engine);
}

double nymbl__lines_wait_time(nymbl_engine *engine, double seconds)
{
    nymbl_line *line = engine->lines;
    double now = line != NULL ? nymbl_engine_now(engine) : 0;

    for (; line != NULL; line = line->next) {
        double left =
            line->connection.settings.connect_timeout - line->connect_time;

        nymbl__engine_lock(engine);
        if (line->stage == NYMBL__LINE_OPEN)
            left = line->awaited > 0
                       ? seconds
                       : line->active_at + line->idle_timeout - now;
        if (line->closing)
            left = line->close_at - now;
        if (line->stage == NYMBL__LINE_NEW)
            left = 0;
        nymbl__engine_unlock(engine);
        if (left < seconds)
            seconds = left;
    }
    return seconds;
}
