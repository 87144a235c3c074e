/* SPDX-License-Identifier: MIT */
/* The requests of an exchange on easy handles: their options, their callbacks
 * and the evaluation of their results. */
#include "exchange/easy.h"

#include "base/buffer.h"
#include "base/error.h"
#include "base/secret.h"
#include "exchange/checksum.h"
#include "exchange/multipart.h"
#include "exchange/range.h"
#include "exchange/response.h"
#include "exchange/result.h"
#include "exchange/setopt.h"
#include "exchange/tls.h"
#include "exchange/url.h"
#include "port/body.h"

#include <string.h>

/* Longest idle time of a connection that a POST or DELETE may reuse. */
#define MAX_IDLE_SECONDS 5L

/* ---- libcurl's callbacks ---- */

/* Record how long the server's certificate is still valid. */
static void certificate_record(nymbl__exchange *exchange)
{
    double lifetime;

    if (!nymbl__tls_certificate_lifetime(exchange->easy, &lifetime))
        return;
    nymbl__port_lock(exchange->port);
    exchange->port->peer.has_certificate = true;
    exchange->port->peer.certificate_lifetime = lifetime;
    nymbl__port_unlock(exchange->port);
}

/* CURLOPT_PREREQFUNCTION, called before a request is sent. libcurl repeats a
 * request on its own, even a POST, if a reused connection turns out to be
 * closed. This callback refuses the repetition. */
static int prereq_cb(void *payload, char *to, char *from, int to_port,
                     int from_port)
{
    nymbl__exchange *exchange = payload;
    bool is_repeat = nymbl__exchange_was_sent(exchange), is_canceled;
    long new_connections = 1;

    /* Unread bytes on a reused connection would be parsed as the response to
     * this request, but could belong to another document (RFC 9112, section
     * 6.3). The peer may also have closed the connection; newer versions of
     * libcurl read ahead and overlook that. */
    curl_easy_getinfo(exchange->easy, CURLINFO_NUM_CONNECTS, &new_connections);
    if (!is_repeat && new_connections == 0 &&
        (nymbl__tls_has_pending(exchange->easy) ||
         nymbl__tls_has_ended(exchange->easy) ||
         !nymbl__sockets_may_reuse(exchange->sockets, from_port))) {
        exchange->phase = NYMBL__EXCESS_DATA;
        return CURL_PREREQFUNC_ABORT;
    }
    (void)to;
    (void)from;
    (void)to_port;
    nymbl__port_lock(exchange->port);
    is_canceled = (exchange->port->commands & NYMBL__COMMAND_CANCEL) != 0;
    if (!is_repeat && !is_canceled) {
        exchange->port->sent = true;
        exchange->phase = NYMBL__SENT;
    }
    nymbl__port_unlock(exchange->port);
    exchange->active = true;
    if (exchange->inspect)
        certificate_record(exchange);
    /* A final status remains the result: after 417 libcurl repeats the request
     * without Expect. */
    if (is_repeat && !(exchange->head.done && exchange->head.status >= 300))
        nymbl__exchange_fail(exchange, NYMBL_NETWORK, nymbl__reason_reset);
    else if (!is_repeat && is_canceled)
        nymbl__exchange_fail(exchange, exchange->port->cancel_kind,
                             exchange->port->cancel_reason);
    return is_repeat || is_canceled ? CURL_PREREQFUNC_ABORT
                                    : CURL_PREREQFUNC_OK;
}

static void response_append(nymbl__exchange *exchange, const char *data,
                            size_t size)
{
    nymbl_kind kind =
        nymbl__buffer_append(&exchange->port->response_body, data, size);

    if (kind == NYMBL_OK)
        return;
    if (kind == NYMBL_NO_MEMORY)
        nymbl__exchange_fail(exchange, kind, NULL);
    else if (nymbl__response_is_success(exchange))
        nymbl__exchange_fail(exchange, NYMBL_PROTOCOL,
                             nymbl__reason_response_too_long);
    else
        exchange->phase = NYMBL__BODY_IGNORED; /* the status is sufficient */
}

