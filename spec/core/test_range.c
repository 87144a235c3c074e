/* SPDX-License-Identifier: MIT */
/* Ranges of documents: what a caller gets of each response. */
#include "peer.h"

#define ETAG "\"v1\""

/* A document of 10 bytes: "0123456789". */
typedef struct response {
    const char *head; /* without the last empty line */
    const char *body;
    const char *result; /* the bytes that the caller gets, or the reason */
    nymbl_kind kind;    /* NYMBL_DONE: success */
    int64_t size;       /* the published size */
} response;

/* Respond to a request, and compare what the caller gets. The connection stays
 * open, so that a transfer that needs more bytes does not end. */
static void check_response(const nymbl_download_options *options,
                           const response *response)
{
    nymbl_transfer *transfer;
    nymbl_response head = {0};
    nymbl_error err = {0};
    text got = {0};
    peer peer;

    world_open(NULL);
    transfer = accept_request(start_download(options), &peer);
    peer_say(&peer, response->head);
    peer_say(&peer, "\r\n");
    peer_say(&peer, response->body);
    CHECK_NUMBER(read_all(transfer, &got, &err), response->kind);
    if (response->kind == NYMBL_DONE) {
        CHECK_TEXT(got.size > 0 ? got.data : "", response->result);
        CHECK(nymbl_transfer_response(transfer, &head, NULL) == NYMBL_OK);
        CHECK_NUMBER(head.content_length, response->size);
    } else {
        CHECK_TEXT(err.reason, response->result);
        CHECK_NUMBER(got.size, 0);
    }
    if (test_failed())
        printf("for: %s%s\n", response->head, response->body);
    nymbl_transfer_free(transfer);
    text_free(&got);
    peer_close(&peer);
    world_close();
}

static void check_responses(const nymbl_download_options *options,
                            const response *responses, size_t count)
{
    for (size_t i = 0; i < count; i++)
        check_response(options, &responses[i]);
}

#define CHECK_RESPONSES(options, responses)                                    \
    check_responses(options, responses,                                        \
                    sizeof(responses) / sizeof((responses)[0]))
#define PARTIAL(range, length)                                                 \
    "HTTP/1.1 206 P\r\nContent-Type: text/plain\r\n"                           \
    "Content-Length: " length "\r\nContent-Range: " range "\r\n"
#define CHUNKED "Transfer-Encoding: chunked\r\n"

