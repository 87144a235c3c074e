/* SPDX-License-Identifier: MIT */
/* Responses that versions of libcurl treat differently, or that have two
 * lengths: every operation has the same result with every version. */
#include "peer.h"

enum {
    TOKEN = 1,
    UPLOAD = 2,
    LIST = 4,
    GET = 8,
    DOWNLOAD = 16,
    DELETE = 32,
    ALL = 63,
};

static const int operations[] = {TOKEN, UPLOAD, LIST, GET, DOWNLOAD, DELETE};

static nymbl_transfer *start(int operation)
{
    nymbl_transfer *transfer = NULL;

    switch (operation) {
    case TOKEN:
        REQUIRE(nymbl_token_start(&transfer, world.engine, world.client,
                                  NULL) == NYMBL_OK);
        break;
    case UPLOAD: {
        nymbl_body *body = body_of("%PDF-", 5);

        transfer = start_upload(body);
        nymbl_body_free(body);
        break;
    }
    case LIST:
        transfer = start_list(NULL);
        break;
    case GET:
        transfer = start_get();
        break;
    case DOWNLOAD:
        transfer = start_download(NULL);
        break;
    case DELETE:
        transfer = start_delete();
        break;
    }
    return transfer;
}

static nymbl_kind answered(int operation, const char *response, size_t size,
                           nymbl_error *err)
{
    nymbl_client_options options = {.client_id = "i", .client_secret = "s"};
    nymbl_transfer *transfer;
    nymbl_kind kind;
    text got = {0};
    peer peer;

    world_open(NULL);
    nymbl_client_free(world.client);
    world.client = token_client(options);
    transfer = accept_request(start(operation), &peer);
    peer_send(&peer, response, size);
    peer_close(&peer);
    *err = (nymbl_error){0};
    if (operation == DOWNLOAD)
        read_all(transfer, &got, err);
    kind = ended(transfer, err);
    nymbl_transfer_free(transfer);
    text_free(&got);
    world_close();
    return kind;
}

/* The response ends each of these operations in the same way. */
static void check(int those, const char *response, size_t size, nymbl_kind kind,
                  const char *reason, int status)
{
    for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
        nymbl_error err;
        bool good;

        if ((operations[i] & those) == 0)
            continue;
        good =
            CHECK_NUMBER(answered(operations[i], response, size, &err), kind);
        if (kind < 0) {
            good = CHECK_TEXT(err.reason, reason) && good;
            good = CHECK_NUMBER(err.status, status) && good;
            /* the request was sent, so it may have been carried out */
            good = CHECK(err.outcome_unknown ==
                         ((operations[i] & (UPLOAD | DELETE)) != 0 &&
                          status < 300)) &&
                   good;
        }
        if (!good)
            printf("for operation %d: %.100s\n", operations[i], response);
    }
}

#define SAY(those, response, kind, reason, status)                             \
    check(those, response, sizeof(response) - 1, kind, reason, status)
#define OK_HEAD "HTTP/1.1 200 OK\r\n"
#define BODY "{\"a\":1}" /* 7 bytes */
#define PDF "%PDF-1."    /* 7 bytes */
#define CHUNKS "7\r\n" BODY "\r\n0\r\n\r\n"

