/* SPDX-License-Identifier: MIT */
/* The engine's libcurl handles: the multi handle, and easy handles that are
 * reused. */
#include "engine/connections.h"

#include "base/fd.h"
#include "engine/transfer.h"
#include "exchange/quirks.h"
#include "exchange/url.h"

/* Close all connections and replace the handles, which may be NULL. */
static void connections_set(nymbl_engine *engine, CURLM *multi, CURLSH *share)
{
    CURLM *old = engine->multi;

    nymbl__engine_lock(engine);
    engine->multi = multi;
    nymbl__engine_unlock(engine);
    while (engine->idle_count > 0)
        curl_easy_cleanup(engine->idle[--engine->idle_count]);
    curl_multi_cleanup(old);
    curl_share_cleanup(engine->share);
    engine->share = share;
    /* a wakeup may have been sent to the old multi handle */
    if (engine->mutex->threaded && multi != NULL &&
        curl_multi_wakeup(multi) != CURLM_OK) {
        nymbl__engine_lock(engine);
        engine->wake_failed = true;
        nymbl__engine_unlock(engine);
    }
}

nymbl_kind nymbl__connections_open(nymbl_engine *engine)
{
    CURLM *multi;
    CURLSH *share;

    nymbl__fd_reserve_stdio(); /* the handle opens sockets for its wakeup */
    multi = curl_multi_init();
    share = curl_share_init();
    /* If no descriptor was left, the handle has no wakeup. */
    if (multi == NULL || share == NULL ||
        curl_multi_wakeup(multi) != CURLM_OK) {
        bool no_memory = multi == NULL || share == NULL;

        curl_multi_cleanup(multi);
        curl_share_cleanup(share);
        return no_memory ? NYMBL_NO_MEMORY : NYMBL_IO;
    }
    curl_multi_poll(multi, NULL, 0, 0, NULL); /* drain the test wakeup */
    /* HTTP/1.1 only: a paused HTTP/2 stream stops the others */
    curl_multi_setopt(multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    curl_share_setopt(share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
    connections_set(engine, multi, share);
    engine->handles_serve_once = nymbl__quirks_handle_is_single_use();
    return NYMBL_OK;
}

void nymbl__connections_close(nymbl_engine *engine)
{
    connections_set(engine, NULL, NULL);
}

CURL *nymbl__connections_get_handle(nymbl_engine *engine)
{
    CURL *easy = engine->idle_count > 0 ? engine->idle[--engine->idle_count]
                                        : curl_easy_init();

    if (easy != NULL)
        curl_easy_setopt(easy, CURLOPT_SHARE, engine->share);
    return easy;
}

void nymbl__connections_return_handle(nymbl_engine *engine, CURL *easy)
{
    if (engine->multi == NULL || engine->handles_serve_once ||
        engine->idle_count == NYMBL__IDLE_HANDLES) {
        curl_easy_cleanup(easy);
        return;
    }
    curl_easy_reset(easy);
    engine->idle[engine->idle_count++] = easy;
}

static bool origin_is_used(uint64_t origin, void *payload)
{
    nymbl_engine *engine = payload;
    bool used = nymbl__client_any_uses(engine, origin);

    for (nymbl_transfer *t = engine->running.first; t != NULL && !used;
         t = t->next)
        used = nymbl__url_origin_hash(t->exchange.request.url) == origin;
    return used;
}

void nymbl__connections_close_unused(nymbl_engine *engine)
{
    nymbl__sockets_shutdown_unused(&engine->sockets, origin_is_used, engine);
}