static void only_the_requested_range_is_accepted(void)
{
    static const nymbl_download_options options = {
        .offset = 3, .has_length = true, .length = 4};
    static const response responses[] = {
        {PARTIAL("bytes 3-6/10", "4"), "3456", "3456", NYMBL_DONE, 4},
        {PARTIAL("bytes 3-6/*", "4"), "3456", "3456", NYMBL_DONE, 4},
        {PARTIAL("BYTES 3-6/10", "4"), "3456", "3456", NYMBL_DONE, 4},
        {PARTIAL("bytes 3-6/10\r\nContent-Range: bytes 3-6/10", "4"), "3456",
         "3456", NYMBL_DONE, 4},
        {PARTIAL("bytes 3-4/5", "2"), "34", "34", NYMBL_DONE, 2},
        {"HTTP/1.1 206 P\r\nContent-Range: bytes 3-6/10\r\n" CHUNKED,
         "4\r\n3456\r\n0\r\n\r\n", "3456", NYMBL_DONE, 4},
        /* nothing of the document is behind its end */
        {PARTIAL("bytes */3", "0"), "", "", NYMBL_DONE, 0},
        {PARTIAL("bytes 3-2/3", "0"), "", "", NYMBL_DONE, 0},
        {PARTIAL("bytes 3-6/3", "0"), "", "content_range", NYMBL_PROTOCOL, 0},
        {PARTIAL("bytes */3", "4"), "3456", "content_range", NYMBL_PROTOCOL, 0},
        /* another range */
        {PARTIAL("bytes 2-6/10", "5"), "23456", "content_range", NYMBL_PROTOCOL,
         0},
        {PARTIAL("bytes 3-5/10", "3"), "345", "content_range", NYMBL_PROTOCOL,
         0},
        {PARTIAL("bytes 3-7/10", "5"), "34567", "content_range", NYMBL_PROTOCOL,
         0},
        {PARTIAL("bytes 3-4/*", "2"), "34", "content_range", NYMBL_PROTOCOL, 0},
        {PARTIAL("bytes 3-6/10", "5"), "34567", "content_range", NYMBL_PROTOCOL,
         0},
        {PARTIAL("bytes */10", "4"), "3456", "content_range", NYMBL_PROTOCOL,
         0},
        {PARTIAL("bytes 6-3/10", "4"), "3456", "content_range", NYMBL_PROTOCOL,
         0},
        {PARTIAL("bytes 3-6/5", "4"), "3456", "content_range", NYMBL_PROTOCOL,
         0},
        {PARTIAL("lines 3-6/10", "4"), "3456", "content_range", NYMBL_PROTOCOL,
         0},
        {PARTIAL("3-6/10", "4"), "3456", "content_range", NYMBL_PROTOCOL, 0},
        {PARTIAL("bytes 3-6", "4"), "3456", "content_range", NYMBL_PROTOCOL, 0},
        {PARTIAL("bytes 3-6/x", "4"), "3456", "content_range", NYMBL_PROTOCOL,
         0},
        {PARTIAL("bytes 3-9223372036854775807/*", "4"), "3456", "content_range",
         NYMBL_PROTOCOL, 0},
        {PARTIAL("bytes 3-6/10\r\nContent-Range: x", "4"), "3456",
         "content_range", NYMBL_PROTOCOL, 0},
        /* one of them is not the range of the bytes */
        {PARTIAL("bytes 0-3/10\r\nContent-Range: bytes 3-6/10", "4"), "3456",
         "content_range", NYMBL_PROTOCOL, 0},
        {PARTIAL("bytes 3-6/11\r\nContent-Range: bytes 3-6/10", "4"), "3456",
         "content_range", NYMBL_PROTOCOL, 0},
        {PARTIAL("x\r\nContent-Range: bytes 3-6/10", "4"), "3456",
         "content_range", NYMBL_PROTOCOL, 0},
        {"HTTP/1.1 206 P\r\nContent-Length: 4\r\n", "3456", "content_range",
         NYMBL_PROTOCOL, 0},
        {"HTTP/1.1 206 P\r\nContent-Length: 4\r\nContent-Range: bytes 3-6/10"
         "\r\nContent-Type: multipart/byteranges; boundary=x\r\n",
         "3456", "content_range", NYMBL_PROTOCOL, 0},
        /* more or fewer bytes than the range has */
        {"HTTP/1.1 206 P\r\nContent-Range: bytes 3-6/10\r\n" CHUNKED,
         "5\r\n34567\r\n0\r\n\r\n", "size_mismatch", NYMBL_CORRUPT, 0},
    };

    CHECK_RESPONSES(&options, responses);
}

static void range_to_the_end_needs_the_size(void)
{
    static const nymbl_download_options options = {.offset = 3};
    static const response responses[] = {
        {PARTIAL("bytes 3-9/10", "7"), "3456789", "3456789", NYMBL_DONE, 7},
        {PARTIAL("bytes 3-8/10", "6"), "345678", "content_range",
         NYMBL_PROTOCOL, 0},
        {PARTIAL("bytes 3-9/*", "7"), "3456789", "content_range",
         NYMBL_PROTOCOL, 0},
        {PARTIAL("bytes 3-9223372036854775807/*", "7"), "3456789",
         "content_range", NYMBL_PROTOCOL, 0},
        {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n", "0123456789", "3456789",
         NYMBL_DONE, 7},
        {"HTTP/1.1 200 OK\r\n" CHUNKED, "a\r\n0123456789\r\n0\r\n\r\n",
         "3456789", NYMBL_DONE, -1},
    };

    CHECK_RESPONSES(&options, responses);
}

/* The rest of the response never arrives, unless the check of the first bytes
 * needs it. */
static void range_is_cut_out_of_the_document(void)
{
    static const nymbl_download_options options = {
        .offset = 13, .has_length = true, .length = 4};
    static const response responses[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n", "0123456789abcdefgh",
         "defg", NYMBL_DONE, 4},
        {"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n", "0123456789abcdefg",
         "defg", NYMBL_DONE, 4},
        {"HTTP/1.1 200 OK\r\n" CHUNKED, "14\r\n0123456789abcdefgh", "defg",
         NYMBL_DONE, -1},
        {"HTTP/1.1 200 OK\r\n" CHUNKED, "11\r\n0123456789abcdefg\r\n", "defg",
         NYMBL_DONE, -1},
        {"HTTP/1.1 200 OK\r\n", "0123456789abcdefgh", "defg", NYMBL_DONE, -1},
        {"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n", "0123456789abcdefg",
         "defg", NYMBL_DONE, 4},
        {"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n", "0123456789abcde", "de",
         NYMBL_DONE, 2},
        {"HTTP/1.1 200 OK\r\n" CHUNKED, "f\r\n0123456789abcde\r\n0\r\n\r\n",
         "de", NYMBL_DONE, -1},
        {"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n", "0123456789abc", "",
         NYMBL_DONE, 0},
        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", "01", "", NYMBL_DONE, 0},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", "", "", NYMBL_DONE, 0},
    };

    CHECK_RESPONSES(&options, responses);
}

