/* SPDX-License-Identifier: MIT */
/* An exchange on the wire: an easy handle's options and callbacks, and what
 * comes of it. */
#include "exchange/wire.h"

#include "base/error.h"
#include "exchange/multipart.h"
#include "exchange/tls.h"
#include "exchange/url.h"
#include "exchange/verdict.h"
#include "port/body.h"

#include <string.h>

#define FRESH_SECONDS                                                          \
    5L /* a connection may have been idle for POST, DELETE                     \
        */

/* ---- libcurl's callbacks ---- */

/* libcurl repeats a request by itself where a reused connection turns out to be
 * dead, a POST too. Here the second one is stopped before it goes out. */
static int prereq_cb(void *payload, char *to, char *from, int to_port,
                     int from_port)
{
    nymbl__exchange *exchange = payload;
    bool again = nymbl__exchange_was_sent(exchange), removed;
    long made = 1;

    /* Bytes on a used connection that nobody has asked for: they would be taken
     * for the reply to what goes out now, and be another document's at worst.
     * Or its end, which newer versions read ahead and then overlook. */
    curl_easy_getinfo(exchange->easy, CURLINFO_NUM_CONNECTS, &made);
    if (!again && made == 0 &&
        (nymbl__tls_has_pending(exchange->easy) ||
         nymbl__tls_has_ended(exchange->easy) ||
         !nymbl__sockets_are_silent(exchange->sockets, from_port))) {
        exchange->phase = NYMBL__EXCESS_DATA;
        return CURL_PREREQFUNC_ABORT;
    }
    (void)to;
    (void)from;
    (void)to_port;
    nymbl__port_lock(exchange->port);
    removed = (exchange->port->commands & NYMBL__REMOVE) != 0;
    if (!again && !removed) {
        exchange->port->sent = true;
        exchange->phase = NYMBL__SENT;
    }
    nymbl__port_unlock(exchange->port);
    exchange->active = true;
    /* a final status stands: libcurl would try a 417 again without Expect */
    if (again && !(exchange->head.done && exchange->head.status >= 300))
        nymbl__exchange_fail(exchange, NYMBL_NETWORK, "reset");
    else if (!again && removed)
        nymbl__exchange_fail(exchange, exchange->port->cancel_kind,
                             exchange->port->cancel_reason);
    return again || removed ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

static void reply_append(nymbl__exchange *exchange, const char *data,
                         size_t size)
{
    nymbl_kind kind =
        nymbl__buffer_append(&exchange->port->response_body, data, size);

    if (kind == NYMBL_OK)
        return;
    if (kind == NYMBL_NO_MEMORY)
        nymbl__exchange_fail(exchange, kind, NULL);
    else if (nymbl__response_is_success(exchange))
        nymbl__exchange_fail(exchange, NYMBL_PROTOCOL, "response_too_long");
    else
        exchange->phase = NYMBL__BODY_IGNORED; /* the status says enough */
}

static void document_append(nymbl__exchange *exchange, const char *data,
                            size_t size)
{
    const char *reason = NULL;
    nymbl_kind kind;

    if (exchange->has_size &&
        (int64_t)size > exchange->size - exchange->port->resumed_from -
                            exchange->port->body_received) {
        nymbl__exchange_fail(exchange, NYMBL_CORRUPT, "size_mismatch");
        return;
    }
    if (exchange->sniffed < NYMBL__SNIFF) {
        size_t more = NYMBL__SNIFF - exchange->sniffed;

        if (more > size)
            more = size;
        memcpy(exchange->sniff + exchange->sniffed, data, more);
        exchange->sniffed += more;
    }
    nymbl__response_check_first_bytes(exchange, false);
    if (exchange->failure != NYMBL_OK)
        return;
    if (exchange->save != NULL) {
        kind = nymbl__save_write(exchange->save, data, size, &reason);
    } else {
        nymbl__port_lock(exchange->port);
        kind = nymbl__ring_put(&exchange->port->window, data, size);
        nymbl__port_unlock(exchange->port);
        exchange->notify_pending = true;
    }
    if (kind < 0)
        nymbl__exchange_fail(exchange, kind, reason);
}

bool nymbl__exchange_header(nymbl__exchange *exchange, const char *data,
                            size_t size)
{
    const char *reason = NULL;
    nymbl_kind kind;

    nymbl__exchange_count_activity(exchange);
    kind = nymbl__head_line(&exchange->head, data, size, &reason);
    if (kind == NYMBL_CORRUPT && /* what only a document can be */
        exchange->request.operation != NYMBL__DOWNLOAD)
        kind = NYMBL_PROTOCOL;
    if (kind < 0)
        nymbl__exchange_fail(exchange, kind, reason);
    else if (kind == NYMBL_DONE)
        nymbl__response_check_head(exchange);
    return exchange->failure == NYMBL_OK;
}

/* libcurl's header callback, for each line. */
static size_t header_cb(char *data, size_t size, size_t count, void *payload)
{
    size *= count;
    return nymbl__exchange_header(payload, data, size) ? size : 0;
}

static int socket_made(void *payload, curl_socket_t fd, curlsocktype purpose)
{
    nymbl__exchange *exchange = payload;

    (void)purpose;
    return nymbl__sockets_add(exchange->sockets, fd, exchange->request.url);
}

static size_t write_cb(char *data, size_t size, size_t count, void *payload)
{
    nymbl__exchange *exchange = payload;
    bool document = exchange->request.operation == NYMBL__DOWNLOAD &&
                    nymbl__response_is_success(exchange);

    size *= count;
    if (!exchange->head.done) { /* its head was not checked */
        nymbl__exchange_fail(exchange, NYMBL_PROTOCOL, "bad_response");
        return 0;
    }
    if (document && exchange->save == NULL) {
        bool full;

        nymbl__port_lock(exchange->port);
        full = nymbl__ring_room(&exchange->port->window) < size;
        exchange->port->receive_paused = full;
        nymbl__port_unlock(exchange->port);
        if (full) {
            exchange->slot_is_free = true;
            return CURL_WRITEFUNC_PAUSE;
        }
    }
    if (document)
        document_append(exchange, data, size);
    else
        reply_append(exchange, data, size);
    exchange->port->body_received += (int64_t)size;
    nymbl__exchange_count_activity(exchange);
    return exchange->failure == NYMBL_OK &&
                   exchange->phase != NYMBL__BODY_IGNORED
               ? size
               : 0;
}

/* libcurl's progress callback, the last one before a connection that ended is
 * let go. */
static int xferinfo_cb(void *payload, curl_off_t down_total, curl_off_t down,
                       curl_off_t up_total, curl_off_t up)
{
    nymbl__exchange *exchange = payload;
    const nymbl__response_head *head = &exchange->head;

    (void)down_total;
    (void)down;
    (void)up_total;
    (void)up;
    if (head->done && head->length < 0 && !head->chunked &&
        !exchange->close_notify_seen)
        exchange->close_notify_seen = nymbl__tls_has_ended(exchange->easy);
    return 0;
}

/* ---- on the wire ---- */

static nymbl_kind exchange_configure(nymbl__exchange *exchange)
{
    const nymbl__request *request = &exchange->request;
    CURL *easy = exchange->easy;
    /* The server may be closing an idle connection, which cannot be seen here.
     * An upload on it would end with an unknown outcome, so each upload makes a
     * new connection; its TLS session is resumed. */
    bool uploads = request->operation == NYMBL__UPLOAD;
    struct curl_slist *headers =
        exchange->cross_origin || request->secrets == NULL ? request->headers
                                                           : request->secrets;
    CURLcode code = nymbl__settings_apply(exchange->settings, easy,
                                          request->url, request->proxy);

#define SET(option, value)                                                     \
    do {                                                                       \
        if (code == CURLE_OK)                                                  \
            code = curl_easy_setopt(easy, option, value);                      \
    } while (0)
    SET(CURLOPT_URL, request->url);
    SET(CURLOPT_ERRORBUFFER, exchange->errors);
    SET(CURLOPT_HTTPHEADER, headers);
    SET(CURLOPT_PREREQFUNCTION, prereq_cb);
    SET(CURLOPT_PREREQDATA, exchange);
    SET(CURLOPT_OPENSOCKETFUNCTION, nymbl__opensocket_cb);
    SET(CURLOPT_SOCKOPTFUNCTION, socket_made);
    SET(CURLOPT_SOCKOPTDATA, exchange);
    SET(CURLOPT_CLOSESOCKETFUNCTION, nymbl__closesocket_cb);
    SET(CURLOPT_CLOSESOCKETDATA, exchange->sockets);
    SET(CURLOPT_FRESH_CONNECT, exchange->fresh || uploads ? 1L : 0L);
    SET(CURLOPT_HEADERFUNCTION, header_cb);
    SET(CURLOPT_HEADERDATA, exchange);
    SET(CURLOPT_WRITEFUNCTION, write_cb);
    SET(CURLOPT_WRITEDATA, exchange);
    switch (request->operation) {
    case NYMBL__TOKEN:
        exchange->port->response_body.max = NYMBL__TOKEN_REPLY_MAX;
        SET(CURLOPT_POSTFIELDS, request->token_body);
        SET(CURLOPT_MAXAGE_CONN, FRESH_SECONDS);
        break;
    case NYMBL__UPLOAD:
        if (code == CURLE_OK && nymbl__multipart_apply(exchange) < 0)
            code = CURLE_OUT_OF_MEMORY;
        SET(CURLOPT_EXPECT_100_TIMEOUT_MS, 200L);
        break;
    case NYMBL__DELETE:
        SET(CURLOPT_CUSTOMREQUEST, "DELETE");
        SET(CURLOPT_MAXAGE_CONN, FRESH_SECONDS);
        break;
    case NYMBL__DOWNLOAD:
        SET(CURLOPT_NOPROGRESS, 0L);
        SET(CURLOPT_XFERINFOFUNCTION, xferinfo_cb);
        SET(CURLOPT_XFERINFODATA, exchange);
        break;
    default:
        break;
    }
#undef SET
    return code == CURLE_OK ? NYMBL_OK : NYMBL_NO_MEMORY;
}

nymbl_kind nymbl__exchange_begin(nymbl__exchange *exchange, CURL *easy)
{
    exchange->easy = easy;
    exchange->phase = NYMBL__CONNECTING;
    return exchange_configure(exchange);
}

nymbl_kind nymbl__exchange_unpause(nymbl__exchange *exchange)
{
    CURLcode code = CURLE_OK;
    int mask = CURLPAUSE_CONT;
    bool resume;

    if (exchange->easy == NULL)
        return NYMBL_OK;
    nymbl__port_lock(exchange->port);
    resume = exchange->port->send_paused;
    if (exchange->port->window.size <= exchange->port->window.max / 2)
        exchange->port->receive_paused = false;
    if (exchange->port->body == NULL ||
        nymbl__body_can_resume(exchange->port->body))
        exchange->port->send_paused = false;
    if (exchange->port->receive_paused)
        mask |= CURLPAUSE_RECV;
    if (exchange->port->send_paused)
        mask |= CURLPAUSE_SEND;
    resume = resume && !exchange->port->send_paused;
    nymbl__port_unlock(exchange->port);
    /* libcurl notices the pause of a mime part only after it has sent what
     * stood before it, and ignores an end of the pause that comes sooner: the
     * upload would stand still. So it is paused for certain first. */
    if (resume)
        code = curl_easy_pause(exchange->easy, mask | CURLPAUSE_SEND);
    if (code == CURLE_OK)
        code = curl_easy_pause(exchange->easy, mask);
    /* else bytes that it held back are lost */
    return code == CURLE_OK ? NYMBL_OK : NYMBL_NO_MEMORY;
}

void nymbl__exchange_leave(nymbl__exchange *exchange)
{
    exchange->easy = NULL;
    exchange->phase = NYMBL__IDLE;
    curl_mime_free(exchange->mime);
    exchange->mime = NULL;
}

/* ---- the end of a hop ---- */

/* Whether nothing went out, for a reason that a new connection may mend. */
static bool should_reconnect(nymbl__exchange *exchange, CURLcode code)
{
    if (exchange->failure != NYMBL_OK || nymbl__exchange_was_sent(exchange) ||
        exchange->fresh)
        return false;
    /* libcurl's own limit runs while the host does other things: only ours
     * decides */
    return exchange->phase == NYMBL__EXCESS_DATA ||
           (code == CURLE_OPERATION_TIMEDOUT &&
            exchange->connect_time < exchange->settings->connect_timeout / 2);
}

/* The next hop's URL, or why there is none. */
static nymbl_kind redirect_target(nymbl__exchange *exchange, char **out,
                                  const char **reason)
{
    const char *from = exchange->request.url;
    nymbl_kind kind;

    *reason = "bad_location";
    if (exchange->head.location == NULL || *exchange->head.location == '\0')
        return NYMBL_REDIRECT;
    if (exchange->redirects == NYMBL__REDIRECTS_MAX) {
        *reason = "too_many_redirects";
        return NYMBL_REDIRECT;
    }
    kind = nymbl__url_resolve(out, from, exchange->head.location);
    if (kind < 0)
        return kind;
    /* never down from https; http only where it was allowed from the start */
    if (!nymbl__url_is_https(*out) &&
        (nymbl__url_is_https(from) || !nymbl__url_same_origin(from, *out))) {
        nymbl__secret_free(*out);
        *out = NULL;
        *reason = "https_downgrade";
        return NYMBL_REDIRECT;
    }
    return NYMBL_OK;
}

void nymbl__exchange_complete(nymbl__exchange *exchange, CURLcode code,
                              nymbl__result *result)
{
    *result = (nymbl__result){.fresh = exchange->fresh};
    if (should_reconnect(exchange, code)) { /* nothing went out: once more */
        result->how = NYMBL__RESTART;
        result->fresh = true;
        return;
    }
    if (exchange->request.operation == NYMBL__DOWNLOAD &&
        exchange->failure == NYMBL_OK && exchange->head.done &&
        nymbl__response_is_redirect(exchange->head.status)) {
        result->kind = redirect_target(exchange, &result->url, &result->reason);
        result->how = result->kind < 0 ? NYMBL__FAILED : NYMBL__RESTART;
        return;
    }
    result->kind = nymbl__result_classify(exchange, code, &result->reason);
    result->how = result->kind < 0 ? NYMBL__FAILED : NYMBL__SUCCEEDED;
}

/* Go to where a download was sent. Once the origin has changed the credentials
 * stay behind, also when it changes back. */
static void redirect_follow(nymbl__exchange *exchange, char *url)
{
    nymbl__request *request = &exchange->request;
    nymbl__port *port = exchange->port;

    if (!nymbl__url_same_origin(request->url, url))
        exchange->cross_origin = true;
    nymbl__secret_free(request->url);
    request->url = url;
    exchange->redirects++;
    nymbl__head_reset(&exchange->head);
    nymbl__buffer_free(&port->response_body);
    port->response_body.max = NYMBL__REPLY_MAX;
    port->body_received = 0;
    exchange->close_notify_seen = false;
    exchange->connect_time = exchange->idle_time = exchange->response_time = 0;
}

void nymbl__exchange_again(nymbl__exchange *exchange, nymbl__result *result)
{
    exchange->fresh = result->fresh;
    if (result->url != NULL)
        redirect_follow(exchange, result->url);
    result->url = NULL;
}