static void document_write(nymbl__exchange *exchange, const char *data,
                           size_t size)
{
    const char *reason = NULL;
    nymbl_kind kind;

    if (nymbl__response_is_too_long(exchange, size)) {
        nymbl__exchange_fail(exchange, NYMBL_CORRUPT,
                             nymbl__reason_size_mismatch);
        return;
    }
    if (exchange->first_bytes_size < NYMBL__SNIFF_MAX) {
        size_t more = NYMBL__SNIFF_MAX - exchange->first_bytes_size;

        if (more > size)
            more = size;
        memcpy(exchange->first_bytes + exchange->first_bytes_size, data, more);
        exchange->first_bytes_size += more;
    }
    nymbl__response_check_first_bytes(exchange, false);
    if (exchange->failure != NYMBL_OK)
        return;
    if (exchange->file != NULL)
        kind = nymbl__atomic_file_write(exchange->file, data, size, &reason);
    else
        kind = nymbl__range_put(exchange, data, size);
    if (kind == NYMBL_OK)
        kind = nymbl__checksum_add(exchange, data, size);
    if (kind < 0)
        nymbl__exchange_fail(exchange, kind, reason);
    nymbl__range_detect_end(exchange, size);
}

/* Publish the service's id of the request. After a redirect to another origin
 * the service's own id remains. */
static void request_id_publish(nymbl__exchange *exchange)
{
    nymbl__port *port = exchange->port;

    if (exchange->cross_origin || *exchange->head.request_id == '\0')
        return;
    nymbl__port_lock(port);
    memcpy(port->request_id, exchange->head.request_id,
           sizeof(port->request_id));
    nymbl__port_unlock(port);
}

bool nymbl__easy_header(nymbl__exchange *exchange, const char *data,
                        size_t size)
{
    const char *reason = NULL;
    nymbl_kind kind;

    nymbl__exchange_record_activity(exchange);
    kind = nymbl__head_add_line(&exchange->head, data, size, &reason);
    if (kind != NYMBL_OK)
        request_id_publish(exchange);
    if (kind == NYMBL_CORRUPT && /* only a document can be corrupt */
        exchange->request.expected != NYMBL_EXPECT_CONTENT)
        kind = NYMBL_PROTOCOL;
    if (kind < 0)
        nymbl__exchange_fail(exchange, kind, reason);
    else if (kind == NYMBL_DONE)
        nymbl__response_check_head(exchange);
    return exchange->failure == NYMBL_OK;
}

/* CURLOPT_HEADERFUNCTION, called for each line. */
static size_t header_cb(char *data, size_t size, size_t count, void *payload)
{
    size *= count;
    return nymbl__easy_header(payload, data, size) ? size : 0;
}

static int sockopt_cb(void *payload, curl_socket_t fd, curlsocktype purpose)
{
    nymbl__exchange *exchange = payload;

    (void)purpose;
    return nymbl__sockets_add(exchange->sockets, fd, exchange->request.url);
}

