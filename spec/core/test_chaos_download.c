/* SPDX-License-Identifier: MIT */
/* Failing allocations in downloads: a file is complete, or as it was. */
#include "scenario.h"

#define DOCUMENT                                                               \
    "HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\n"                     \
    "Retry-After: 1\r\nTransfer-Encoding: chunked\r\n\r\n"                     \
    "3c\r\n" BODY "\r\n0\r\n\r\n"

static nymbl_kind download_start(nymbl_transfer **out,
                                 const nymbl_download_options *options,
                                 nymbl_error *err)
{
    return nymbl_download_start(out, world.engine, world.client,
                                "token-of-test", PATIENT, "9", options, err);
}

/* Download to a path that leads to the file "doc", whose content was "old". */
static bool download_succeeds(const nymbl_download_options *options,
                              service *service)
{
    char sha256[65];
    nymbl_transfer *transfer = NULL;
    nymbl_error err = {0};
    nymbl_kind kind = download_start(&transfer, options, &err);

    kind = service_run(service, kind, transfer, &err);
    if (kind < 0)
        scenario_check(kind, &err);
    if (kind == NYMBL_OK && options->sha256) {
        nymbl_sha256(sha256, BODY, sizeof(BODY) - 1);
        CHECK_TEXT(nymbl_transfer_sha256(transfer), sha256);
    }
    nymbl_transfer_free(transfer);
    if (kind == NYMBL_OK)
        CHECK(world_file_is("doc", BODY, sizeof(BODY) - 1));
    else
        CHECK(world_file_is("doc", "old", 3));
    service_close(service);
    return kind == NYMBL_OK;
}

static void old_write(void)
{
    world_write("doc", "old", 3);
}

static bool download_to_a_path_succeeds(void)
{
    nymbl_download_options options = {.path = world_path("doc"),
                                      .sha256 = true};
    service service = {.response = DOCUMENT};
    bool good = download_succeeds(&options, &service);

    CHECK_NUMBER(world_names(), 1);
    return good;
}

static void link_write(void)
{
    old_write();
    CHECK(symlink("doc", world_path("link")) == 0);
}

/* To a partial file, at a path that is a link. */
static bool resumable_download_succeeds(void)
{
    nymbl_download_options options = {.path = world_path("link"),
                                      .resume = true};
    service service = {.response = DOCUMENT};
    bool good = download_succeeds(&options, &service);

    CHECK_NUMBER(world_names(), 2);
    return good;
}

/* The part that follows, or the whole document. */
static const char *continuation(const service *self, const char *request)
{
    static char response[256];
    const char *range = strcasestr(request, "\r\nRange: bytes=");
    size_t from = range == NULL ? 0 : strtoul(range + 15, NULL, 10);
    size_t size = sizeof(BODY) - 1;

    (void)self;
    if (range != NULL)
        CHECK(strcasestr(request, "\r\nIf-Range: \"v1\"\r\n") != NULL);
    CHECK(from < size);
    if (range == NULL)
        snprintf(response, sizeof(response),
                 "HTTP/1.1 200 OK\r\nETag: \"v1\"\r\n"
                 "Content-Type: application/pdf\r\n"
                 "Content-Length: %zu\r\n\r\n" BODY,
                 size);
    else
        snprintf(response, sizeof(response),
                 "HTTP/1.1 206 P\r\nETag: \"v1\"\r\n"
                 "Content-Type: application/pdf\r\n"
                 "Content-Range: bytes %zu-%zu/%zu\r\n"
                 "Content-Length: %zu\r\n\r\n%s",
                 from, size - 1, size, size - from, &BODY[from]);
    return response;
}

/* Leave a partial file of the first 20 bytes. */
static void part_write(void)
{
    nymbl_download_options options = {.path = world_path("doc"),
                                      .resume = true};
    nymbl_transfer *transfer = NULL;
    nymbl_error err = {0};
    peer peer;

    old_write();
    REQUIRE(download_start(&transfer, &options, &err) == NYMBL_OK);
    accept_request(transfer, &peer);
    peer_say(&peer, "HTTP/1.1 200 OK\r\nETag: \"v1\"\r\n"
                    "Content-Type: application/pdf\r\n"
                    "Content-Length: 60\r\n\r\nbytes-of-test, of wh");
    world_settle();
    peer_close(&peer);
    CHECK_NUMBER(ended(transfer, &err), NYMBL_TRUNCATED);
    nymbl_transfer_free(transfer);
    CHECK_NUMBER(world_names(), 3);
}

