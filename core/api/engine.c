/* SPDX-License-Identifier: MIT */
/* The public functions of an engine. */
#include "nymbl.h"

#include "base/error.h"
#include "base/process.h"
#include "engine/connections.h"
#include "engine/lines.h"
#include "engine/notify.h"
#include "engine/pump.h"
#include "engine/thread.h"

static pthread_once_t global_once = PTHREAD_ONCE_INIT;

/* There is no curl_global_cleanup(), because libcurl's resolver threads may run
 * longer than any engine exists. */
static void global_init(void)
{
    nymbl__process_init();
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

nymbl_kind nymbl_engine_new(nymbl_engine **out,
                            const nymbl_engine_options *options,
                            nymbl_error *err)
{
    nymbl_engine *engine;
    nymbl_kind kind;

    *out = NULL;
    pthread_once(&global_once, global_init);
    kind = nymbl__engine_create(&engine);
    if (kind < 0)
        return nymbl__error_set(err, kind, NULL);
    if (options != NULL && options->clock != NULL) {
        engine->clock = options->clock;
        engine->payload = options->payload;
    }
    kind = nymbl__connections_open(engine);
    if (kind < 0) {
        nymbl__engine_release(engine);
        return nymbl__error_set(
            err, kind, kind == NYMBL_IO ? nymbl__reason_too_many_files : NULL);
    }
    *out = engine;
    return NYMBL_OK;
}

nymbl_kind nymbl_engine_pump(nymbl_engine *engine, double timeout)
{
    if (!nymbl_engine_in_this_process(engine) || engine->closed)
        return NYMBL_MISUSE;
    if (nymbl__engine_is_threaded(engine)) {
        nymbl__thread_wait(engine, timeout);
        return NYMBL_OK;
    }
    engine->callers_notified = false;
    nymbl__pump_pass(engine, timeout);
    return NYMBL_OK;
}

void nymbl_engine_free(nymbl_engine *engine)
{
    if (engine == NULL)
        return;
    if (nymbl_engine_in_this_process(engine)) {
        nymbl__thread_stop(engine);
        if (!engine->closed) {
            nymbl__pump_commands(engine);
            nymbl__lines_close(engine);
            nymbl__pump_cancel(engine, NULL);
            nymbl__connections_close(engine);
            engine->closed = true;
        }
        nymbl__notify_close(engine);
    }
    nymbl__engine_release(engine);
}
