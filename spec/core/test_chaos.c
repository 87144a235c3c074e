/* SPDX-License-Identifier: MIT */
/* Each call is repeated with its first allocation failing, then its second, and
 * so on until it completes. It must fail cleanly, a success must be correct,
 * and an upload must never be sent twice. With the argument "libcurl" the
 * allocations of libcurl fail, too. */
#include "scenario.h"

/* ---- uploads ---- */

#define PART_FILE                                                              \
    "--*\r\nContent-Disposition: form-data; name=\"file\"; "                   \
    "filename=\"a.pdf\"\r\nContent-Type: application/pdf\r\n\r\n" BODY "\r\n"
#define PART_TEXT(name, value)                                                 \
    "--*\r\nContent-Disposition: form-data; name=\"" name "\"\r\n\r\n" value   \
    "\r\n"
#define CREATED "HTTP/1.1 201 x\r\nContent-Length: 8\r\n\r\n{\"id\":1}"

/* `made`: what creating the body has returned. The body is freed. */
static bool body_is_uploaded(nymbl_kind made, nymbl_body *body,
                             const nymbl_upload_options *options,
                             const char *form, nymbl_error *err)
{
    service service = {.response = CREATED, .gets_upload = true};
    nymbl_transfer *transfer = NULL;
    nymbl_kind kind = made;
    size_t size;

    if (kind == NYMBL_OK)
        kind = nymbl_upload_start(&transfer, world.engine, world.client,
                                  "token-of-test", PATIENT, body, options, err);
    kind = service_run(&service, kind, transfer, err);
    service_check_once(&service, transfer, kind, err);
    if (kind == NYMBL_OK) {
        CHECK_TEXT(nymbl_transfer_body(transfer, &size), "{\"id\":1}");
        CHECK(service_received_form(&service, form));
    } else {
        scenario_check(kind, err);
    }
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    service_close(&service);
    return kind == NYMBL_OK;
}

static bool upload_succeeds(void)
{
    nymbl_upload_options options = {.file_name = "a.pdf",
                                    .content_type = "application/pdf",
                                    .document_type = "Referral",
                                    .description = "x"};
    nymbl_body *body;
    nymbl_error err = {0};
    nymbl_kind kind =
        nymbl_body_from_bytes(&body, BODY, sizeof(BODY) - 1, &err);

    return body_is_uploaded(kind, body, &options,
                            PART_FILE PART_TEXT("document_type", "Referral")
                                PART_TEXT("description", "x") "--*--\r\n",
                            &err);
}

static void file_write(void)
{
    world_write("a.pdf", BODY, sizeof(BODY) - 1);
}

static bool file_upload_succeeds(void)
{
    nymbl_upload_options options = {.file_name = "a.pdf",
                                    .content_type = "application/pdf"};
    nymbl_body *body;
    nymbl_error err = {0};
    nymbl_kind kind = nymbl_body_from_path(&body, world_path("a.pdf"), &err);

    return body_is_uploaded(kind, body, &options, PART_FILE "--*--\r\n", &err);
}

static bool stream_upload_succeeds(void)
{
    nymbl_upload_options options = {.file_name = "a.pdf",
                                    .content_type = "application/pdf",
                                    .is_rewindable = true};
    nymbl_body *body;
    nymbl_error err = {0};
    size_t taken = 0;
    nymbl_kind kind = nymbl_body_stream(&body, -1, &err);

    if (kind == NYMBL_OK &&
        nymbl_body_write(body, BODY, sizeof(BODY) - 1, &taken) == NYMBL_OK)
        nymbl_body_finish(body);
    return body_is_uploaded(kind, body, &options, PART_FILE "--*--\r\n", &err);
}

/* ---- other calls ---- */

#define SEEN "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nbytes-of-test"
#define EMPTY "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

/* Run a call whose response is SEEN. */
static nymbl_kind call_run(service *service, nymbl_kind started,
                           nymbl_transfer *transfer, nymbl_error *err)
{
    nymbl_kind kind = service_run(service, started, transfer, err);
    size_t size;

    if (kind == NYMBL_OK)
        CHECK_TEXT(nymbl_transfer_body(transfer, &size), "bytes-of-test");
    else
        scenario_check(kind, err);
    return kind;
}

