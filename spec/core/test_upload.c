/* SPDX-License-Identifier: MIT */
/* Uploads as the server receives them, byte for byte. */
#include "source.h"

#include <sys/stat.h>

#define MEGABYTE (1024 * 1024)

/* ---- the expected upload ---- */

static void form_field(text *form, const char *boundary, const char *rest,
                       const void *value, size_t size)
{
    text_add(form, "--", 2);
    text_add(form, boundary, strlen(boundary));
    text_add(form, "\r\nContent-Disposition: form-data; name=\"", 40);
    text_add(form, rest, strlen(rest));
    text_add(form, "\r\n\r\n", 4);
    text_add(form, value, size);
    text_add(form, "\r\n", 2);
}

static void check_form(const request *request, const char *file_part,
                       const void *data, size_t size, const char *type,
                       const char *description)
{
    static const char form_data[] = "multipart/form-data; boundary=";
    const char *value = request_field(request, "Content-Type");
    char boundary[128];
    text form = {0};

    CHECK(!request->cut);
    REQUIRE(value != NULL && strncmp(value, form_data, 30) == 0);
    snprintf(boundary, sizeof(boundary), "%s", value + 30);
    form_field(&form, boundary, file_part, data, size);
    if (type != NULL)
        form_field(&form, boundary, "document_type\"", type, strlen(type));
    if (description != NULL)
        form_field(&form, boundary, "description\"", description,
                   strlen(description));
    text_add(&form, "--", 2);
    text_add(&form, boundary, strlen(boundary));
    text_add(&form, "--\r\n", 4);
    CHECK_NUMBER((long long)request->body.size, (long long)form.size);
    if (!CHECK(request->body.size == form.size &&
               memcmp(request->body.data, form.data, form.size) == 0) &&
        form.size < 2000)
        printf("got:\n%s\nnot:\n%s\n", request->body.data, form.data);
    text_free(&form);
}

#define PLAIN_PART "file\"; filename=\"a.pdf\"\r\nContent-Type: application/pdf"

/* Let the upload succeed, and check the received bytes. */
static void check_sent(nymbl_transfer *transfer, const void *data, size_t size,
                       bool chunked)
{
    request request;
    peer peer;

    peer_accept(&peer);
    peer_read(&peer, &request);
    CHECK(request.chunked == chunked);
    CHECK((request_field(&request, "Content-Length") != NULL) == !chunked);
    check_form(&request, PLAIN_PART, data, size, NULL, NULL);
    peer_respond(&peer, 201, "", "{\"id\":1}");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    CHECK_NUMBER(counts_of(transfer).body_sent, (long long)size);
    request_free(&request);
    peer_close(&peer);
}

/* ---- complete uploads ---- */

static void bytes_arrive_with_their_fields(void)
{
    nymbl_upload_options options = {.file_name = "a \"b\" \\c\xc3\xa9%22.pdf",
                                    .content_type = "application/pdf",
                                    .document_type = "Referral \"x\" \\",
                                    .description = "two\r\nlines: \xc3\xa9"};
    nymbl_body *body;
    nymbl_transfer *transfer;
    nymbl_response head;
    request request;
    peer peer;
    size_t size;

    world_open(&(nymbl_client_options){.user_agent = "mine/1 (x)"});
    body = body_of("%PDF\0-1.7\r\n--", 13);
    REQUIRE(nymbl_upload_start(&transfer, world.engine, world.client, "tok",
                               "1/2 %()\xc3\xa9", body, &options,
                               NULL) == NYMBL_OK);
    peer_accept(&peer);
    peer_read(&peer, &request);
    CHECK(request_begins(&request, "POST /v1/Patients(1%2F2%20%25%28%29%C3%A9)"
                                   "/Documents HTTP/1.1\r\n"));
    CHECK_TEXT(request_field(&request, "Authorization"), "Bearer tok");
    CHECK_TEXT(request_field(&request, "x-api-key"), "key-of-test");
    CHECK_TEXT(request_field(&request, "Accept"), "application/json");
    CHECK_TEXT(request_field(&request, "User-Agent"),
               "nymbl/" NYMBL_VERSION " mine/1 (x)");
    CHECK_NUMBER(request_fields(&request, "Authorization"), 1);
    CHECK_NUMBER(request_fields(&request, "x-api-key"), 1);
    CHECK_NUMBER(request_fields(&request, "Content-Length"), 1);
    CHECK(request_field(&request, "Expect") == NULL);
    check_form(&request,
               "file\"; filename=\"a \\\"b\\\" \\\\c\xc3\xa9%22.pdf\"\r\n"
               "Content-Type: application/pdf",
               "%PDF\0-1.7\r\n--", 13, options.document_type,
               options.description);
    peer_respond(&peer, 200, "Content-Type: application/json\r\n",
                 "{\"id\":3}");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    CHECK_TEXT(nymbl_transfer_body(transfer, &size), "{\"id\":3}");
    CHECK_NUMBER((long long)size, 8);
    CHECK(nymbl_transfer_response(transfer, &head, NULL) == NYMBL_OK);
    CHECK_NUMBER(head.status, 200);
    CHECK_TEXT(head.content_type, "application/json");
    peer_close(&peer);
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    request_free(&request);
    world_close();
}

