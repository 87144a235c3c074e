/* SPDX-License-Identifier: MIT */
/* Each scenario runs with its first allocation failing, then its second, and so
 * on until it completes. It must fail cleanly, and a success must be correct.
 * With the argument "libcurl" the allocations of libcurl fail, too. */
#define NYMBL_CHAOS_ITSELF
#include "chaos.h"
#include "engine/engine.h"
#include "engine/transfer.h"
#include "peer.h"

#define BODY "bytes-of-test, of which there are a few more than thirty-two"
#define PATIENT "patient-of-test"

static bool all; /* libcurl's allocations count */
static long failures;

/* Whether bytes can be read. An I/O thread may write them. */
static bool is_readable(const nymbl_transfer *transfer)
{
    bool readable;

    nymbl__engine_lock(world.engine);
    readable = transfer->port.window.size > 0;
    nymbl__engine_unlock(world.engine);
    return readable;
}

/* Serve one request with this response until the transfer has ended. */
static nymbl_kind serve(nymbl_transfer *transfer, const char *response,
                        const char *must_hold, nymbl_error *err)
{
    nymbl_kind kind = NYMBL_AGAIN;
    peer peer = {.fd = -1};
    bool replied = false;

    for (int i = 0; i < 20000 && kind == NYMBL_AGAIN; i++) {
        nymbl_engine_pump(world.engine, 0.001);
        if (peer.fd < 0 && peer_waits())
            peer_accept(&peer);
        if (peer.fd >= 0)
            peer_take(&peer);
        if (!replied && peer.in.size > 0 &&
            strstr(peer.in.data, must_hold) != NULL) {
            peer_send_some(&peer, response, strlen(response));
            replied = true;
        }
        kind = nymbl_transfer_result(transfer, err);
        if (kind == NYMBL_AGAIN && is_readable(transfer))
            break;
    }
    peer_close(&peer);
    return kind;
}

/* The allowed failures: a lack of memory, or libcurl's error for it. */
static void check_kind(nymbl_kind kind)
{
    if (!CHECK(kind == NYMBL_NO_MEMORY || (all && kind < 0)))
        printf("it was: %s\n", nymbl_kind_name(kind));
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
        check_kind(kind);
        CHECK(all || err.kind == kind);
    }
    return kind == NYMBL_OK;
}

static bool upload_succeeds(void)
{
    nymbl_upload_options options = {.file_name = "a.pdf",
                                    .content_type = "application/pdf",
                                    .document_type = "Referral",
                                    .description = "x"};
    nymbl_body *body;
    nymbl_transfer *transfer = NULL;
    nymbl_error err = {0};
    nymbl_kind kind =
        nymbl_body_from_bytes(&body, BODY, sizeof(BODY) - 1, &err);
    size_t size;

    if (kind == NYMBL_OK)
        kind =
            nymbl_upload_start(&transfer, world.engine, world.client,
                               "token-of-test", PATIENT, body, &options, &err);
    if (kind == NYMBL_OK) {
        kind = serve(transfer,
                     "HTTP/1.1 201 x\r\nContent-Length: 8\r\n\r\n{\"id\":1}",
                     "name=\"description\"", &err);
        if (kind == NYMBL_OK)
            CHECK_TEXT(nymbl_transfer_body(transfer, &size), "{\"id\":1}");
    }
    if (kind < 0)
        check_kind(kind);
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    return kind == NYMBL_OK;
}

static bool stream_upload_succeeds(void)
{
    nymbl_upload_options options = {.file_name = "a.pdf",
                                    .content_type = "application/pdf",
                                    .is_rewindable = true};
    nymbl_body *body;
    nymbl_transfer *transfer = NULL;
    nymbl_error err = {0};
    size_t taken = 0;
    nymbl_kind kind = nymbl_body_stream(&body, -1, &err);

    if (kind == NYMBL_OK) {
        kind = nymbl_body_write(body, BODY, sizeof(BODY) - 1, &taken);
        if (kind == NYMBL_OK)
            nymbl_body_finish(body);
        kind =
            nymbl_upload_start(&transfer, world.engine, world.client,
                               "token-of-test", PATIENT, body, &options, &err);
    }
    if (kind == NYMBL_OK)
        kind = serve(transfer, "HTTP/1.1 201 x\r\nContent-Length: 2\r\n\r\n{}",
                     "thirty-two", &err);
    if (kind < 0)
        check_kind(kind);
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    return kind == NYMBL_OK;
}