static void two_lengths_are_refused(void)
{
    static const char *const pairs[] = {
        "Content-Length: 7\r\nContent-Length: 8",
        "Content-Length: 8\r\nContent-Length: 7",
        "Content-Length: 7\r\ncontent-length: 07 , 8",
        "Content-Length: 7\r\nX: y\r\nContent-Length: 7\r\nContent-Length: 5",
        "Content-Length: 7, 8",
        "Content-Length: 8,7",
        "Content-Length: 7,7,7, 6",
        "Content-Length: 7,",
        "Content-Length: ,7",
        "Content-Length: 7,,7",
        "Content-Length: 7 7",
        "Content-Length: 7;7",
        "Content-Length: 7 bytes",
        "Content-Length: 7x",
        "Content-Length: 0x7",
        "Content-Length: 7.0",
        "Content-Length: +7",
        "Content-Length: -7",
        "Content-Length: \"7\"",
        "Content-Length:",
        "Content-Length: \t",
        "Content-Length: seven",
        "Content-Length: 7\r\nX-Amzn-Remapped-Content-Length: 20016",
        "X-Amzn-Remapped-Content-Length: 20016\r\nContent-Length: 7",
        "X-Amzn-Remapped-Content-Length: 7, 9",
        ("X-Amzn-Remapped-Content-Length: 7\r\n"
         "X-Amzn-Remapped-Content-Length: 9"),
        "Content-Length: 7\r\nX-Amzn-Remapped-Content-Length: x",
        "Content-Length: 7\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 7",
        "Transfer-Encoding: chunked\r\nContent-Length: 19",
    };

    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        bool chunked = strstr(pairs[i], "chunked") != NULL;
        char response[512];
        int size = snprintf(response, sizeof(response), OK_HEAD "%s\r\n\r\n%s",
                            pairs[i], chunked ? CHUNKS : BODY);

        check(ALL, response, (size_t)size, NYMBL_PROTOCOL, "bad_response", 0);
    }
    /* whatever the status */
    SAY(ALL,
        "HTTP/1.1 404 None\r\nContent-Length: 7\r\nContent-Length: 5\r\n\r\n"
        "{\"a\":1}",
        NYMBL_PROTOCOL, "bad_response", 0);
    SAY(ALL,
        "HTTP/1.1 302 Found\r\nContent-Length: 0, 1\r\nLocation: /x\r\n\r\n",
        NYMBL_PROTOCOL, "bad_response", 0);
}

static void one_length_that_is_repeated_is_accepted(void)
{
    static const char *const lengths[] = {
        "Content-Length: 7",
        "Content-Length: 7\r\nContent-Length: 7",
        "Content-Length: 7, 7",
        "Content-Length: 7,7",
        "Content-Length: 7 ,\t7 , 007",
        "Content-Length: 7, 7\r\nContent-Length: 7",
        "Content-Length: 7\r\nX-Amzn-Remapped-Content-Length: 7",
        "X-Amzn-Remapped-Content-Length: 7, 7\r\nContent-Length: 7",
    };

    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        char response[512];
        int size = snprintf(response, sizeof(response), OK_HEAD "%s\r\n\r\n%s",
                            lengths[i], PDF);

        check(ALL, response, (size_t)size, NYMBL_OK, NULL, 0);
        check(ALL & ~DELETE, response, (size_t)size - 1, NYMBL_TRUNCATED, NULL,
              200);
    }
}

static void malformed_status_is_refused(void)
{
    static const char *const lines[] = {
        "HTTP/1.1 999999 OK", "HTTP/1.1 2000 OK",
        "HTTP/1.1 20 OK",     "HTTP/1.1 200OK",
        "HTTP/1.1 0200 OK",   "HTTP/1.1 099 OK",
        "HTTP/1.1 000 OK",    "HTTP/1.1 -20 OK",
        "HTTP/1.1 2e2 OK",    "HTTP/1.1 xyz",
        "HTTP/1.1",           "HTTP/2 200 OK",
        "HTTP/2.0 200 OK",    "HTTP/3 200 OK",
        "HTTP/9.9 200 OK",    "HTTP/1.x 200 OK",
        "HTTP/1.1\t200 OK",   "hello",
        "SSH-2.0-OpenSSH",    "",
        "ICY 200 OK",         "RTSP/1.0 200 OK",
        " HTTP/1.1 200 OK",   "HTTP 200 OK",
        "HTTP/1.1 101 Hello", "\"HTTP/1.1 200",
        "http/1.1 200 OK",
    };

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        char response[512];
        int size = snprintf(response, sizeof(response),
                            "%s\r\nContent-Length: 7\r\n\r\n%s", lines[i], PDF);

        check(ALL, response, (size_t)size, NYMBL_PROTOCOL, "bad_response", 0);
    }
}

static void coding_that_was_not_requested_is_refused(void)
{
    static const char *const codings[] = {
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: deflate",
        "Transfer-Encoding: br",
        "Transfer-Encoding: zstd",
        "Transfer-Encoding: x-gzip",
        "Transfer-Encoding: compress",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked;a=b",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: unheard-of",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    };
    static const char *const heads[] = {OK_HEAD, "HTTP/1.1 404 None\r\n",
                                        "HTTP/1.1 302 Found\r\n"};

    for (size_t i = 0; i < 3 * sizeof(codings) / sizeof(codings[0]); i++) {
        char response[512];
        int size = snprintf(response, sizeof(response), "%s%s\r\n\r\n" CHUNKS,
                            heads[i % 3], codings[i / 3]);

        check(ALL & ~DOWNLOAD, response, (size_t)size, NYMBL_PROTOCOL,
              "transfer_encoding", 0);
        check(DOWNLOAD, response, (size_t)size, NYMBL_CORRUPT,
              "transfer_encoding", 0);
    }
}