static void empty_range_is_requested_as_one_byte(void)
{
    static const nymbl_download_options options = {.offset = 3,
                                                   .has_length = true};
    static const response responses[] = {
        {PARTIAL("bytes 3-3/10", "1"), "3", "", NYMBL_DONE, 0},
        {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n", "01234567890123456", "",
         NYMBL_DONE, 0},
    };
    nymbl_transfer *transfer;
    request request;
    peer peer;

    CHECK_RESPONSES(&options, responses);
    world_open(NULL);
    transfer = start_download(&options);
    peer_accept(&peer);
    peer_read(&peer, &request);
    CHECK_TEXT(request_field(&request, "Range"), "bytes=3-3");
    request_free(&request);
    nymbl_transfer_free(transfer);
    peer_close(&peer);
    world_close();
}

#define REFUSED "HTTP/1.1 416 R\r\nContent-Length: 2\r\n"

static void status_416_is_the_end_only_if_it_says_so(void)
{
    static const nymbl_download_options unknown = {.offset = 10};
    static const nymbl_download_options known = {
        .offset = 10, .has_size = true, .size = 10};
    static const response for_unknown[] = {
        {REFUSED "Content-Range: bytes */10\r\n", "{}", "", NYMBL_DONE, 0},
        {REFUSED "Content-Range: bytes */4\r\n", "{}", "", NYMBL_DONE, 0},
        {REFUSED "Content-Range: bytes */11\r\n", "{}", "range_refused",
         NYMBL_HTTP, 0},
        {REFUSED, "{}", "range_refused", NYMBL_HTTP, 0},
        {REFUSED "Content-Range: bytes */*\r\n", "{}", "range_refused",
         NYMBL_HTTP, 0},
    };
    static const response for_known[] = {
        {REFUSED "Content-Range: bytes */10\r\n", "{}", "", NYMBL_DONE, 0},
        {REFUSED, "{}", "", NYMBL_DONE, 0},
        {REFUSED "Content-Range: bytes */4\r\n", "{}", "range_refused",
         NYMBL_HTTP, 0},
    };
    static const response whole = {REFUSED "Content-Range: bytes */0\r\n", "{}",
                                   NULL, NYMBL_HTTP, 0};

    CHECK_RESPONSES(&unknown, for_unknown);
    CHECK_RESPONSES(&known, for_known);
    check_response(
        &(nymbl_download_options){.offset = 10, .no_range_request = true},
        &whole);
    check_response(NULL, &whole);
}

#define WITH(etag) "ETag: " etag "\r\n"

static void other_version_is_refused(void)
{
    static const nymbl_download_options options = {
        .offset = 3, .has_length = true, .length = 4, .if_match = ETAG};
    static const response responses[] = {
        {PARTIAL("bytes 3-6/10", "4") WITH(ETAG), "3456", "3456", NYMBL_DONE,
         4},
        {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n" WITH(ETAG), "0123456789",
         "3456", NYMBL_DONE, 4},
        {PARTIAL("bytes 3-6/10", "4") WITH("\"v2\""), "3456", "changed",
         NYMBL_CORRUPT, 0},
        {PARTIAL("bytes 3-6/10", "4") WITH("W/" ETAG), "3456", "changed",
         NYMBL_CORRUPT, 0},
        {PARTIAL("bytes 3-6/10", "4"), "3456", "changed", NYMBL_CORRUPT, 0},
        {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n" WITH("\"v2\""),
         "0123456789", "changed", NYMBL_CORRUPT, 0},
        {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n", "0123456789", "changed",
         NYMBL_CORRUPT, 0},
        {"HTTP/1.1 412 No\r\nContent-Length: 2\r\n", "{}", "changed",
         NYMBL_CORRUPT, 0},
        {REFUSED "Content-Range: bytes */3\r\n" WITH(ETAG), "{}", "",
         NYMBL_DONE, 0},
        {REFUSED "Content-Range: bytes */3\r\n" WITH("\"v2\""), "{}",
         "range_refused", NYMBL_HTTP, 0},
        {REFUSED "Content-Range: bytes */3\r\n", "{}", "range_refused",
         NYMBL_HTTP, 0},
    };
    nymbl_transfer *transfer;
    request request;
    peer peer;

    CHECK_RESPONSES(&options, responses);
    world_open(NULL);
    transfer = start_download(&options);
    peer_accept(&peer);
    peer_read(&peer, &request);
    CHECK_TEXT(request_field(&request, "If-Match"), ETAG);
    CHECK_TEXT(request_field(&request, "Range"), "bytes=3-6");
    request_free(&request);
    nymbl_transfer_free(transfer);
    peer_close(&peer);
    world_close();
}

