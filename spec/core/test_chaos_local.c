/* SPDX-License-Identifier: MIT */
/* Failing allocations without a request to the service: engine and client,
 * files, jobs, and a line. */
#include "scenario.h"

/* Check a failure of a function that reads URLs: if libcurl has no memory for
 * it, a URL looks invalid. */
static void check_made(nymbl_kind kind, const nymbl_error *err)
{
    const char *reason = err->reason != NULL ? err->reason : "";

    if (scenario_scope_now == SCENARIO_CORE || kind != NYMBL_MISUSE)
        scenario_check(kind, err);
    else
        CHECK(strcmp(reason, "base_url") == 0 ||
              strcmp(reason, "token_url") == 0 || strcmp(reason, "host") == 0);
}

/* A get with an engine of its own. */
static bool first_engine_works(void)
{
    service service = {.response =
                           "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"};
    nymbl_client_options options = {.api_key = "k", .allow_http = true};
    nymbl_transfer *transfer = NULL;
    nymbl_error err = {0};
    nymbl_kind kind;
    char url[64];

    world.listener = listener_open(&world.port, 8);
    snprintf(url, sizeof(url), "http://127.0.0.1:%d", world.port);
    options.base_url = url;
    kind = nymbl_engine_new(&world.engine, NULL, &err);
    if (kind == NYMBL_OK)
        kind = nymbl_client_new(&world.client, &options, &err);
    if (kind == NYMBL_OK)
        kind = nymbl_get_start(&transfer, world.engine, world.client, "t", "7",
                               "9", &err);
    if (world.engine != NULL)
        kind = service_run(&service, kind, transfer, &err);
    if (kind < 0)
        check_made(kind, &err);
    nymbl_transfer_free(transfer);
    nymbl_client_free(world.client);
    nymbl_engine_free(world.engine);
    service_close(&service);
    close(world.listener);
    memset(&world, 0, sizeof(world));
    return kind == NYMBL_OK;
}

static void first_engine_works_or_fails(void)
{
    scenario_repeat_first(first_engine_works);
}

static bool client_is_made(void)
{
    nymbl_client_options options = {.base_url = "https://a.b/",
                                    .api_key = "key-of-test",
                                    .token_url = "https://a.b/t",
                                    .client_id = "me",
                                    .client_secret = "secret-of-test",
                                    .scope = "x",
                                    .ca_file = "/dev/null",
                                    .ca_path = "/",
                                    .proxy = "q",
                                    .user_agent = "me"};
    nymbl_engine *engine = (nymbl_engine *)&options;
    nymbl_client *client = (nymbl_client *)&options;
    nymbl_transfer *transfer = NULL;
    nymbl_error err = {0};
    nymbl_kind kind = nymbl_engine_new(&engine, NULL, &err);

    if (kind == NYMBL_OK) {
        kind = nymbl_client_new(&client, &options, &err);
        CHECK((kind == NYMBL_OK) == (client != NULL));
        if (kind == NYMBL_OK)
            kind = nymbl_token_start(&transfer, engine, client, &err);
        if (client != NULL)
            CHECK((kind == NYMBL_OK) == (transfer != NULL));
        nymbl_transfer_free(transfer);
        nymbl_client_free(client);
    } else {
        CHECK(engine == NULL);
    }
    nymbl_engine_free(engine);
    if (kind < 0) {
        check_made(kind, &err);
        CHECK_NUMBER(err.kind, kind);
    }
    return kind == NYMBL_OK;
}

static bool file_becomes_a_body(void)
{
    static const char *const paths[] = {"/proc/self/status", NULL};
    nymbl_body *body;
    nymbl_error err = {0};
    nymbl_kind kind = NYMBL_OK;

    world_write("a.pdf", "%PDF-1.7 x", 10);
    for (int i = 0; i < 2 && kind == NYMBL_OK; i++) {
        const char *path = paths[i] != NULL ? paths[i] : world_path("a.pdf");

        kind = nymbl_body_from_path(&body, path, &err);
        CHECK((kind == NYMBL_OK) == (body != NULL));
        if (kind == NYMBL_OK)
            CHECK(nymbl_body_size(body) > 0);
        nymbl_body_free(body);
    }
    if (kind < 0) {
        CHECK_NUMBER(kind, NYMBL_NO_MEMORY);
        CHECK_NUMBER(err.kind, kind);
    }
    return kind == NYMBL_OK;
}

static bool store_is_written_and_replaced(void)
{
    nymbl_store *store = NULL, *other = NULL;
    nymbl_store_holder holder = {0};
    nymbl_error err = {0};
    size_t size;
    nymbl_kind kind = nymbl_store_open(&store, world_path("store"), NULL, &err);

    if (kind == NYMBL_OK)
        kind = nymbl_store_write(store, "token-of-test", 13, &err);
    nymbl_store_close(store);
    store = NULL;
    if (kind == NYMBL_OK)
        kind = nymbl_store_open(&store, world_path("store"), NULL, &err);
    if (kind == NYMBL_OK) {
        CHECK_TEXT(nymbl_store_content(store, &size), "token-of-test");
        kind = nymbl_store_open(&other, world_path("store"), &holder, &err);
        CHECK(kind == NYMBL_AGAIN || kind == NYMBL_NO_MEMORY);
        CHECK(other == NULL);
    }
    if (kind == NYMBL_AGAIN)
        kind = nymbl_store_break_lock(world_path("store"), holder.fingerprint,
                                      &err);
    nymbl_store_close(store);
    if (kind < 0)
        CHECK(kind == NYMBL_NO_MEMORY && err.kind == NYMBL_NO_MEMORY);
    return kind == NYMBL_OK;
}