static void path_arrives_completely(void)
{
    char *data = pattern(3 * MEGABYTE + 17);
    nymbl_body *body;
    nymbl_transfer *transfer;

    world_open(NULL);
    world_write("up", data, 3 * MEGABYTE + 17);
    REQUIRE(nymbl_body_from_path(&body, world_path("up"), NULL) == NYMBL_OK);
    transfer = start_upload(body);
    nymbl_body_free(body); /* the transfer retains it */
    check_sent(transfer, data, 3 * MEGABYTE + 17, false);
    nymbl_transfer_free(transfer);
    free(data);
    world_close();
}

static void body_is_sent_again_from_its_start(void)
{
    char *data = pattern(100000);
    nymbl_body *bytes, *path;

    world_open(NULL);
    bytes = body_of(data, 100000);
    world_write("up", data, 100000);
    REQUIRE(nymbl_body_from_path(&path, world_path("up"), NULL) == NYMBL_OK);
    for (int i = 0; i < 4; i++) {
        nymbl_transfer *transfer = start_upload(i % 2 == 0 ? bytes : path);

        check_sent(transfer, data, 100000, false);
        nymbl_transfer_free(transfer);
    }
    nymbl_body_free(bytes);
    nymbl_body_free(path);
    free(data);
    world_close();
}

static void empty_bodies_arrive(void)
{
    nymbl_body *bodies[3];

    world_open(NULL);
    bodies[0] = body_of("", 0);
    world_write("up", "", 0);
    REQUIRE(nymbl_body_from_path(&bodies[1], world_path("up"), NULL) ==
            NYMBL_OK);
    REQUIRE(nymbl_body_stream(&bodies[2], 0, NULL) == NYMBL_OK);
    nymbl_body_finish(bodies[2]);
    for (int i = 0; i < 3; i++) {
        nymbl_transfer *transfer = start_upload(bodies[i]);

        check_sent(transfer, "", 0, false);
        nymbl_transfer_free(transfer);
        nymbl_body_free(bodies[i]);
    }
    world_close();
}

static void check_stream_arrives(int64_t stated, size_t size, bool chunked)
{
    char *data = pattern(size);
    nymbl_transfer *transfer;

    world_open(NULL);
    source_open(stated, data, size, true);
    source_ready();
    transfer = start_upload(source.body);
    check_sent(transfer, data, size, chunked);
    source_close();
    nymbl_transfer_free(transfer);
    free(data);
    world_close();
}

static void stream_of_known_size_arrives_with_a_length(void)
{
    check_stream_arrives(1, 1, false);
    check_stream_arrives(2 * MEGABYTE + 3, 2 * MEGABYTE + 3, false);
}

/* Its source may end only after the response. */
static void empty_stream_needs_no_end(void)
{
    nymbl_transfer *transfer;
    nymbl_body *body;

    world_open(NULL);
    REQUIRE(nymbl_body_stream(&body, 0, NULL) == NYMBL_OK);
    transfer = start_upload(body);
    check_sent(transfer, "", 0, false);
    nymbl_body_finish(body);
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    world_close();
}

static void short_stream_is_measured_first(void)
{
    check_stream_arrives(-1, 0, false);
    check_stream_arrives(-1, 5, false);
    check_stream_arrives(-1, MEGABYTE - 1, false);
}