static void malformed_chunks_are_refused(void)
{
    static const char *const chunks[] = {
        "x\r\n" BODY "\r\n0\r\n\r\n",
        "-7\r\n" BODY "\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\n" BODY "\r\n0\r\n\r\n",
        "7\r\n" BODY "x\r\n0\r\n\r\n",
        "\r\n" BODY "\r\n0\r\n\r\n",
    };

    for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
        char response[512];
        int size =
            snprintf(response, sizeof(response),
                     OK_HEAD "Transfer-Encoding: chunked\r\n\r\n%s", chunks[i]);

        check(ALL, response, (size_t)size, NYMBL_TRUNCATED, NULL, 200);
    }
}

/* Every byte value at some position in a head: no version may see another
 * response than the others. */
static void byte_in_a_head_has_one_result(void)
{
    for (int byte = 0; byte < 256; byte++) {
        char response[] = OK_HEAD "Content-Length: 7?\r\n\r\n" PDF;
        bool good = byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';

        *strchr(response, '?') = (char)byte;
        if (byte >= '0' && byte <= '9')
            continue;
        if (good)
            check(GET, response, sizeof(response) - 1, NYMBL_OK, NULL, 0);
        else
            check(GET | DOWNLOAD, response, sizeof(response) - 1,
                  NYMBL_PROTOCOL, "bad_response", 0);
    }
}

static void check_long(size_t size, const char *head, const char *end)
{
    char *response = malloc(size + 200);
    size_t length = strlen(head);

    memcpy(response, head, length);
    memset(response + length, 'x', size);
    memcpy(response + length + size, end, strlen(end) + 1);
    check(GET | DOWNLOAD | UPLOAD, response, length + size + strlen(end),
          NYMBL_PROTOCOL, "head_too_long", 0);
    free(response);
}

static void head_that_is_too_long_has_one_reason(void)
{
    static const size_t sizes[] = {65536,  70000,  99000,   102400,
                                   103000, 310000, 1100000, 1300000};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        check_long(sizes[i],
                   OK_HEAD "X-Pad: ", "\r\nContent-Length: 0\r\n\r\n");
        if (sizes[i] > 1048576) /* libcurl itself ends an endless head */
            check_long(sizes[i], OK_HEAD "X-Pad: ", "");
        check_long(sizes[i], "HTTP/1.1 200 ", "\r\nContent-Length: 0\r\n\r\n");
    }
}

/* The target of a download's redirect: no byte below a blank, and no DEL. */
static void location_with_control_characters_is_refused(void)
{
    for (int byte = 1; byte < 256; byte++) {
        char response[] = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n"
                          "Location: /a?b\r\n\r\n";

        if ((byte >= ' ' && byte != 0x7f) || byte == '\n')
            continue;
        *strchr(response, '?') = (char)byte;
        check(DOWNLOAD, response, sizeof(response) - 1, NYMBL_REDIRECT,
              "bad_location", 302);
    }
}

static void second_location_is_refused(void)
{
    SAY(DOWNLOAD,
        "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: ftp://x/\r\n"
        "Location: ftp://x/\r\n\r\n",
        NYMBL_REDIRECT, "https_downgrade", 302);
    SAY(ALL,
        "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /x\r\n"
        "Location: /y\r\n\r\n",
        NYMBL_PROTOCOL, "bad_response", 0);
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(two_lengths_are_refused),
        TEST(one_length_that_is_repeated_is_accepted),
        TEST(malformed_status_is_refused),
        TEST(coding_that_was_not_requested_is_refused),
        TEST(malformed_chunks_are_refused),
        TEST(byte_in_a_head_has_one_result),
        TEST(head_that_is_too_long_has_one_reason),
        TEST(location_with_control_characters_is_refused),
        TEST(second_location_is_refused),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
