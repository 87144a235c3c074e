/* SPDX-License-Identifier: MIT */
/* Failing allocations over TLS: a peer that is not trusted gets nothing, and
 * one that is trusted gets each request once. With the argument "libcurl" the
 * allocations of libcurl fail, too, and with "openssl" those of OpenSSL. */
#include "scenario.h"
#include "tls_peer.h"

#include <openssl/crypto.h>
#include <signal.h>

/* Some failures of OpenSSL look as if it waited for the peer. */
#define PATIENCE 2.0

static char other_ca[80];   /* a file with another certificate */
static const char *refusal; /* the reason why a peer is not trusted */

static void trust_it(void)
{
    chaos_spare(NULL);
    tls_client_use(ca_file, PATIENCE);
}

static void trust_another(void)
{
    tls_client_use(other_ca, PATIENCE);
}

/* Check a failure of an exchange with a peer that is trusted. */
static void check_failure(nymbl_kind kind, const nymbl_error *err)
{
    if (scenario_scope_now == SCENARIO_OPENSSL && kind == NYMBL_TIMEOUT)
        scenario_check_or(kind, err, NYMBL_TIMEOUT, err->reason);
    else if (scenario_scope_now == SCENARIO_OPENSSL && kind == NYMBL_NETWORK)
        scenario_check_or(kind, err, NYMBL_NETWORK, "reset");
    else if (scenario_scope_now > SCENARIO_CORE && kind == NYMBL_TLS)
        scenario_check_or(kind, err, NYMBL_TLS, err->reason);
    else if (kind == NYMBL_REDIRECT) /* its URL seems invalid */
        scenario_check_or(kind, err, NYMBL_REDIRECT, "bad_location");
    else
        scenario_check(kind, err);
}

/* ---- a peer that is not trusted ---- */

static void check_refused(const service *service, nymbl_kind kind,
                          const nymbl_error *err)
{
    CHECK(kind < 0 && !err->outcome_unknown);
    CHECK_NUMBER(service->begun, 0);
    if (kind != NYMBL_TLS)
        check_failure(kind, err);
    else if (!chaos_struck())
        CHECK_TEXT(err->reason, refusal);
}

static bool upload_is_refused(void)
{
    nymbl_upload_options options = {.file_name = "a.pdf",
                                    .content_type = "application/pdf"};
    service service = {.response = "HTTP/1.1 201 x\r\nContent-Length: 0\r\n"
                                   "\r\n"};
    nymbl_transfer *transfer = NULL;
    nymbl_body *body;
    nymbl_error err = {0};
    nymbl_kind kind =
        nymbl_body_from_bytes(&body, BODY, sizeof(BODY) - 1, &err);

    if (kind == NYMBL_OK)
        kind =
            nymbl_upload_start(&transfer, world.engine, world.client,
                               "token-of-test", PATIENT, body, &options, &err);
    kind = service_run(&service, kind, transfer, &err);
    check_refused(&service, kind, &err);
    if (transfer != NULL)
        CHECK(!counts_of(transfer).sent);
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    service_close(&service);
    return kind == NYMBL_TLS;
}

/* `name`, `from`, `to`: see tls_open_named(). */
static void check_refusal(void (*prepare)(void), const char *reason,
                          const char *name, long from, long to)
{
    refusal = reason;
    tls_start(name, from, to);
    scenario_repeat(prepare, upload_is_refused);
    tls_stop();
}

static void certificate_of_another_host_is_never_accepted(void)
{
    check_refusal(trust_it, "host_name", "IP:127.0.0.2", -100, 10000);
}

static void expired_certificate_is_never_accepted(void)
{
    check_refusal(trust_it, "certificate_expired", "IP:127.0.0.1", -200, -100);
}

static void unknown_certificate_is_never_accepted(void)
{
    tls_start("IP:127.0.0.1", -100, 10000);
    snprintf(other_ca, sizeof(other_ca), "%s.other", ca_file);
    CHECK(rename(ca_file, other_ca) == 0);
    tls_stop();
    check_refusal(trust_another, "certificate_self_signed", "IP:127.0.0.1",
                  -100, 10000);
    unlink(other_ca);
}

/* Its greeting is a password. */
static bool line_is_refused(void)
{
    nymbl_line_options options = {.host = "127.0.0.1",
                                  .port = world.port,
                                  .tls = true,
                                  .ca_file = ca_file,
                                  .connect_timeout = PATIENCE,
                                  .greeting = "secret-of-test",
                                  .greeting_size = 14,
                                  .greeting_replies = 1};
    service service = {.response = NULL};
    nymbl_transfer *transfer = NULL;
    nymbl_line *line = NULL;
    nymbl_error err = {0};
    nymbl_kind kind = nymbl_line_new(&line, world.engine, &options, &err);

    if (kind == NYMBL_OK)
        kind = nymbl_line_start(&transfer, line, "token-of-test", 13, &err);
    kind = service_run(&service, kind, transfer, &err);
    if (scenario_line_has_ended(kind, &err))
        CHECK(chaos_struck() && service.begun == 0);
    else if (kind == NYMBL_MISUSE && scenario_scope_now > SCENARIO_CORE)
        CHECK_TEXT(err.reason, "host"); /* libcurl could not read it */
    else
        check_refused(&service, kind, &err);
    nymbl_transfer_free(transfer);
    nymbl_line_free(line);
    service_close(&service);
    return kind == NYMBL_TLS;
}