static void long_stream_is_sent_in_chunks(void)
{
    check_stream_arrives(-1, MEGABYTE + 1, true);
    check_stream_arrives(-1, 3 * MEGABYTE, true);
}

/* Its source can ask for the limit before it is read. */
static void stream_has_a_limit_before_it_is_sent(void)
{
    nymbl_upload_options options = {.file_name = "a.pdf",
                                    .content_type = "application/pdf"};
    nymbl_transfer *transfer;
    nymbl_body *body;
    nymbl_error err;
    size_t taken;

    world_open(NULL);
    REQUIRE(nymbl_body_stream(&body, -1, NULL) == NYMBL_OK);
    CHECK(nymbl_body_remaining(body) == INT64_MAX);
    nymbl_body_set_limit(body, 5);
    CHECK(nymbl_body_write(body, "123", 3, &taken) == NYMBL_OK);
    CHECK_NUMBER(nymbl_body_remaining(body), 2);
    CHECK(nymbl_body_write(body, "45", 2, &taken) == NYMBL_OK);
    CHECK_NUMBER(nymbl_body_remaining(body), 0);
    CHECK(nymbl_body_write(body, "6", 1, &taken) == NYMBL_DONE);
    CHECK_NUMBER(taken, 0);
    CHECK(nymbl_body_is_ready(body));
    CHECK(nymbl_upload_start(&transfer, world.engine, world.client, "tok", "7",
                             body, &options, &err) == NYMBL_TOO_LARGE);
    nymbl_body_free(body);
    REQUIRE(nymbl_body_stream(&body, 3, NULL) == NYMBL_OK);
    CHECK_NUMBER(nymbl_body_remaining(body), 3);
    nymbl_body_set_limit(body, 2);
    CHECK_NUMBER(nymbl_body_remaining(body), 2);
    nymbl_body_free(body);
    world_close();
}

/* ---- sources ---- */

static void only_regular_files_are_bodies(void)
{
    nymbl_body *body;
    nymbl_error err;

    world_open(NULL);
    CHECK(nymbl_body_from_path(&body, world_path("none"), &err) == NYMBL_IO);
    CHECK_TEXT(err.reason, "not_found");
    CHECK(nymbl_body_from_path(&body, world.dir, &err) == NYMBL_IO);
    CHECK_TEXT(err.reason, "directory");
    CHECK(mkfifo(world_path("fifo"), 0600) == 0);
    CHECK(nymbl_body_from_path(&body, world_path("fifo"), &err) == NYMBL_IO);
    CHECK_TEXT(err.reason, "not_a_file");
    CHECK(nymbl_body_from_path(&body, "/dev/null", &err) == NYMBL_IO);
    CHECK_TEXT(err.reason, "not_a_file");
    CHECK(body == NULL);
    world_close();
}

static void body_belongs_to_one_transfer_at_a_time(void)
{
    nymbl_upload_options options = {.file_name = "a", .content_type = "b/c"};
    nymbl_transfer *first, *second;
    nymbl_body *body;
    nymbl_error err;
    peer peer;

    world_open(NULL);
    body = body_of("123", 3);
    first = start_upload(body);
    CHECK(nymbl_upload_start(&second, world.engine, world.client, "tok", "7",
                             body, &options, &err) == NYMBL_MISUSE);
    CHECK_TEXT(err.reason, "body");
    nymbl_transfer_free(first);
    /* the thread has connected by now, and may take a moment to release the
     * body */
    while (nymbl_object_count() > 2)
        usleep(1000);
    while (peer_waits()) {
        peer_accept(&peer);
        peer_close(&peer);
    }
    first = start_upload(body);
    check_sent(first, "123", 3, false);
    nymbl_transfer_free(first);
    nymbl_body_free(body);
    world_close();
}

static void stream_that_was_sent_cannot_be_sent_again(void)
{
    nymbl_upload_options options = {.file_name = "a", .content_type = "b/c"};
    nymbl_transfer *transfer;
    nymbl_error err;
    size_t taken;

    world_open(NULL);
    source_open(3, "123", 3, true);
    CHECK(nymbl_body_can_rewind(source.body));
    transfer = start_upload(source.body);
    check_sent(transfer, "123", 3, false);
    nymbl_transfer_free(transfer);
    CHECK(!nymbl_body_can_rewind(source.body));
    CHECK(nymbl_body_write(source.body, "4", 1, &taken) == NYMBL_MISUSE);
    CHECK(nymbl_upload_start(&transfer, world.engine, world.client, "tok", "7",
                             source.body, &options, &err) == NYMBL_IO);
    CHECK_TEXT(err.reason, "cannot_rewind");
    source_close();
    world_close();
}