static void validators_are_published(void)
{
    nymbl_transfer *transfer;
    nymbl_response head;
    peer peer;

    world_open(NULL);
    transfer = accept_request(start_download(NULL), &peer);
    peer_respond(&peer, 200,
                 WITH(ETAG) "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
                 "content of it all");
    AWAIT(nymbl_transfer_response(transfer, &head, NULL) == NYMBL_OK);
    CHECK_TEXT(head.etag, ETAG);
    CHECK_TEXT(head.last_modified, "Sun, 06 Nov 1994 08:49:37 GMT");
    nymbl_transfer_free(transfer);
    peer_close(&peer);
    transfer = accept_request(start_download(NULL), &peer);
    peer_respond(&peer, 200, WITH("W/" ETAG) "Last-Modified: today\r\n",
                 "content of it all");
    AWAIT(nymbl_transfer_response(transfer, &head, NULL) == NYMBL_OK);
    CHECK(head.etag == NULL);
    CHECK(head.last_modified == NULL);
    nymbl_transfer_free(transfer);
    peer_close(&peer);
    world_close();
}

/* The window is full while the end of the range arrives, so that libcurl is
 * paused there. */
static void paused_range_ends_early(void)
{
    enum { SIZE = 400000, END = 300000 };
    nymbl_download_options options = {
        .offset = 1000, .has_length = true, .length = END - 1000};
    char *data = pattern(SIZE);
    nymbl_transfer *transfer;
    nymbl_error err;
    text got = {0};
    peer peer;

    world_open(NULL);
    transfer = accept_request(start_download(&options), &peer);
    peer_say(&peer, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
    peer_send(&peer, data, END + 1);
    world_settle();
    CHECK_NUMBER(read_all(transfer, &got, &err), NYMBL_DONE);
    CHECK_NUMBER(got.size, END - 1000);
    CHECK(memcmp(got.data, data + 1000, got.size) == 0);
    CHECK(counts_of(transfer).body_received <= END + 1);
    nymbl_transfer_free(transfer);
    text_free(&got);
    free(data);
    peer_close(&peer);
    world_close();
}

static void invalid_ranges_are_misuse(void)
{
    static const nymbl_download_options bad[] = {
        {.offset = -1},
        {.has_length = true, .length = -1},
        {.if_match = ""},
        {.if_match = "v1"},
        {.if_match = "W/" ETAG},
        {.if_match = "\"a\r\nX: y\""},
        {.path = "/tmp/x", .offset = 1},
        {.path = "/tmp/x", .has_length = true},
        {.path = "/tmp/x", .if_match = ETAG},
        {.sha256 = true, .offset = 1},
        {.sha256 = true, .has_length = true},
    };

    world_open(NULL);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        nymbl_transfer *transfer;
        nymbl_error err;

        CHECK(nymbl_download_start(&transfer, world.engine, world.client, "t",
                                   "7", "9", &bad[i], &err) == NYMBL_MISUSE);
        CHECK_TEXT(err.reason, "download");
        CHECK(transfer == NULL);
    }
    world_close();
}

static void largest_range_does_not_overflow(void)
{
    static const nymbl_download_options options = {
        .offset = INT64_MAX - 1, .has_length = true, .length = INT64_MAX};
    static const response responses[] = {
        {REFUSED "Content-Range: bytes */10\r\n", "{}", "", NYMBL_DONE, 0},
        {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n", "0123456789", "",
         NYMBL_DONE, 0},
        {PARTIAL("bytes 9223372036854775806-9223372036854775806/"
                 "9223372036854775807",
                 "1"),
         "x", "x", NYMBL_DONE, 1},
        {PARTIAL("bytes 0-9223372036854775806/9223372036854775807",
                 "9223372036854775807"),
         "x", "content_range", NYMBL_PROTOCOL, 0},
    };

    CHECK_RESPONSES(&options, responses);
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(only_the_requested_range_is_accepted),
        TEST(range_to_the_end_needs_the_size),
        TEST(range_is_cut_out_of_the_document),
        TEST(empty_range_is_requested_as_one_byte),
        TEST(status_416_is_the_end_only_if_it_says_so),
        TEST(other_version_is_refused),
        TEST(validators_are_published),
        TEST(paused_range_ends_early),
        TEST(invalid_ranges_are_misuse),
        TEST(largest_range_does_not_overflow),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
