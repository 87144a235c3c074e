/* SPDX-License-Identifier: MIT */
/* Scenarios with failing allocations, and the service. */
#include "scenario.h"

#include "engine/engine.h"
#include "engine/transfer.h"

#include <ctype.h>

#define TRIES_MAX 50000 /* no scenario has so many allocations */

scenario_scope scenario_scope_now;
static long failures;

/* ---- failing allocations ---- */

/* The number of the next allocation to fail. The first ones, in which a call
 * starts, are never left out. OpenSSL makes thousands in each connection. */
static long following(long nth)
{
    static const long some[] = {4, 23, 601}, all[] = {1, 1, 7};

    if (nth < 20)
        return nth + 1;
    return nth + (getenv("NYMBL_SPEC_LARGE") != NULL
                      ? all[scenario_scope_now]
                      : some[scenario_scope_now]);
}

static bool scenario_try(void (*prepare)(void), bool (*run)(void), long nth,
                         void (*arm)(long nth))
{
    bool struck, good;

    world_open(NULL);
    if (prepare != NULL)
        prepare();
    arm(nth);
    good = run();
    chaos_disarm();
    struck = chaos_struck();
    CHECK(good || struck);
    if (test_failed())
        printf("the allocation was number %ld%s\n", nth,
               arm == chaos_arm ? "" : " and later ones");
    world_close();
    return struck;
}

void scenario_repeat(void (*prepare)(void), bool (*run)(void))
{
    static void (*const ways[])(long) = {chaos_arm, chaos_arm_from};

    for (int way = 0; way < 2; way++) {
        long nth = 0;
        bool struck = true;

        while (struck && nth < TRIES_MAX && !test_failed()) {
            nth = following(nth);
            struck = scenario_try(prepare, run, nth, ways[way]);
            failures += struck;
        }
        CHECK(nth > 2 && nth < TRIES_MAX);
    }
    if (scenario_scope_now == SCENARIO_CORE) /* others do not wipe theirs */
        CHECK_NUMBER(chaos_secrets_left(), 0);
}

static bool (*first_run)(void);
static long first_nth;
static void (*first_arm)(long);

/* In a process that has no engine yet. Returns 2 if no allocation failed. */
static int first_try(void)
{
    bool good, struck;

    first_arm(first_nth);
    good = first_run();
    chaos_disarm();
    struck = chaos_struck();
    CHECK(good || struck);
    CHECK(first_run()); /* later it works */
    if (test_failed())
        printf("the allocation was number %ld%s\n", first_nth,
               first_arm == chaos_arm ? "" : " and later ones");
    return test_failed() ? 1 : struck ? 0 : 2;
}

void scenario_repeat_first(bool (*run)(void))
{
    static void (*const ways[])(long) = {chaos_arm, chaos_arm_from};

    first_run = run;
    for (int way = 0; way < 2; way++) {
        int result = 0;

        first_arm = ways[way];
        first_nth = 0;
        while (result == 0 && first_nth < TRIES_MAX) {
            first_nth = following(first_nth);
            result = world_run_in_child(first_try);
            failures += result == 0;
        }
        CHECK_NUMBER(result, 2);
        CHECK(first_nth > 2);
    }
}

static bool is_failure(nymbl_kind kind, const nymbl_error *err,
                       nymbl_kind wanted, const char *reason)
{
    return kind == wanted &&
           (err->reason == reason || (err->reason != NULL && reason != NULL &&
                                      strcmp(err->reason, reason) == 0));
}

void scenario_check_or(nymbl_kind kind, const nymbl_error *err,
                       nymbl_kind other, const char *reason)
{
    bool good = kind == NYMBL_NO_MEMORY;

    /* libcurl reports some of its failures as if they had another cause */
    if (scenario_scope_now > SCENARIO_CORE)
        good = good || is_failure(kind, err, NYMBL_NETWORK, "resolve") ||
               is_failure(kind, err, NYMBL_PROTOCOL, "head_too_long") ||
               is_failure(kind, err, other, reason);
    if (!CHECK(good))
        printf("it was: %s (%s)\n", nymbl_kind_name(kind),
               err->reason != NULL ? err->reason : "");
}

void scenario_check(nymbl_kind kind, const nymbl_error *err)
{
    scenario_check_or(kind, err, NYMBL_NO_MEMORY, NULL);
}

bool scenario_line_has_ended(nymbl_kind kind, const nymbl_error *err)
{
    return is_failure(kind, err, NYMBL_NETWORK, "reset");
}

/* ---- the service ---- */

static void drop(peer *peer)
{
    peer_close(peer);
}

void (*service_accept)(peer *) = peer_accept;
void (*service_drop)(peer *) = drop;

/* The size of the first request in these bytes; 0 if it is not complete. */
static size_t request_size(const text *in)
{
    static const char last[] = "\r\n0\r\n\r\n";
    const char *end = in->data == NULL ? NULL : strstr(in->data, "\r\n\r\n");
    const char *length;
    size_t size;

    if (end == NULL)
        return 0;
    size = (size_t)(end + 4 - in->data);
    length = strcasestr(in->data, "\r\nContent-Length:");
    if (length != NULL && length < end)
        size += strtoul(length + 17, NULL, 10);
    if (strcasestr(in->data, "\r\nTransfer-Encoding: chunked") != NULL)
        size = in->size >= sizeof(last) &&
                       strcmp(in->data + in->size - sizeof(last) + 1, last) == 0
                   ? in->size
                   : in->size + 1;
    return size <= in->size ? size : 0;
}

