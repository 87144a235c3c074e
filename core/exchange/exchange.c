/* SPDX-License-Identifier: MIT */
/* One exchange: from a request that waits to bytes that were found good. */
#include "exchange/exchange.h"

#include "api/body.h"
#include "api/calls.h"
#include "api/client.h"
#include "base/buffer.h"
#include "base/error.h"
#include "engine/connections.h"
#include "engine/engine.h"
#include "engine/lease.h"
#include "engine/thread.h"
#include "exchange/head.h"
#include "exchange/sniff.h"
#include "exchange/sockets.h"
#include "exchange/tls.h"
#include "exchange/url.h"
#include "exchange/verdict.h"
#include "file/save.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- lifetime ---- */

nymbl_kind nymbl__transfer_new(nymbl_transfer **out, nymbl_engine *engine,
                               nymbl_client *client, nymbl_error *err)
{
    nymbl_transfer *transfer = calloc(1, sizeof(*transfer));

    *out = NULL;
    if (transfer == NULL)
        return nymbl__fail(err, NYMBL_NO_MEMORY, NULL);
    transfer->references = 1;
    transfer->engine = engine;
    transfer->client = client;
    transfer->confirmed = -1;
    transfer->lease = -1;
    nymbl__engine_retain(engine);
    nymbl__client_retain(client);
    nymbl__head_reset(&transfer->head);
    nymbl__buffer_init(&transfer->reply, NYMBL__REPLY_MAX);
    nymbl__ring_init(&transfer->window, NYMBL__RECEIVE_WINDOW);
    nymbl__live(1);
    *out = transfer;
    return NYMBL_OK;
}

/* Whether what was saved so far is worth keeping: it was interrupted, not
 * wrong, and not what every later request would be refused for. */
static bool part_is_good(const nymbl_transfer *transfer, nymbl_kind kind)
{
    return kind != NYMBL_CORRUPT && kind != NYMBL_PROTOCOL &&
           !nymbl__verdict_refuses_range(transfer);
}

/* What only an exchange on the wire needs. */
static void exchange_release(nymbl_transfer *transfer, nymbl_kind kind)
{
    nymbl_body *body = transfer->body;

    if (part_is_good(transfer, kind))
        nymbl__save_suspend(transfer->save);
    else
        nymbl__save_abandon(transfer->save);
    transfer->save = NULL;
    nymbl__engine_lock(transfer->engine);
    if (body != NULL)
        transfer->body_sent = nymbl__body_released(body);
    transfer->body = NULL;
    nymbl__engine_unlock(transfer->engine);
    if (body != NULL)
        nymbl__body_detach(body);
    nymbl__request_free(&transfer->request);
}

void nymbl__transfer_release(nymbl_transfer *transfer)
{
    if (atomic_fetch_sub(&transfer->references, 1) > 1)
        return;
    exchange_release(transfer, NYMBL_OK);
    nymbl__secret_free(transfer->head.location);
    nymbl__buffer_free(&transfer->reply);
    nymbl__ring_free(&transfer->window);
    nymbl__client_release(transfer->client);
    nymbl__engine_release(transfer->engine);
    nymbl__wipe(transfer, sizeof(*transfer));
    free(transfer);
    nymbl__live(-1);
}

void nymbl_transfer_free(nymbl_transfer *transfer)
{
    /* In a forked child its sockets and files are the parent's. */
    if (transfer == NULL || !nymbl_engine_is_own(transfer->engine))
        return;
    nymbl_transfer_cancel(transfer, NYMBL_CANCELED, NULL);
    nymbl__transfer_release(transfer);
}

void nymbl__transfer_failing(nymbl_transfer *transfer, nymbl_kind kind,
                             const char *reason)
{
    if (transfer->failing != NYMBL_OK)
        return;
    transfer->failing = kind;
    transfer->failing_reason = reason;
}

void nymbl__transfer_moved(nymbl_transfer *transfer)
{
    transfer->moved = true;
    if (transfer->progress)
        transfer->dirty = true;
}

/* Bytes of the document, a part that was there included; or -1. */
static int64_t whole_length(const nymbl_transfer *transfer)
{
    int64_t length = nymbl__verdict_length(&transfer->head);

    if (length > INT64_MAX - transfer->resumed_from)
        return INT64_MAX; /* a server may claim any length */
    return length < 0 ? length : transfer->resumed_from + length;
}