static void body_that_has_failed_stays_failed(void)
{
    nymbl_upload_options options = {.file_name = "a", .content_type = "b/c"};
    nymbl_transfer *transfer;
    nymbl_body *body;
    nymbl_error err;
    size_t taken;

    world_open(NULL);
    REQUIRE(nymbl_body_stream(&body, 5, NULL) == NYMBL_OK);
    CHECK(nymbl_body_write(body, "%PDF-", 5, &taken) == NYMBL_OK);
    CHECK_TEXT(nymbl_body_type(body), "application/pdf");
    CHECK(nymbl_body_write(body, "1", 1, &taken) == NYMBL_DONE);
    CHECK(nymbl_body_write(body, "", 0, &taken) == NYMBL_DONE);
    nymbl_body_finish(body);
    CHECK(nymbl_body_type(body) == NULL);
    CHECK(!nymbl_body_can_rewind(body));
    CHECK(nymbl_upload_start(&transfer, world.engine, world.client, "tok", "7",
                             body, &options, &err) == NYMBL_IO);
    CHECK_TEXT(err.reason, "size_mismatch");
    nymbl_body_free(body);
    REQUIRE(nymbl_body_stream(&body, 5, NULL) == NYMBL_OK);
    nymbl_body_set_limit(body, 3);
    CHECK(nymbl_body_write(body, "1234", 4, &taken) == NYMBL_DONE);
    nymbl_body_finish(body); /* too early, but the first failure counts */
    CHECK(nymbl_upload_start(&transfer, world.engine, world.client, "tok", "7",
                             body, &options, &err) == NYMBL_TOO_LARGE);
    nymbl_body_free(body);
    body = body_of("x", 1);
    nymbl_body_finish(body); /* it is no stream: nothing happens */
    nymbl_body_set_source(body, 0);
    CHECK(nymbl_body_write(body, "1", 1, &taken) == NYMBL_MISUSE);
    CHECK(nymbl_body_can_rewind(body));
    nymbl_body_free(body);
    world_close();
}

/* A source that cannot rewind is read only after the server agrees. */
static void refusal_consumes_no_bytes_of_a_stream(void)
{
    nymbl_transfer *transfer;
    nymbl_error err;
    request request;
    peer peer;

    world_open(NULL);
    source_open(3, "123", 3, true);
    world.step(); /* everything, before the server refuses */
    transfer = start_upload(source.body);
    peer_accept(&peer);
    peer_read_head(&peer, &request);
    CHECK_TEXT(request_field(&request, "Expect"), "100-continue");
    peer_respond(&peer, 401, "", "{}");
    CHECK(ended(transfer, &err) == NYMBL_UNAUTHORIZED);
    CHECK(!err.outcome_unknown);
    CHECK_NUMBER(counts_of(transfer).body_sent, 0);
    CHECK(nymbl_body_can_rewind(source.body));
    nymbl_transfer_free(transfer);
    request_free(&request);
    peer_close(&peer);
    transfer = start_upload(source.body); /* with a new token */
    check_sent(transfer, "123", 3, false);
    nymbl_transfer_free(transfer);
    source_close();
    world_close();
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(bytes_arrive_with_their_fields),
        TEST(path_arrives_completely),
        TEST(body_is_sent_again_from_its_start),
        TEST(empty_bodies_arrive),
        TEST(stream_of_known_size_arrives_with_a_length),
        TEST(empty_stream_needs_no_end),
        TEST(short_stream_is_measured_first),
        TEST(long_stream_is_sent_in_chunks),
        TEST(stream_has_a_limit_before_it_is_sent),
        TEST(only_regular_files_are_bodies),
        TEST(body_belongs_to_one_transfer_at_a_time),
        TEST(stream_that_was_sent_cannot_be_sent_again),
        TEST(body_that_has_failed_stays_failed),
        TEST(refusal_consumes_no_bytes_of_a_stream),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