/* Take what has arrived on a connection, and respond if that is a request.
 * Returns whether anything has arrived. */
static bool service_take(service *self, peer *peer)
{
    bool fresh = peer->in.size == 0;
    size_t size;

    if (!peer_take(peer))
        return false;
    self->begun += fresh;
    size = request_size(&peer->in);
    if (size > 0) {
        const char *response = self->response;

        self->requests++;
        CHECK_NUMBER((long long)peer->in.size, (long long)size);
        text_free(&self->last);
        self->last = peer->in;
        peer->in = (text){0};
        if (self->respond != NULL)
            response = self->respond(self, self->last.data);
        if (response != NULL)
            peer_send_some(peer, response, strlen(response));
        self->responses += response != NULL;
    }
    return true;
}

/* Accept and take all that has arrived; returns whether there was anything. The
 * peer's own allocations succeed. */
static bool service_step(service *self)
{
    bool took = true, any = false;

    chaos_pause(true);
    while (took) {
        took = false;
        if (peer_waits()) {
            REQUIRE(self->connections < SERVICE_PEERS);
            service_accept(&self->peers[self->connections++]);
            took = true;
        }
        for (int i = 0; i < self->connections; i++)
            took = service_take(self, &self->peers[i]) || took;
        any = any || took;
    }
    chaos_pause(false);
    return any;
}

/* Whether bytes can be read. An I/O thread may write them. */
static bool is_readable(const nymbl_transfer *transfer)
{
    bool readable;

    nymbl__engine_lock(world.engine);
    readable = transfer->port.window.size > 0;
    nymbl__engine_unlock(world.engine);
    return readable;
}

nymbl_kind service_run(service *self, nymbl_kind started,
                       nymbl_transfer *transfer, nymbl_error *err)
{
    nymbl_kind kind = started == NYMBL_OK ? NYMBL_AGAIN : started;
    int idle = 0; /* steps without anything from the client */
    bool may_hang = scenario_scope_now == SCENARIO_OPENSSL;
    int steps = may_hang ? 4000 : 20000;

    for (int i = 0; i < steps && kind == NYMBL_AGAIN; i++) {
        nymbl_engine_pump(world.engine, idle < 3 ? 0 : 0.001);
        idle = service_step(self) ? 0 : idle + 1;
        kind = nymbl_transfer_result(transfer, err);
        if (kind == NYMBL_AGAIN && is_readable(transfer))
            break;
    }
    if (may_hang && kind == NYMBL_AGAIN && !is_readable(transfer)) {
        /* OpenSSL waits for bytes that have arrived */
        nymbl_transfer_cancel(transfer, NYMBL_TIMEOUT, NULL);
        kind = nymbl_transfer_result(transfer, err);
    }
    service_step(self);
    if (kind < 0)
        CHECK_NUMBER(err->kind, kind);
    if (kind == NYMBL_PROTOCOL) /* there must have been a response */
        CHECK(self->responses > 0 || self->gets_upload);
    return kind;
}

void service_next(service *self, nymbl_transfer **transfer)
{
    nymbl_transfer_free(*transfer);
    *transfer = NULL;
    self->begun = self->requests = self->responses = 0;
}

void service_close(service *self)
{
    chaos_pause(true);
    for (int i = 0; i < self->connections; i++)
        service_drop(&self->peers[i]);
    text_free(&self->last);
    chaos_pause(false);
}

void service_check_once(const service *self, nymbl_transfer *transfer,
                        nymbl_kind kind, const nymbl_error *err)
{
    if (transfer == NULL || !counts_of(transfer).sent)
        CHECK(self->begun == 0 && !err->outcome_unknown);
    CHECK(self->begun <= 1 && self->requests <= 1);
    if (kind == NYMBL_OK)
        CHECK_NUMBER(self->requests, 1);
    else if (self->requests > 0)
        CHECK(err->outcome_unknown);
}

bool service_received_form(const service *self, const char *form)
{
    const char *at =
        self->last.data == NULL ? NULL : strstr(self->last.data, "\r\n\r\n");
    const char *boundary =
        at == NULL ? NULL : strstr(self->last.data, "boundary=");
    size_t length;

    if (boundary == NULL || boundary > at)
        return false;
    boundary += strlen("boundary=");
    length = strcspn(boundary, "\r\n");
    for (at += 4; *form != '\0'; form++) {
        size_t size = *form == '*' ? length : 1;

        if (strncmp(at, *form == '*' ? boundary : form, size) != 0)
            return false;
        at += size;
    }
    return *at == '\0';
}

/* ---- all of them ---- */

int scenario_main(const test *tests, size_t count, int argc, char **argv)
{
    static const char *const scopes[] = {"core", "libcurl", "openssl"};
    int failed;

    for (int i = 0; argc > 1 && i < 3; i++) {
        if (strcmp(argv[1], scopes[i]) == 0) {
            scenario_scope_now = (scenario_scope)i;
            argc--;
            argv++;
        }
    }
    if (scenario_scope_now != SCENARIO_CORE)
        chaos_include_libcurl();
    failed = test_main(tests, count, argc, argv);
    printf("tried %ld failing allocations\n", failures);
    return failed;
}