static bool listing_succeeds(void)
{
    nymbl_list_options options = {.filter = "a eq 1", .top = 5, .count = true};
    service service = {.response = SEEN};
    nymbl_transfer *transfer = NULL;
    nymbl_error err = {0};
    nymbl_kind kind =
        nymbl_list_start(&transfer, world.engine, world.client, "token-of-test",
                         PATIENT, &options, &err);

    kind = call_run(&service, kind, transfer, &err);
    nymbl_transfer_free(transfer);
    service_close(&service);
    return kind == NYMBL_OK;
}

static bool next_page_succeeds(void)
{
    nymbl_list_options options = {.next_link = "?page=2"};
    service service = {.response = EMPTY};
    nymbl_transfer *transfer = NULL;
    nymbl_error err = {0};
    nymbl_kind kind =
        nymbl_list_start(&transfer, world.engine, world.client, "token-of-test",
                         PATIENT, &options, &err);

    kind = service_run(&service, kind, transfer, &err);
    if (kind < 0) /* the link seems to leave the service */
        scenario_check_or(kind, &err, NYMBL_REDIRECT, NULL);
    nymbl_transfer_free(transfer);
    service_close(&service);
    return kind == NYMBL_OK;
}

static bool delete_succeeds(service *service)
{
    nymbl_transfer *transfer = NULL;
    nymbl_error err = {0};
    nymbl_kind kind = nymbl_delete_start(&transfer, world.engine, world.client,
                                         "token-of-test", PATIENT, "9", &err);

    kind = service_run(service, kind, transfer, &err);
    service_check_once(service, transfer, kind, &err);
    if (kind < 0)
        scenario_check(kind, &err);
    service_next(service, &transfer);
    return kind == NYMBL_OK;
}

static bool get_succeeds(service *service)
{
    nymbl_transfer *transfer = NULL;
    nymbl_error err = {0};
    nymbl_kind kind = nymbl_get_start(&transfer, world.engine, world.client,
                                      "token-of-test", PATIENT, "9", &err);

    kind = call_run(service, kind, transfer, &err);
    service_next(service, &transfer);
    return kind == NYMBL_OK;
}

/* Each call but the first uses a connection again. */
static bool calls_on_one_connection_succeed(void)
{
    service service = {.response = SEEN};
    bool good = get_succeeds(&service);

    good = get_succeeds(&service) && good;
    good = delete_succeeds(&service) && good;
    CHECK(service.connections == 1 || !good || chaos_struck());
    service_close(&service);
    return good;
}

static nymbl_client *signed_in; /* its token URL is the service's */

static void client_sign_in(void)
{
    signed_in = token_client((nymbl_client_options){
        .client_id = "me", .client_secret = "secret-of-test", .scope = "x"});
}

static bool token_is_served(void)
{
    static const char response[] =
        "HTTP/1.1 200 OK\r\nContent-Length: 54\r\n\r\n"
        "{\"access_token\":\"token-of-test\",\"token_type\":\"bearer\"}";
    service service = {.response = response};
    nymbl_transfer *transfer = NULL;
    nymbl_error err = {0};
    nymbl_token token;
    const char *body;
    size_t size;
    nymbl_kind kind =
        nymbl_token_start(&transfer, world.engine, signed_in, &err);

    kind = service_run(&service, kind, transfer, &err);
    if (kind == NYMBL_OK) {
        CHECK(strstr(service.last.data, "client_secret=secret-of-test"));
        body = nymbl_transfer_body(transfer, &size);
        CHECK(nymbl_token_read(&token, body, size, &err) == NYMBL_OK);
        CHECK_TEXT(token.value, "token-of-test");
        nymbl_token_wipe(&token);
    } else {
        scenario_check(kind, &err);
    }
    nymbl_transfer_free(transfer);
    nymbl_client_free(signed_in);
    service_close(&service);
    return kind == NYMBL_OK;
}

SCENARIO(upload_succeeds)
SCENARIO_PREPARED(file_write, file_upload_succeeds)
SCENARIO(stream_upload_succeeds)
SCENARIO(listing_succeeds)
SCENARIO(next_page_succeeds)
SCENARIO(calls_on_one_connection_succeed)
SCENARIO_PREPARED(client_sign_in, token_is_served)

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(upload_succeeds_or_fails),
        TEST(file_upload_succeeds_or_fails),
        TEST(stream_upload_succeeds_or_fails),
        TEST(listing_succeeds_or_fails),
        TEST(next_page_succeeds_or_fails),
        TEST(calls_on_one_connection_succeed_or_fails),
        TEST(token_is_served_or_fails),
    };

    return scenario_main(tests, TEST_COUNT(tests), argc, argv);
}