void nymbl__transfer_head_tell(nymbl_transfer *transfer)
{
    const nymbl__reply_head *head = &transfer->head;

    if (transfer->failing != NYMBL_OK)
        return;
    memcpy(transfer->told_type, head->content_type, sizeof(head->content_type));
    nymbl__engine_lock(transfer->engine);
    transfer->told = (nymbl_head){
        .status = head->status,
        .content_length = whole_length(transfer),
        .content_type = head->has_type ? transfer->told_type : NULL,
    };
    transfer->head_told = true;
    nymbl__engine_unlock(transfer->engine);
}

/* ---- libcurl's callbacks ---- */

/* libcurl repeats a request by itself where a reused connection turns out to be
 * dead, a POST too. Here the second one is stopped before it goes out. */
static int request_goes_out(void *payload, char *to, char *from, int to_port,
                            int from_port)
{
    nymbl_transfer *transfer = payload;
    bool again = transfer->sent_this_hop, removed;
    long made = 1;

    /* Bytes on a used connection that nobody has asked for: they would be taken
     * for the reply to what goes out now, and be another document's at worst.
     * Or its end, which newer versions read ahead and then overlook. */
    curl_easy_getinfo(transfer->easy, CURLINFO_NUM_CONNECTS, &made);
    if (!again && made == 0 &&
        (nymbl__tls_has_pending(transfer->easy) ||
         nymbl__tls_has_ended(transfer->easy) ||
         !nymbl__sockets_are_silent(transfer->engine, from_port))) {
        transfer->spoilt = true;
        return CURL_PREREQFUNC_ABORT;
    }
    (void)to;
    (void)from;
    (void)to_port;
    nymbl__engine_lock(transfer->engine);
    removed = (transfer->commands & NYMBL__REMOVE) != 0;
    if (!again && !removed)
        transfer->sent = transfer->sent_this_hop = true;
    nymbl__engine_unlock(transfer->engine);
    transfer->moved = true;
    /* a final status stands: libcurl would try a 417 again without Expect */
    if (again && !(transfer->head.done && transfer->head.status >= 300))
        nymbl__transfer_failing(transfer, NYMBL_NETWORK, "reset");
    else if (!again && removed)
        nymbl__transfer_failing(transfer, transfer->cancel_kind,
                                transfer->cancel_reason);
    return again || removed ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

static void reply_append(nymbl_transfer *transfer, const char *data,
                         size_t size)
{
    nymbl_kind kind = nymbl__buffer_append(&transfer->reply, data, size);

    if (kind == NYMBL_OK)
        return;
    if (kind == NYMBL_NO_MEMORY)
        nymbl__transfer_failing(transfer, kind, NULL);
    else if (nymbl__verdict_is_success(transfer))
        nymbl__transfer_failing(transfer, NYMBL_PROTOCOL, "too_long");
    else
        transfer->cut = true; /* the status says enough */
}

static void document_append(nymbl_transfer *transfer, const char *data,
                            size_t size)
{
    const char *reason = NULL;
    nymbl_kind kind;

    if (transfer->has_size && (int64_t)size > transfer->size -
                                                  transfer->resumed_from -
                                                  transfer->hop_received) {
        nymbl__transfer_failing(transfer, NYMBL_CORRUPT, "size");
        return;
    }
    if (transfer->sniffed < NYMBL__SNIFF) {
        size_t more = NYMBL__SNIFF - transfer->sniffed;

        if (more > size)
            more = size;
        memcpy(transfer->sniff + transfer->sniffed, data, more);
        transfer->sniffed += more;
    }
    nymbl__verdict_first_bytes(transfer, false);
    if (transfer->failing != NYMBL_OK)
        return;
    if (transfer->save != NULL) {
        kind = nymbl__save_write(transfer->save, data, size, &reason);
    } else {
        nymbl__engine_lock(transfer->engine);
        kind = nymbl__ring_put(&transfer->window, data, size);
        nymbl__engine_unlock(transfer->engine);
        transfer->dirty = true;
    }
    if (kind < 0)
        nymbl__transfer_failing(transfer, kind, reason);
}

static size_t body_arrived(char *data, size_t size, size_t count, void *payload)
{
    nymbl_transfer *transfer = payload;
    bool document = transfer->request.operation == NYMBL__DOWNLOAD &&
                    nymbl__verdict_is_success(transfer);

    size *= count;
    if (!transfer->head.done) { /* its head was not checked */
        nymbl__transfer_failing(transfer, NYMBL_PROTOCOL, "reply");
        return 0;
    }
    if (document && transfer->save == NULL) {
        bool full;

        nymbl__engine_lock(transfer->engine);
        full = nymbl__ring_room(&transfer->window) < size;
        transfer->receive_paused = full;
        nymbl__engine_unlock(transfer->engine);
        if (full) {
            transfer->engine->admit = true; /* it gives its place away */
            return CURL_WRITEFUNC_PAUSE;
        }
    }
    if (document)
        document_append(transfer, data, size);
    else
        reply_append(transfer, data, size);
    transfer->hop_received += (int64_t)size;
    nymbl__transfer_moved(transfer);
    return transfer->failing == NYMBL_OK && !transfer->cut ? size : 0;
}

/* libcurl's progress callback, the last one before a connection that ended is
 * let go. */
static int progress_made(void *payload, curl_off_t down_total, curl_off_t down,
                         curl_off_t up_total, curl_off_t up)
{
    nymbl_transfer *transfer = payload;
    const nymbl__reply_head *head = &transfer->head;

    (void)down_total;
    (void)down;
    (void)up_total;
    (void)up;
    if (head->done && head->length < 0 && !head->chunked && !transfer->end_told)
        transfer->end_told = nymbl__tls_has_ended(transfer->easy);
    return 0;
}

/* ---- on the wire ---- */

static nymbl_kind exchange_configure(nymbl_transfer *transfer)
{
    const nymbl__request *request = &transfer->request;
    CURL *easy = transfer->easy;
    /* The server may be closing an idle connection, which cannot be seen here.
     * An upload on it would end with an unknown outcome, so each upload makes a
     * new connection; its TLS session is resumed. */
    bool uploads = request->operation == NYMBL__UPLOAD;
    struct curl_slist *headers = transfer->foreign || request->secrets == NULL
                                     ? request->headers
                                     : request->secrets;
    CURLcode code = nymbl__client_apply(transfer->client, easy, request->url,
                                        request->proxy);

#define SET(option, value)                                                     \
    do {                                                                       \
        if (code == CURLE_OK)                                                  \
            code = curl_easy_setopt(easy, option, value);                      \
    } while (0)
    SET(CURLOPT_URL, request->url);
    SET(CURLOPT_PRIVATE, transfer);
    SET(CURLOPT_ERRORBUFFER, transfer->errors);
    SET(CURLOPT_HTTPHEADER, headers);
    SET(CURLOPT_PREREQFUNCTION, request_goes_out);
    SET(CURLOPT_PREREQDATA, transfer);
    SET(CURLOPT_OPENSOCKETFUNCTION, nymbl__socket_open);
    SET(CURLOPT_SOCKOPTFUNCTION, nymbl__socket_made);
    SET(CURLOPT_SOCKOPTDATA, transfer);
    SET(CURLOPT_CLOSESOCKETFUNCTION, nymbl__socket_closed);
    SET(CURLOPT_CLOSESOCKETDATA, transfer->engine);
    SET(CURLOPT_FRESH_CONNECT, transfer->fresh || uploads ? 1L : 0L);
    SET(CURLOPT_HEADERFUNCTION, nymbl__head_line);
    SET(CURLOPT_HEADERDATA, transfer);
    SET(CURLOPT_WRITEFUNCTION, body_arrived);
    SET(CURLOPT_WRITEDATA, transfer);
    switch (request->operation) {
    case NYMBL__TOKEN:
        transfer->reply.max = NYMBL__TOKEN_REPLY_MAX;
        SET(CURLOPT_POSTFIELDS, request->form);
        SET(CURLOPT_MAXAGE_CONN, NYMBL__FRESH_SECONDS);
        break;
    case NYMBL__UPLOAD:
        if (code == CURLE_OK &&
            nymbl__body_apply(transfer->body, &request->fields, easy,
                              &transfer->mime) < 0)
            code = CURLE_OUT_OF_MEMORY;
        SET(CURLOPT_EXPECT_100_TIMEOUT_MS, 200L);
        break;
    case NYMBL__DELETE:
        SET(CURLOPT_CUSTOMREQUEST, "DELETE");
        SET(CURLOPT_MAXAGE_CONN, NYMBL__FRESH_SECONDS);
        break;
    case NYMBL__DOWNLOAD:
        SET(CURLOPT_NOPROGRESS, 0L);
        SET(CURLOPT_XFERINFOFUNCTION, progress_made);
        SET(CURLOPT_XFERINFODATA, transfer);
        break;
    default:
        break;
    }
#undef SET
    return code == CURLE_OK ? NYMBL_OK : NYMBL_NO_MEMORY;
}

/* Take the easy handle off the wire: an exchange under way is cut. */
static void exchange_end(nymbl_transfer *transfer)
{
    if (transfer->easy != NULL) {
        curl_multi_remove_handle(transfer->engine->multi, transfer->easy);
        nymbl__engine_handle_return(transfer->engine, transfer->easy);
        transfer->easy = NULL;
    }
    curl_mime_free(transfer->mime);
    transfer->mime = NULL;
}

static void transfer_end(nymbl_transfer *transfer, nymbl_kind kind,
                         const char *reason);

void nymbl__transfer_begin(nymbl_transfer *transfer)
{
    nymbl_kind kind = NYMBL_NO_MEMORY;

    transfer->easy = nymbl__engine_handle(transfer->engine);
    if (transfer->easy != NULL)
        kind = exchange_configure(transfer);
    if (kind == NYMBL_OK && curl_multi_add_handle(transfer->engine->multi,
                                                  transfer->easy) != CURLM_OK)
        kind = NYMBL_NO_MEMORY;
    if (kind < 0)
        transfer_end(transfer, kind, NULL);
}

void nymbl__transfer_unpause(nymbl_transfer *transfer)
{
    CURLcode code = CURLE_OK;
    int mask = CURLPAUSE_CONT;
    bool resume;

    if (transfer->easy == NULL)
        return;
    nymbl__engine_lock(transfer->engine);
    resume = transfer->send_paused;
    if (transfer->window.size <= transfer->window.max / 2)
        transfer->receive_paused = false;
    if (transfer->body == NULL || nymbl__body_can_go_on(transfer->body))
        transfer->send_paused = false;
    if (transfer->receive_paused)
        mask |= CURLPAUSE_RECV;
    if (transfer->send_paused)
        mask |= CURLPAUSE_SEND;
    resume = resume && !transfer->send_paused;
    nymbl__engine_unlock(transfer->engine);
    /* libcurl notices the pause of a mime part only after it has sent what
     * stood before it, and ignores an end of the pause that comes sooner: the
     * upload would stand still. So it is paused for certain first. */
    if (resume)
        code = curl_easy_pause(transfer->easy, mask | CURLPAUSE_SEND);
    if (code == CURLE_OK)
        code = curl_easy_pause(transfer->easy, mask);
    if (code != CURLE_OK) /* bytes that it held back are lost */
        nymbl__transfer_abort(transfer, NYMBL_NO_MEMORY, NULL);
}

/* ---- the end ---- */

static void transfer_end(nymbl_transfer *transfer, nymbl_kind kind,
                         const char *reason)
{
    bool held = transfer->is_waiting || transfer->is_running;
    nymbl_error error = {
        .kind = kind,
        .status = transfer->head.done ? transfer->head.status
                                      : transfer->proxy_status,
        .reason = reason,
        .retry_after = transfer->head.retry_after,
    };

    if (transfer->over)
        return;
    transfer->over = true;
    error.outcome_unknown =
        kind < 0 && nymbl__verdict_is_unknown(transfer, kind);
    exchange_end(transfer);
    exchange_release(transfer, kind);
    nymbl__engine_forget(transfer->engine, transfer);
    nymbl__engine_lock(transfer->engine);
    transfer->error = error;
    transfer->ended = true;
    nymbl__engine_unlock(transfer->engine);
    nymbl__engine_news(transfer->engine, transfer);
    nymbl__lease_end(transfer);
    if (held)
        nymbl__transfer_release(transfer); /* the engine's reference */
}

void nymbl__transfer_abort(nymbl_transfer *transfer, nymbl_kind kind,
                           const char *reason)
{
    if (transfer->over)
        return;
    nymbl__transfer_failing(transfer, kind, reason);
    transfer_end(transfer, transfer->failing, transfer->failing_reason);
}

/* The next hop's URL, or why there is none. */
static nymbl_kind redirect_target(nymbl_transfer *transfer, char **out,
                                  const char **reason)
{
    const char *from = transfer->request.url;
    nymbl_kind kind;

    *reason = "location";
    if (transfer->head.location == NULL || *transfer->head.location == '\0')
        return NYMBL_REDIRECT;
    if (transfer->hops == NYMBL__REDIRECTS_MAX) {
        *reason = "too_many";
        return NYMBL_REDIRECT;
    }
    kind = nymbl__url_resolve(out, from, transfer->head.location);
    if (kind < 0)
        return kind;
    /* never down from https; http only where it was allowed from the start */
    if (!nymbl__url_is_https(*out) &&
        (nymbl__url_is_https(from) || !nymbl__url_same_origin(from, *out))) {
        nymbl__secret_free(*out);
        *out = NULL;
        *reason = "insecure";
        return NYMBL_REDIRECT;
    }
    return NYMBL_OK;
}

/* Go to where a download was sent. Once the origin has changed the credentials
 * stay behind, also when it changes back. */
static void redirect_follow(nymbl_transfer *transfer)
{
    const char *reason = NULL;
    char *url = NULL;
    nymbl_kind kind = redirect_target(transfer, &url, &reason);

    if (kind < 0) {
        transfer_end(transfer, kind, reason);
        return;
    }
    if (!nymbl__url_same_origin(transfer->request.url, url))
        transfer->foreign = true;
    nymbl__secret_free(transfer->request.url);
    transfer->request.url = url;
    transfer->hops++;
    exchange_end(transfer);
    nymbl__head_reset(&transfer->head);
    nymbl__buffer_free(&transfer->reply);
    transfer->reply.max = NYMBL__REPLY_MAX;
    transfer->hop_received = 0;
    transfer->sent_this_hop = false;
    transfer->cut = transfer->end_told = false;
    transfer->connect_time = transfer->idle_time = transfer->reply_time = 0;
    nymbl__transfer_begin(transfer);
}

void nymbl__transfer_confirmed(nymbl_transfer *transfer)
{
    nymbl__save *save = transfer->save;
    const char *reason = NULL;
    int64_t confirmed;
    nymbl_kind kind;

    nymbl__engine_lock(transfer->engine);
    confirmed = transfer->confirmed;
    nymbl__engine_unlock(transfer->engine);
    if (!transfer->parked ||
        (transfer->progress && confirmed != transfer->hop_received))
        return;
    transfer->save = NULL;
    kind = nymbl__save_commit(save, &reason);
    transfer_end(transfer, kind, reason);
}

/* Whether nothing went out, for a reason that a new connection may mend. */
static bool connection_is_due(nymbl_transfer *transfer, CURLcode code)
{
    if (transfer->failing != NYMBL_OK || transfer->sent_this_hop ||
        transfer->fresh)
        return false;
    /* libcurl's own limit runs while the host does other things: only ours
     * decides */
    return transfer->spoilt ||
           (code == CURLE_OPERATION_TIMEDOUT &&
            transfer->connect_time < transfer->client->connect_timeout / 2);
}

void nymbl__transfer_complete(nymbl_transfer *transfer, CURLcode code)
{
    const char *reason = NULL;
    nymbl_kind kind;

    if (connection_is_due(transfer, code)) { /* nothing went out: once more */
        transfer->fresh = true;
        exchange_end(transfer);
        nymbl__transfer_begin(transfer);
        return;
    }
    if (transfer->request.operation == NYMBL__DOWNLOAD &&
        transfer->failing == NYMBL_OK && transfer->head.done &&
        nymbl__verdict_is_redirect(transfer->head.status)) {
        redirect_follow(transfer);
        return;
    }
    kind = nymbl__verdict(transfer, code, &reason);
    if (kind < 0 || transfer->save == NULL) {
        transfer_end(transfer, kind, reason);
        return;
    }
    exchange_end(transfer);
    transfer->parked = true;
    transfer->references++; /* its owner may have let it go meanwhile */
    nymbl__transfer_confirmed(transfer);
    if (!transfer->over)
        nymbl__engine_news(transfer->engine, transfer);
    nymbl__transfer_release(transfer);
}