#define DOCUMENT                                                               \
    "HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\n"                     \
    "Retry-After: 1\r\nTransfer-Encoding: chunked\r\n\r\n"                     \
    "3c\r\n" BODY "\r\n0\r\n\r\n"

/* Download to a path that leads to the file "doc"; then there are so many
 * names. */
static bool download_succeeds(const nymbl_download_options *options, int names)
{
    nymbl_transfer *transfer = NULL;
    nymbl_error err = {0};
    nymbl_kind kind;
    text got;

    kind = nymbl_download_start(&transfer, world.engine, world.client,
                                "token-of-test", PATIENT, "9", options, &err);
    if (kind == NYMBL_OK)
        kind = serve(transfer, DOCUMENT, "\r\n\r\n", &err);
    if (kind < 0)
        check_kind(kind);
    nymbl_transfer_free(transfer);
    got = world_read("doc");
    CHECK_TEXT(got.data, kind == NYMBL_OK ? BODY : "old");
    text_free(&got);
    CHECK_NUMBER(world_names(), names);
    return kind == NYMBL_OK;
}

static bool download_to_a_path_succeeds(void)
{
    nymbl_download_options options = {.path = world_path("doc")};

    world_write("doc", "old", 3);
    return download_succeeds(&options, 1);
}

/* To a partial file, at a path that is a link. */
static bool resumable_download_succeeds(void)
{
    nymbl_download_options options = {.path = world_path("link"),
                                      .resume = true};

    world_write("doc", "old", 3);
    CHECK(symlink("doc", options.path) == 0);
    return download_succeeds(&options, 2);
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

static bool download_by_reading_succeeds(void)
{
    nymbl_transfer *transfer = NULL;
    nymbl_error err = {0};
    text got = {0};
    nymbl_kind kind =
        nymbl_download_start(&transfer, world.engine, world.client,
                             "token-of-test", PATIENT, "9", NULL, &err);

    if (kind == NYMBL_OK) {
        kind = serve(transfer, DOCUMENT, "\r\n\r\n", &err);
        if (kind == NYMBL_AGAIN || kind == NYMBL_OK)
            kind = read_all(transfer, &got, &err);
    }
    if (kind < 0)
        check_kind(kind);
    else
        CHECK_TEXT(got.data, BODY);
    text_free(&got);
    nymbl_transfer_free(transfer);
    return kind == NYMBL_DONE;
}

static bool redirect_is_refused(const char *response)
{
    nymbl_transfer *transfer = NULL;
    nymbl_error err = {0};
    nymbl_kind kind =
        nymbl_download_start(&transfer, world.engine, world.client,
                             "token-of-test", PATIENT, "9", NULL, &err);

    if (kind == NYMBL_OK)
        kind = serve(transfer, response, "\r\n\r\n", &err);
    CHECK(kind < 0);
    if (kind != NYMBL_REDIRECT)
        check_kind(kind);
    nymbl_transfer_free(transfer);
    return kind == NYMBL_REDIRECT;
}

static bool redirected_download_succeeds(void)
{
    return redirect_is_refused("HTTP/1.1 302 x\r\nLocation: https://u@x/\r\n"
                               "Content-Length: 0\r\n\r\n");
}

/* Its URL and the document's fields must not remain in memory. */
static bool signed_url_succeeds(void)
{
    return redirect_is_refused(
        "HTTP/1.1 103 x\r\nLocation: https://x/signed-of-test\r\n\r\n"
        "HTTP/1.1 302 x\r\nX-Other: patient-of-test\r\n"
        "ETag: \"patient-of-test\"\r\nContent-Type: secret-of-test\r\n"
        "Location: http://127.0.0.1:1/x?signature=signed-of-test\r\n"
        "Content-Length: 0\r\n\r\n");
}

static bool listing_succeeds(void)
{
    nymbl_list_options options = {.filter = "a eq 1", .top = 5, .count = true};
    nymbl_transfer *transfer = NULL;
    nymbl_error err = {0};
    nymbl_kind kind =
        nymbl_list_start(&transfer, world.engine, world.client, "token-of-test",
                         PATIENT, &options, &err);
    size_t size;

    if (kind == NYMBL_OK) {
        kind = serve(transfer,
                     "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n"
                     "bytes-of-test",
                     "\r\n\r\n", &err);
        if (kind == NYMBL_OK)
            CHECK_TEXT(nymbl_transfer_body(transfer, &size), "bytes-of-test");
    }
    if (kind < 0)
        check_kind(kind);
    nymbl_transfer_free(transfer);
    return kind == NYMBL_OK;
}

static bool next_page_succeeds(void)
{
    nymbl_list_options options = {.next_link = "?page=2"};
    nymbl_transfer *transfer = NULL;
    nymbl_error err = {0};
    nymbl_kind kind =
        nymbl_list_start(&transfer, world.engine, world.client, "token-of-test",
                         PATIENT, &options, &err);

    if (kind == NYMBL_OK)
        kind = serve(transfer, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                     "\r\n\r\n", &err);
    if (kind < 0 && kind != NYMBL_REDIRECT)
        check_kind(kind);
    CHECK(all || kind != NYMBL_REDIRECT);
    nymbl_transfer_free(transfer);
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
        kind = nymbl_line_send(line, "bytes-of-test", 13, NULL);
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
    else
        check_kind(kind);
    nymbl_transfer_free(transfer);
    nymbl_line_free(line);
    peer_close(&peer);
    return kind == NYMBL_OK;
}

/* Fail the nth allocation of a scenario, or that and all later ones, for every
 * n. */
static void scenario_fail(bool (*run)(void), void (*arm)(long nth))
{
    bool struck = true;
    long nth;

    for (nth = 1; struck && nth < 5000 && !test_failed(); nth++) {
        bool good;

        world_open(NULL);
        arm(nth);
        good = run();
        struck = chaos_struck();
        chaos_arm(0);
        failures += struck;
        CHECK(good || struck);
        if (test_failed())
            printf("the allocation was number %ld%s\n", nth,
                   arm == chaos_arm ? "" : " and later ones");
        world_close();
    }
    CHECK(nth > 2 && nth < 5000);
}

static void scenario_repeat(bool (*run)(void))
{
    scenario_fail(run, chaos_arm);
    scenario_fail(run, chaos_arm_from);
    if (!all) /* libcurl does not wipe its own blocks */
        CHECK_NUMBER(chaos_secrets_left(), 0);
}

#define SCENARIO(name)                                                         \
    static void name##_or_fails(void)                                          \
    {                                                                          \
        scenario_repeat(name);                                                 \
    }

SCENARIO(client_is_made)
SCENARIO(upload_succeeds)
SCENARIO(stream_upload_succeeds)
SCENARIO(download_to_a_path_succeeds)
SCENARIO(resumable_download_succeeds)
SCENARIO(file_becomes_a_body)
SCENARIO(download_by_reading_succeeds)
SCENARIO(redirected_download_succeeds)
SCENARIO(signed_url_succeeds)
SCENARIO(listing_succeeds)
SCENARIO(next_page_succeeds)
SCENARIO(store_is_written_and_replaced)
SCENARIO(jobs_succeed)
SCENARIO(line_is_answered)

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(client_is_made_or_fails),
        TEST(upload_succeeds_or_fails),
        TEST(stream_upload_succeeds_or_fails),
        TEST(download_to_a_path_succeeds_or_fails),
        TEST(resumable_download_succeeds_or_fails),
        TEST(file_becomes_a_body_or_fails),
        TEST(download_by_reading_succeeds_or_fails),
        TEST(redirected_download_succeeds_or_fails),
        TEST(signed_url_succeeds_or_fails),
        TEST(listing_succeeds_or_fails),
        TEST(next_page_succeeds_or_fails),
        TEST(store_is_written_and_replaced_or_fails),
        TEST(jobs_succeed_or_fails),
        TEST(line_is_answered_or_fails),
    };

    int failed;

    if (argc > 1 && strcmp(argv[1], "libcurl") == 0) {
        all = true;
        curl_global_init_mem(CURL_GLOBAL_DEFAULT, chaos_malloc, chaos_free,
                             chaos_realloc, chaos_strdup, chaos_calloc);
        argc--;
        argv++;
    }
    failed = test_main(tests, TEST_COUNT(tests), argc, argv);
    printf("tried %ld failing allocations\n", failures);
    return failed;
}