static void line_to_another_host_is_never_accepted(void)
{
    refusal = "host_name";
    tls_start("IP:127.0.0.2", -100, 10000);
    scenario_repeat(NULL, line_is_refused);
    tls_stop();
}

/* ---- a peer that is trusted ---- */

#define CREATED "HTTP/1.1 201 x\r\nContent-Length: 8\r\n\r\n{\"id\":1}"

static nymbl_kind upload(service *service, nymbl_error *err)
{
    static const char form[] =
        "--*\r\nContent-Disposition: form-data; name=\"file\"; "
        "filename=\"a.pdf\"\r\nContent-Type: application/pdf\r\n\r\n" BODY
        "\r\n--*--\r\n";
    nymbl_upload_options options = {.file_name = "a.pdf",
                                    .content_type = "application/pdf"};
    nymbl_transfer *transfer = NULL;
    nymbl_body *body;
    nymbl_kind kind = nymbl_body_from_bytes(&body, BODY, sizeof(BODY) - 1, err);

    if (kind == NYMBL_OK)
        kind =
            nymbl_upload_start(&transfer, world.engine, world.client,
                               "token-of-test", PATIENT, body, &options, err);
    kind = service_run(service, kind, transfer, err);
    service_check_once(service, transfer, kind, err);
    if (kind == NYMBL_OK)
        CHECK(service_received_form(service, form));
    service_next(service, &transfer);
    nymbl_body_free(body);
    return kind;
}

/* The second one, on its own connection, resumes the session of the first. */
static bool uploads_succeed(void)
{
    service service = {.response = CREATED, .gets_upload = true};
    nymbl_error err = {0};
    nymbl_kind kind = upload(&service, &err);

    if (kind < 0)
        check_failure(kind, &err);
    if (kind == NYMBL_OK) {
        kind = upload(&service, &err);
        if (kind < 0)
            check_failure(kind, &err);
    }
    service_close(&service);
    return kind == NYMBL_OK;
}

static void uploads_succeed_or_fail(void)
{
    tls_start("IP:127.0.0.1", -100, 10000);
    scenario_repeat(trust_it, uploads_succeed);
    tls_stop();
}

/* Redirect to the same address under another name, which must get no
 * credentials. */
static const char *redirect(const service *self, const char *request)
{
    static char response[128];
    bool first = self->requests == 1;

    CHECK((strcasestr(request, "\r\nx-api-key: key-of-test\r\n") != NULL) ==
          first);
    CHECK((strcasestr(request, "\r\nAuthorization: ") != NULL) == first);
    CHECK((strcasestr(request, "-of-test") != NULL) == first);
    if (!first)
        return "HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\n"
               "Content-Length: 60\r\n\r\n" BODY;
    snprintf(response, sizeof(response),
             "HTTP/1.1 302 x\r\nContent-Length: 0\r\n"
             "Location: https://localhost:%d/x?signed\r\n\r\n",
             world.port);
    return response;
}

static bool redirected_download_succeeds(void)
{
    service service = {.respond = redirect};
    nymbl_transfer *transfer = NULL;
    nymbl_error err = {0};
    text got = {0};
    nymbl_kind kind =
        nymbl_download_start(&transfer, world.engine, world.client,
                             "token-of-test", PATIENT, "9", NULL, &err);

    kind = service_run(&service, kind, transfer, &err);
    if (kind == NYMBL_AGAIN || kind == NYMBL_OK)
        kind = read_all(transfer, &got, &err);
    if (kind == NYMBL_DONE)
        CHECK_TEXT(got.data, BODY);
    else
        check_failure(kind, &err);
    text_free(&got);
    nymbl_transfer_free(transfer);
    service_close(&service);
    return kind == NYMBL_DONE;
}

static void redirect_to_another_origin_succeeds_or_fails(void)
{
    tls_start("IP:127.0.0.1,DNS:localhost", -100, 10000);
    scenario_repeat(trust_it, redirected_download_succeeds);
    tls_stop();
}

/* ---- OpenSSL's allocations ---- */

static void *openssl_malloc(size_t size, const char *file, int line)
{
    (void)file;
    (void)line;
    return chaos_strikes() ? NULL : malloc(size);
}

static void *openssl_realloc(void *old, size_t size, const char *file, int line)
{
    (void)file;
    (void)line;
    return chaos_strikes() ? NULL : realloc(old, size);
}

static void openssl_free(void *memory, const char *file, int line)
{
    (void)file;
    (void)line;
    free(memory);
}

/* Before 8.8.0 libcurl frees pointers twice if it cannot store the session that
 * the peer is about to offer (quirks.c). Then it copies the file's name. */
static void accept_and_spare(peer *peer)
{
    tls_accept(peer);
    if (curl_version_info(CURLVERSION_NOW)->version_num < 0x080800)
        chaos_spare(ca_file);
}

static void drop(peer *peer)
{
    tls_end(peer, false);
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(certificate_of_another_host_is_never_accepted),
        TEST(expired_certificate_is_never_accepted),
        TEST(unknown_certificate_is_never_accepted),
        TEST(line_to_another_host_is_never_accepted),
        TEST(uploads_succeed_or_fail),
        TEST(redirect_to_another_origin_succeeds_or_fails),
    };

    service_accept = accept_and_spare;
    service_drop = drop;
    signal(SIGPIPE, SIG_IGN); /* the peer writes to closed connections */
    if (argc > 1 && strcmp(argv[1], "openssl") == 0)
        REQUIRE(CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc,
                                         openssl_free) == 1);
    return scenario_main(tests, TEST_COUNT(tests), argc, argv);
}