/* If it fails, it succeeds the next time. */
static bool continued_download_succeeds(void)
{
    nymbl_download_options options = {
        .path = world_path("doc"), .resume = true, .sha256 = true};
    service service = {.respond = continuation};
    struct service later = {.respond = continuation};
    bool good = download_succeeds(&options, &service);

    if (good || scenario_scope_now == SCENARIO_CORE)
        CHECK_NUMBER(world_names(), good ? 1 : 3); /* the part is kept */
    if (!good) {
        chaos_disarm();
        CHECK(download_succeeds(&options, &later));
        CHECK_NUMBER(world_names(), 1);
    }
    return good;
}

static const char *redirect(const service *self, const char *request)
{
    (void)request;
    return self->requests == 1
               ? "HTTP/1.1 302 x\r\nLocation: /v1/other?signed-of-test\r\n"
                 "Content-Length: 0\r\n\r\n"
               : DOCUMENT;
}

static bool document_is_read(service *service)
{
    nymbl_transfer *transfer = NULL;
    nymbl_error err = {0};
    text got = {0};
    nymbl_kind kind = download_start(&transfer, NULL, &err);

    kind = service_run(service, kind, transfer, &err);
    if (kind == NYMBL_AGAIN || kind == NYMBL_OK)
        kind = read_all(transfer, &got, &err);
    if (kind == NYMBL_DONE)
        CHECK_TEXT(got.data, BODY);
    else if (service->respond == redirect)
        scenario_check_or(kind, &err, NYMBL_REDIRECT, err.reason);
    else
        scenario_check(kind, &err);
    text_free(&got);
    nymbl_transfer_free(transfer);
    service_close(service);
    return kind == NYMBL_DONE;
}

static bool download_by_reading_succeeds(void)
{
    service service = {.response = DOCUMENT};

    return document_is_read(&service);
}

static bool redirected_download_succeeds(void)
{
    service service = {.respond = redirect};

    return document_is_read(&service);
}

static bool redirect_is_refused(const char *response)
{
    service service = {.response = response};
    nymbl_transfer *transfer = NULL;
    nymbl_error err = {0};
    nymbl_kind kind = download_start(&transfer, NULL, &err);

    kind = service_run(&service, kind, transfer, &err);
    CHECK(kind < 0);
    if (kind != NYMBL_REDIRECT)
        scenario_check(kind, &err);
    nymbl_transfer_free(transfer);
    service_close(&service);
    return kind == NYMBL_REDIRECT;
}

static bool redirect_with_a_user_is_refused(void)
{
    return redirect_is_refused("HTTP/1.1 302 x\r\nLocation: https://u@x/\r\n"
                               "Content-Length: 0\r\n\r\n");
}

/* Its URL and the document's fields must not remain in memory. */
static bool signed_url_is_refused(void)
{
    return redirect_is_refused(
        "HTTP/1.1 103 x\r\nLocation: https://x/signed-of-test\r\n\r\n"
        "HTTP/1.1 302 x\r\nX-Other: patient-of-test\r\n"
        "ETag: \"patient-of-test\"\r\nContent-Type: secret-of-test\r\n"
        "Location: http://127.0.0.1:1/x?signature=signed-of-test\r\n"
        "Content-Length: 0\r\n\r\n");
}

SCENARIO_PREPARED(old_write, download_to_a_path_succeeds)
SCENARIO_PREPARED(link_write, resumable_download_succeeds)
SCENARIO_PREPARED(part_write, continued_download_succeeds)
SCENARIO(download_by_reading_succeeds)
SCENARIO(redirected_download_succeeds)
SCENARIO(redirect_with_a_user_is_refused)
SCENARIO(signed_url_is_refused)

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(download_to_a_path_succeeds_or_fails),
        TEST(resumable_download_succeeds_or_fails),
        TEST(continued_download_succeeds_or_fails),
        TEST(download_by_reading_succeeds_or_fails),
        TEST(redirected_download_succeeds_or_fails),
        TEST(redirect_with_a_user_is_refused_or_fails),
        TEST(signed_url_is_refused_or_fails),
    };

    return scenario_main(tests, TEST_COUNT(tests), argc, argv);
}