static size_t write_cb(char *data, size_t size, size_t count, void *payload)
{
    nymbl__exchange *exchange = payload;
    bool is_document = exchange->request.expected == NYMBL_EXPECT_CONTENT &&
                       nymbl__response_is_success(exchange);

    size *= count;
    if (!exchange->head.done) { /* head.c has not seen the end of the head */
        nymbl__exchange_fail(exchange, NYMBL_PROTOCOL,
                             nymbl__reason_bad_response);
        return 0;
    }
    if (is_document && nymbl__checksum_is_behind(exchange))
        return CURL_WRITEFUNC_PAUSE;
    if (is_document && exchange->file == NULL) {
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
    if (is_document)
        document_write(exchange, data, size);
    else
        response_append(exchange, data, size);
    exchange->port->body_received += (int64_t)size;
    nymbl__exchange_record_activity(exchange);
    return exchange->failure == NYMBL_OK &&
                   exchange->phase != NYMBL__BODY_IGNORED
               ? size
               : 0;
}

/* CURLOPT_XFERINFOFUNCTION. libcurl calls it for the last time before it closes
 * a connection that the peer has ended. */
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

/* ---- requests ---- */

static nymbl_kind exchange_configure(nymbl__exchange *exchange)
{
    const nymbl__request *request = &exchange->request;
    CURL *easy = exchange->easy;
    /* The server may be closing an idle connection, which cannot be detected
     * here. An upload on it would end with an unknown outcome. So each upload
     * opens a new connection, which resumes the TLS session. */
    bool send_once = !nymbl__request_is_idempotent(request);
    struct curl_slist *headers =
        nymbl__request_headers(request, exchange->cross_origin);
    CURLcode code = nymbl__settings_apply(exchange->settings, easy,
                                          request->url, request->proxy);

    /* parsed, too: otherwise libcurl parses it and formats it again */
    exchange->url = nymbl__url_parse(request->url);
    NYMBL__SETOPT(code, easy, CURLOPT_URL, request->url);
    NYMBL__SETOPT(code, easy, CURLOPT_CURLU, exchange->url);
    NYMBL__SETOPT(code, easy, CURLOPT_ERRORBUFFER, exchange->error_text);
    NYMBL__SETOPT(code, easy, CURLOPT_HTTPHEADER, headers);
    NYMBL__SETOPT(code, easy, CURLOPT_PREREQFUNCTION, prereq_cb);
    NYMBL__SETOPT(code, easy, CURLOPT_PREREQDATA, exchange);
    NYMBL__SETOPT(code, easy, CURLOPT_OPENSOCKETFUNCTION,
                  nymbl__sockets_open_cb);
    NYMBL__SETOPT(code, easy, CURLOPT_SOCKOPTFUNCTION, sockopt_cb);
    NYMBL__SETOPT(code, easy, CURLOPT_SOCKOPTDATA, exchange);
    NYMBL__SETOPT(code, easy, CURLOPT_CLOSESOCKETFUNCTION,
                  nymbl__sockets_close_cb);
    NYMBL__SETOPT(code, easy, CURLOPT_CLOSESOCKETDATA, exchange->sockets);
    NYMBL__SETOPT(code, easy, CURLOPT_FRESH_CONNECT,
                  exchange->fresh || send_once ? 1L : 0L);
    NYMBL__SETOPT(code, easy, CURLOPT_HEADERFUNCTION, header_cb);
    NYMBL__SETOPT(code, easy, CURLOPT_HEADERDATA, exchange);
    NYMBL__SETOPT(code, easy, CURLOPT_WRITEFUNCTION, write_cb);
    NYMBL__SETOPT(code, easy, CURLOPT_WRITEDATA, exchange);
    if (request->method != NYMBL_GET && !send_once)
        NYMBL__SETOPT(code, easy, CURLOPT_MAXAGE_CONN, MAX_IDLE_SECONDS);
    if (request->method == NYMBL_DELETE)
        NYMBL__SETOPT(code, easy, CURLOPT_CUSTOMREQUEST, "DELETE");
    if (request->is_token) {
        exchange->port->response_body.max = NYMBL__TOKEN_RESPONSE_MAX;
        NYMBL__SETOPT(code, easy, CURLOPT_POSTFIELDS, request->token_body);
    }
    if (exchange->port->body != NULL) {
        if (code == CURLE_OK && nymbl__multipart_apply(exchange) < 0)
            code = CURLE_OUT_OF_MEMORY;
        NYMBL__SETOPT(code, easy, CURLOPT_EXPECT_100_TIMEOUT_MS, 200L);
    }
    if (request->expected == NYMBL_EXPECT_CONTENT) {
        NYMBL__SETOPT(code, easy, CURLOPT_NOPROGRESS, 0L);
        NYMBL__SETOPT(code, easy, CURLOPT_XFERINFOFUNCTION, xferinfo_cb);
        NYMBL__SETOPT(code, easy, CURLOPT_XFERINFODATA, exchange);
    }
    return code == CURLE_OK ? NYMBL_OK : NYMBL_NO_MEMORY;
}

nymbl_kind nymbl__easy_start(nymbl__exchange *exchange, CURL *easy)
{
    exchange->easy = easy;
    exchange->phase = NYMBL__CONNECTING;
    return exchange_configure(exchange);
}

nymbl_kind nymbl__easy_unpause(nymbl__exchange *exchange)
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
    /* libcurl pauses at a MIME part only after it has sent the bytes before the
     * part, and ignores a resumption before that: the upload would hang. So the
     * transfer is explicitly paused first. */
    if (resume)
        code = curl_easy_pause(exchange->easy, mask | CURLPAUSE_SEND);
    if (code == CURLE_OK)
        code = curl_easy_pause(exchange->easy, mask);
    if (exchange->range_complete) /* libcurl has called write_cb */
        return NYMBL_DONE;
    /* on failure libcurl has lost bytes that it had buffered */
    return code == CURLE_OK ? NYMBL_OK : NYMBL_NO_MEMORY;
}