static nymbl_kind job_end(nymbl_kind started, nymbl_transfer **job,
                          nymbl_error *err)
{
    nymbl_kind kind = started;

    for (int i = 0; i < 20000 && (kind == NYMBL_AGAIN || i == 0); i++) {
        if (started < 0)
            break;
        nymbl_engine_pump(world.engine, 0.001);
        kind = nymbl_transfer_result(*job, err);
    }
    if (kind < 0)
        CHECK(kind == NYMBL_NO_MEMORY && err->kind == NYMBL_NO_MEMORY);
    return kind;
}

static bool jobs_succeed(void)
{
    const char *path = world_path("patient-of-test");
    nymbl_transfer *digest = NULL, *sync = NULL, *directory = NULL;
    nymbl_directory_entry entry;
    nymbl_error err = {0};
    nymbl_kind kind;

    world_write("patient-of-test", "bytes-of-test", 13);
    kind = job_end(nymbl_digest_start(&digest, world.engine, path, &err),
                   &digest, &err);
    if (kind == NYMBL_OK)
        CHECK_NUMBER(nymbl_transfer_digest(digest)->size, 13);
    if (kind == NYMBL_OK)
        kind = job_end(nymbl_sync_start(&sync, world.engine, path, &err), &sync,
                       &err);
    if (kind == NYMBL_OK)
        kind = job_end(
            nymbl_directory_start(&directory, world.engine, world.dir, 0, &err),
            &directory, &err);
    if (kind == NYMBL_OK) {
        CHECK(nymbl_transfer_next_entry(directory, &entry));
        CHECK_TEXT(entry.name, "patient-of-test");
        CHECK(!nymbl_transfer_next_entry(directory, &entry));
    }
    nymbl_transfer_free(digest);
    nymbl_transfer_free(sync);
    nymbl_transfer_free(directory);
    return kind == NYMBL_OK;
}

/* A line with a greeting, a request whose reply is awaited, and one whose reply
 * is dropped. */
static bool line_is_answered(void)
{
    nymbl_line_options options = {.host = "127.0.0.1",
                                  .port = world.port,
                                  .ca_file = "/dev/null",
                                  .greeting = "secret-of-test",
                                  .greeting_size = 14,
                                  .greeting_replies = 1};
    nymbl_transfer *transfer = NULL;
    nymbl_line *line = NULL;
    nymbl_error err = {0};
    peer peer = {.fd = -1};
    size_t size, answered = 0;
    nymbl_kind kind = nymbl_line_new(&line, world.engine, &options, &err);

    if (kind == NYMBL_OK)
        kind = nymbl_line_start(&transfer, line, "token-of-test", 13, &err);
    if (kind == NYMBL_OK)
        kind = nymbl_line_send(line, "bytes-of-test", 13, &err);
    if (kind == NYMBL_OK)
        kind = NYMBL_AGAIN;
    for (int i = 0; i < 20000 && kind == NYMBL_AGAIN; i++) {
        nymbl_engine_pump(world.engine, 0.001);
        if (peer.fd < 0 && peer_waits())
            peer_accept(&peer);
        if (peer.fd >= 0)
            peer_take(&peer);
        if (answered < 2 && peer.in.size >= (answered == 0 ? 14 : 27)) {
            const char *reply =
                answered++ == 0 ? "+OK\r\n" : "+secret-of-test\r\n";

            peer_send_some(&peer, reply, strlen(reply));
        }
        kind = nymbl_transfer_result(transfer, &err);
    }
    if (kind == NYMBL_OK)
        CHECK_TEXT(nymbl_transfer_body(transfer, &size), "+secret-of-test\r\n");
    else if (scenario_line_has_ended(kind, &err))
        CHECK(chaos_struck());
    else
        check_made(kind, &err);
    nymbl_transfer_free(transfer);
    nymbl_line_free(line);
    peer_close(&peer);
    return kind == NYMBL_OK;
}

SCENARIO(client_is_made)
SCENARIO(file_becomes_a_body)
SCENARIO(store_is_written_and_replaced)
SCENARIO(jobs_succeed)
SCENARIO(line_is_answered)

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(first_engine_works_or_fails), /* before any other engine */
        TEST(client_is_made_or_fails),
        TEST(file_becomes_a_body_or_fails),
        TEST(store_is_written_and_replaced_or_fails),
        TEST(jobs_succeed_or_fails),
        TEST(line_is_answered_or_fails),
    };

    return scenario_main(tests, TEST_COUNT(tests), argc, argv);
}
