/* SPDX-License-Identifier: MIT */
/* A request as data: what of it is sent, where, and what is refused. */
#include "engine/transfer.h"
#include "peer.h"

#define PATH(...)                                                              \
    (nymbl_segment[])                                                          \
    {                                                                          \
        __VA_ARGS__,                                                           \
        {                                                                      \
            NULL, NULL                                                         \
        }                                                                      \
    }
#define PAIRS(...)                                                             \
    (nymbl_pair[])                                                             \
    {                                                                          \
        __VA_ARGS__,                                                           \
        {                                                                      \
            NULL, NULL                                                         \
        }                                                                      \
    }

static nymbl_transfer *start(const nymbl_request *wanted)
{
    nymbl_transfer *transfer;
    nymbl_error err;

    if (!CHECK_NUMBER(nymbl_request_start(&transfer, world.engine, world.client,
                                          "tok", wanted, &err),
                      NYMBL_OK))
        printf("reason %s\n", err.reason != NULL ? err.reason : "none");
    REQUIRE(transfer != NULL);
    return transfer;
}

/* Start a request, answer it and return what was sent. */
static request sent(const nymbl_request *wanted, const char *response)
{
    nymbl_transfer *transfer = start(wanted);
    nymbl_error err;
    request request;
    peer peer;
    size_t size;

    peer_accept(&peer);
    peer_read(&peer, &request);
    peer_respond(&peer, 200, "", response);
    peer_close(&peer);
    CHECK_NUMBER(ended(transfer, &err), NYMBL_OK);
    CHECK_TEXT(nymbl_transfer_body(transfer, &size), response);
    nymbl_transfer_free(transfer);
    return request;
}

/* The reason with which a request is refused. */
static const char *refused(const nymbl_request *wanted)
{
    nymbl_transfer *transfer;
    nymbl_error err = {0};

    if (CHECK_NUMBER(nymbl_request_start(&transfer, world.engine, world.client,
                                         "tok", wanted, &err),
                     NYMBL_MISUSE))
        CHECK(transfer == NULL);
    nymbl_transfer_free(transfer);
    return err.reason;
}

static void another_entity_needs_no_function_of_its_own(void)
{
    request request;

    world_open(NULL);
    request = sent(
        &(nymbl_request){
            .path = PATH({"Patients", NULL}),
            .query = PAIRS({"$select", "id"}, {"$search", "a b&c/\xc3\xa9"},
                           {"$skip", NULL}, {"$top", "5"}),
        },
        "{\"value\":[]}");
    CHECK(request_begins(&request, "GET /v1/Patients?$select=id&$search="
                                   "a%20b%26c%2F%C3%A9&$top=5 HTTP/1.1\r\n"));
    CHECK_TEXT(request_field(&request, "Accept"), "application/json");
    CHECK_TEXT(request_field(&request, "Authorization"), "Bearer tok");
    CHECK_TEXT(request_field(&request, "x-api-key"), "key-of-test");
    request_free(&request);
    request = sent(
        &(nymbl_request){
            .path = PATH({"A-1.b", "x(1)/?#"}, {"$value", NULL}, {"c_", "2"}),
        },
        "{}");
    CHECK(request_begins(
        &request,
        "GET /v1/A-1.b(x%281%29%2F%3F%23)/$value/c_(2) HTTP/1.1\r\n"));
    request_free(&request);
    world_close();
}

static void headers_are_sent_to_the_service(void)
{
    request request;

    world_open(NULL);
    request = sent(
        &(nymbl_request){
            .path = PATH({"Patients", NULL}),
            .headers = PAIRS({"traceparent", "00-0af7-b7ad-01"},
                             {"x-request-id", "r 1"}, {"baggage", NULL}),
        },
        "{}");
    CHECK_TEXT(request_field(&request, "traceparent"), "00-0af7-b7ad-01");
    CHECK_TEXT(request_field(&request, "x-request-id"), "r 1");
    CHECK(request_field(&request, "baggage") == NULL);
    request_free(&request);
    world_close();
}