void nymbl__easy_detach(nymbl__exchange *exchange)
{
    exchange->easy = NULL;
    exchange->phase = NYMBL__IDLE;
    curl_url_cleanup(exchange->url);
    exchange->url = NULL;
    curl_mime_free(exchange->mime);
    exchange->mime = NULL;
}

/* ---- results ---- */

/* Whether nothing was sent and a new connection may succeed. */
static bool should_reconnect(nymbl__exchange *exchange, CURLcode code)
{
    if (exchange->failure != NYMBL_OK || nymbl__exchange_was_sent(exchange) ||
        exchange->fresh)
        return false;
    /* libcurl's own connect timeout also counts time during which the program
     * did not pump; only the limit in timeouts.c applies. */
    return exchange->phase == NYMBL__EXCESS_DATA ||
           (code == CURLE_OPERATION_TIMEDOUT &&
            exchange->connect_time < exchange->settings->connect_timeout / 2);
}

/* The URL that a redirect leads to, or the reason not to follow it. */
static nymbl_kind redirect_target(nymbl__exchange *exchange, char **out,
                                  const char **reason)
{
    const char *from = exchange->request.url;
    nymbl_kind kind;

    *reason = nymbl__reason_bad_location;
    if (exchange->head.location == NULL || *exchange->head.location == '\0')
        return NYMBL_REDIRECT;
    if (exchange->redirects == NYMBL__REDIRECTS_MAX) {
        *reason = nymbl__reason_too_many_redirects;
        return NYMBL_REDIRECT;
    }
    kind = nymbl__url_resolve(out, from, exchange->head.location);
    if (kind < 0)
        return kind;
    /* A redirect must not lead from https to http, nor from http to http of
     * another origin. */
    if (!nymbl__url_is_https(*out) &&
        (nymbl__url_is_https(from) || !nymbl__url_is_same_origin(from, *out))) {
        nymbl__secret_free(*out);
        *out = NULL;
        *reason = nymbl__reason_https_downgrade;
        return NYMBL_REDIRECT;
    }
    return NYMBL_OK;
}

void nymbl__easy_complete(nymbl__exchange *exchange, CURLcode code,
                          nymbl__result *result)
{
    *result = (nymbl__result){.fresh = exchange->fresh};
    if (should_reconnect(exchange, code)) {
        result->type = NYMBL__RESTART;
        result->fresh = true;
        return;
    }
    if (exchange->request.expected == NYMBL_EXPECT_CONTENT &&
        exchange->failure == NYMBL_OK && exchange->head.done &&
        nymbl__response_is_redirect(exchange->head.status)) {
        result->kind = redirect_target(exchange, &result->url, &result->reason);
        result->type = result->kind < 0 ? NYMBL__FAILED : NYMBL__RESTART;
        return;
    }
    result->kind = nymbl__result_classify(exchange, code, &result->reason);
    result->type = result->kind < 0 ? NYMBL__FAILED : NYMBL__SUCCEEDED;
}

/* Follow a redirect. After a change of the origin no credentials are sent, even
 * if a later redirect leads back. */
static void redirect_follow(nymbl__exchange *exchange, char *url)
{
    nymbl__request *request = &exchange->request;
    nymbl__port *port = exchange->port;

    if (!nymbl__url_is_same_origin(request->url, url))
        exchange->cross_origin = true;
    nymbl__secret_free(request->url);
    request->url = url;
    exchange->redirects++;
    nymbl__head_reset(&exchange->head);
    nymbl__buffer_free(&port->response_body);
    port->response_body.max = NYMBL_RESPONSE_MAX;
    port->body_received = 0;
    exchange->close_notify_seen = false;
    exchange->connect_time = exchange->idle_time = exchange->response_time = 0;
}

void nymbl__easy_prepare_restart(nymbl__exchange *exchange,
                                 nymbl__result *result)
{
    exchange->fresh = result->fresh;
    if (result->url != NULL)
        redirect_follow(exchange, result->url);
    result->url = NULL;
}