/* A redirect to another origin: what is sent there is the list without them. */
static void headers_stay_with_the_service(void)
{
    nymbl_transfer *transfer;
    const nymbl__request *request;
    struct curl_slist *line;
    int count = 0;

    world_open(NULL);
    transfer = start(&(nymbl_request){
        .expected = NYMBL_EXPECT_CONTENT,
        .path = PATH({"Patients", "7"}, {"Documents", "9"}, {"$value", NULL}),
        .headers = PAIRS({"x-request-id", "r1"}),
    });
    request = &transfer->exchange.request;
    line = nymbl__request_headers(request, true);
    REQUIRE(line != NULL);
    CHECK_TEXT(line->data, "Accept: */*");
    CHECK(line->next == NULL);
    for (line = nymbl__request_headers(request, false); line != NULL;
         line = line->next)
        count++;
    CHECK_NUMBER(count, 4);
    nymbl_transfer_free(transfer);
    world_close();
}

/* A redirect within the origin keeps them. */
static void headers_follow_a_redirect(void)
{
    nymbl_transfer *transfer;
    request request;
    peer peer;

    world_open(NULL);
    transfer = start(&(nymbl_request){
        .expected = NYMBL_EXPECT_CONTENT,
        .path = PATH({"Patients", "7"}, {"Documents", "9"}, {"$value", NULL}),
        .headers = PAIRS({"x-request-id", "r1"}),
    });
    peer_accept(&peer);
    peer_read(&peer, &request);
    CHECK_TEXT(request_field(&request, "x-request-id"), "r1");
    request_free(&request);
    peer_respond(&peer, 302, "Location: /elsewhere\r\n", "");
    peer_close(&peer);
    peer_accept(&peer);
    peer_read(&peer, &request);
    CHECK(request_begins(&request, "GET /elsewhere HTTP/1.1\r\n"));
    CHECK_TEXT(request_field(&request, "x-request-id"), "r1");
    CHECK_TEXT(request_field(&request, "x-api-key"), "key-of-test");
    request_free(&request);
    nymbl_transfer_free(transfer);
    peer_close(&peer);
    world_settle();
    world_close();
}

static void what_would_change_the_meaning_is_refused(void)
{
    static const char *const names[] = {
        "Host",
        "authorization",
        "X-API-KEY",
        "Accept",
        "Content-Type",
        "content-length",
        "Expect",
        "Connection",
        "Transfer-Encoding",
        "Range",
        "If-Match",
        "If-Range",
        "Proxy-Authorization",
        "Cookie",
        "User-Agent",
        "TE",
        "Accept-Encoding",
        "Upgrade",
        "a b",
        "a:b",
        "a\r\nb",
        "",
        "\xc3\xa9",
        "a(b)",
    };
    static const char *const values[] = {
        "", " a", "a ", "a\nb", "a\r\nb: c", "a\tb", "\x7f", "\xc3\xa9"};
    static const char *const segments[] = {"",     ".",   "..",  "a/b", "a?b",
                                           "a(b)", "a b", "%41", "a#b"};
    nymbl_segment patients = {"Patients", NULL};
    char *longer = pattern(8194);
    nymbl_body *body;

    world_open(NULL);
    body = body_of("%PDF-", 5);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        CHECK_TEXT(refused(&(nymbl_request){
                       .path = PATH(patients),
                       .headers = PAIRS({names[i], "v"}),
                   }),
                   "headers");
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        CHECK_TEXT(refused(&(nymbl_request){
                       .path = PATH(patients),
                       .headers = PAIRS({"x-request-id", values[i]}),
                   }),
                   "headers");
    memset(longer, 'a', 8193);
    longer[8193] = '\0';
    CHECK_TEXT(refused(&(nymbl_request){
                   .path = PATH(patients),
                   .headers = PAIRS({"x-request-id", longer}),
               }),
               "headers");
    for (size_t i = 0; i < sizeof(segments) / sizeof(segments[0]); i++)
        CHECK_TEXT(refused(&(nymbl_request){.path = PATH({segments[i], NULL})}),
                   "path");
    CHECK_TEXT(refused(&(nymbl_request){.path = PATH({"Patients", ""})}),
               "path");
    CHECK_TEXT(refused(&(nymbl_request){.path = PATH({NULL, NULL})}), "path");
    CHECK_TEXT(refused(&(nymbl_request){0}), "path");
    CHECK_TEXT(refused(NULL), "request");
    CHECK_TEXT(refused(&(nymbl_request){.path = PATH(patients),
                                        .query = PAIRS({"a=b", "c"})}),
               "query");
    /* never all patients */
    CHECK_TEXT(refused(&(nymbl_request){.method = NYMBL_DELETE,
                                        .path = PATH(patients)}),
               "path");
    CHECK_TEXT(refused(&(nymbl_request){.path = PATH(patients), .body = body}),
               "body");
    CHECK_TEXT(refused(&(nymbl_request){
                   .method = NYMBL_POST, .path = PATH(patients), .body = body}),
               "options");
    CHECK_TEXT(
        refused(&(nymbl_request){.method = NYMBL_POST, .path = PATH(patients)}),
        "options");
    CHECK_TEXT(refused(&(nymbl_request){.method = NYMBL_DELETE,
                                        .expected = NYMBL_EXPECT_CONTENT,
                                        .path = PATH({"Patients", "1"})}),
               "expected");
    nymbl_body_free(body);
    free(longer);
    world_close();
}

static void an_id_that_is_missing_starts_nothing(void)
{
    nymbl_transfer *transfer;
    nymbl_error err;

    world_open(NULL);
    CHECK_NUMBER(nymbl_delete_start(&transfer, world.engine, world.client,
                                    "tok", NULL, "9", &err),
                 NYMBL_MISUSE);
    CHECK_TEXT(err.reason, "patient");
    CHECK_NUMBER(nymbl_delete_start(&transfer, world.engine, world.client,
                                    "tok", "7", NULL, &err),
                 NYMBL_MISUSE);
    CHECK_TEXT(err.reason, "document");
    CHECK_NUMBER(nymbl_get_start(&transfer, world.engine, world.client, "tok",
                                 "7", "", &err),
                 NYMBL_MISUSE);
    CHECK_TEXT(err.reason, "document");
    CHECK_NUMBER(nymbl_list_start(&transfer, world.engine, world.client, "tok",
                                  "", NULL, &err),
                 NYMBL_MISUSE);
    CHECK_TEXT(err.reason, "patient");
    CHECK_NUMBER(nymbl_get_start(&transfer, world.engine, world.client,
                                 "tok\r\nx: y", "7", "9", &err),
                 NYMBL_MISUSE);
    CHECK_TEXT(err.reason, "token");
    CHECK_NUMBER(nymbl_upload_start(&transfer, world.engine, world.client,
                                    "tok", NULL, NULL, NULL, &err),
                 NYMBL_MISUSE);
    CHECK_TEXT(err.reason, "patient");
    CHECK(transfer == NULL);
    world_close();
}

static void a_token_that_cannot_be_requested_starts_nothing(void)
{
    nymbl_transfer *transfer;
    nymbl_client *client;
    nymbl_error err;
    char id[65], *longer = malloc(65536);

    world_open(NULL);
    CHECK_NUMBER(nymbl_token_start(&transfer, world.engine, world.client, &err),
                 NYMBL_MISUSE);
    CHECK_TEXT(err.reason, "client"); /* it has no token_url */
    CHECK(nymbl_client_account_id(world.client, NYMBL_SHARED_TOKEN, id) ==
          NYMBL_MISUSE);
    REQUIRE(longer != NULL);
    memset(longer, 's', 65535);
    longer[65535] = '\0';
    client = token_client(
        (nymbl_client_options){.client_id = "i", .client_secret = longer});
    CHECK_NUMBER(nymbl_token_start(&transfer, world.engine, client, &err),
                 NYMBL_BAD_REQUEST);
    CHECK_TEXT(err.reason, "url_too_long");
    CHECK(transfer == NULL);
    nymbl_client_close(client);
    CHECK_NUMBER(nymbl_token_start(&transfer, world.engine, client, &err),
                 NYMBL_MISUSE);
    CHECK(nymbl_client_account_id(client, NYMBL_SHARED_TOKEN, id) ==
          NYMBL_MISUSE);
    nymbl_client_free(client);
    free(longer);
    world_close();
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(another_entity_needs_no_function_of_its_own),
        TEST(headers_are_sent_to_the_service),
        TEST(headers_stay_with_the_service),
        TEST(headers_follow_a_redirect),
        TEST(what_would_change_the_meaning_is_refused),
        TEST(an_id_that_is_missing_starts_nothing),
        TEST(a_token_that_cannot_be_requested_starts_nothing),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
