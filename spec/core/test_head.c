/* SPDX-License-Identifier: MIT */
/* The reply's head, line by line, as libcurl hands it over. */
#include "internal.h"
#include "test.h"

#include <time.h>

static nymbl_engine *engine;
static nymbl_client *client;
static nymbl_transfer *transfer;

static void head_open(nymbl__operation operation)
{
    nymbl_client_options options = {.base_url = "https://x", .api_key = "k"};

    REQUIRE(nymbl_engine_new(&engine, NULL, NULL) == NYMBL_OK);
    REQUIRE(nymbl_client_new(&client, &options, NULL) == NYMBL_OK);
    REQUIRE(nymbl__transfer_new(&transfer, engine, client, NULL) == NYMBL_OK);
    transfer->request.operation = operation;
}

static void head_close(void)
{
    nymbl__transfer_release(transfer);
    nymbl_client_free(client);
    nymbl_engine_free(engine);
    CHECK_NUMBER(nymbl_live_objects(), 0);
}

/* Lines without their ends, "" for the empty one; whether it goes on. */
static bool say(const char *line)
{
    size_t size = strlen(line) + 2;
    char *exact = malloc(size + 1); /* so that a sanitizer sees its end */
    bool on;

    memcpy(exact, line, size - 2);
    memcpy(exact + size - 2, "\r\n", 3);
    on = nymbl__head_line(exact, 1, size, transfer) == size;
    free(exact);
    return on;
}

static void fields_that_matter_are_taken(void)
{
    nymbl__reply_head *head;

    head_open(NYMBL__GET);
    head = &transfer->head;
    CHECK(say("HTTP/1.1 429 Too Many"));
    CHECK(say("CONTENT-length:  12 "));
    CHECK(say("content-type: application/json; charset=utf-8\t"));
    CHECK(say("X-Amzn-Remapped-Content-Length: 34"));
    CHECK(say("x-amzn-ErrorType: LimitExceededException:http://y"));
    CHECK(say("Retry-After: 120"));
    CHECK(say("Location: /a:b"));
    CHECK(!head->done);
    CHECK(say(""));
    CHECK(head->done);
    CHECK_NUMBER(head->status, 429);
    CHECK_NUMBER(head->length, 12);
    CHECK_NUMBER(head->remapped_length, 34);
    CHECK_TEXT(head->content_type, "application/json; charset=utf-8");
    CHECK(head->has_type && head->limit_exceeded && !head->chunked);
    CHECK(head->retry_after == 120);
    CHECK_TEXT(head->location, "/a:b");
    head_close();
}

static void numbers_that_are_none_are_not_taken(void)
{
    static const char *const bad[] = {"",
                                      "-1",
                                      "+1",
                                      "x",
                                      "1x",
                                      "0x10",
                                      "1.5",
                                      "1,1",
                                      "12 12",
                                      "9223372036854775808",
                                      "99999999999999999999999999999"};
    char line[128];

    head_open(NYMBL__GET);
    CHECK(say("HTTP/1.1 200 OK"));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        transfer->head.length = 7;
        snprintf(line, sizeof(line), "Content-Length: %s", bad[i]);
        CHECK(say(line));
        CHECK_NUMBER(transfer->head.length, -1);
    }
    CHECK(say("Content-Length: 1000000000000000000"));
    CHECK_NUMBER(transfer->head.length, 1000000000000000000LL);
    CHECK(say("Content-Length: 0"));
    CHECK_NUMBER(transfer->head.length, 0);
    CHECK(say("Content-Length: 1")); /* a second one counts */
    CHECK_NUMBER(transfer->head.length, 1);
    head_close();
}

static void retry_after_is_seconds_or_a_date(void)
{
    char line[128], date[64];
    time_t then = time(NULL) + 1000;

    head_open(NYMBL__GET);
    CHECK(say("HTTP/1.1 503 x"));
    CHECK(transfer->head.retry_after < 0);
    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime(&then));
    snprintf(line, sizeof(line), "Retry-After: %s", date);
    CHECK(say(line));
    CHECK(transfer->head.retry_after > 900 &&
          transfer->head.retry_after <= 1000);
    CHECK(say("Retry-After: Sun, 06 Nov 1994 08:49:37 GMT"));
    CHECK(transfer->head.retry_after == 0);
    CHECK(say("Retry-After: soon"));
    CHECK(transfer->head.retry_after < 0);
    CHECK(say("Retry-After: -5"));
    CHECK(transfer->head.retry_after <= 0);
    CHECK(say("Retry-After: "));
    CHECK(transfer->head.retry_after < 0);
    CHECK(say("Retry-After: 99999999999999999999"));
    CHECK(transfer->head.retry_after < 0 || transfer->head.retry_after > 1e9);
    head_close();
}

static void codings_are_told(void)
{
    nymbl__reply_head *head;

    head_open(NYMBL__GET);
    head = &transfer->head;
    CHECK(say("HTTP/1.1 200 x"));
    CHECK(say("Content-Encoding: identity"));
    CHECK(say("Content-Encoding:"));
    CHECK(!head->encoded);
    CHECK(say("Transfer-Encoding: Chunked"));
    CHECK(head->chunked && !head->encoded);
    CHECK(say("Transfer-Encoding: identity")); /* tells no end */
    CHECK(!head->chunked && !head->encoded);
    CHECK(say("Content-Encoding: br"));
    CHECK(head->encoded);
    head_close();
}

static void heads_before_the_final_one_are_forgotten(void)
{
    nymbl__reply_head *head;

    head_open(NYMBL__GET);
    head = &transfer->head;
    CHECK(say("HTTP/1.1 103 Early"));
    CHECK(say("Content-Length: 99"));
    CHECK(say("Location: /x"));
    CHECK(say("Retry-After: 5"));
    CHECK(say(""));
    CHECK(!head->done);
    CHECK(say("HTTP/1.1 200 OK"));
    CHECK_NUMBER(head->length, -1);
    CHECK(head->location == NULL && head->retry_after < 0);
    CHECK(say(""));
    CHECK(head->done && head->status == 200);
    head_close();
}

static void trailers_say_nothing(void)
{
    head_open(NYMBL__GET);
    CHECK(say("HTTP/1.1 200 OK"));
    CHECK(say("Content-Type: a/b"));
    CHECK(say(""));
    CHECK(say("Content-Type: c/d"));
    CHECK(say("Content-Length: 5"));
    CHECK(say("HTTP/1.1 500 x"));
    CHECK(say(""));
    CHECK_TEXT(transfer->head.content_type, "a/b");
    CHECK_NUMBER(transfer->head.length, -1);
    CHECK_NUMBER(transfer->head.status, 200);
    head_close();
}

static void all_heads_have_one_limit(void)
{
    size_t lines = 0;

    head_open(NYMBL__GET);
    while (say(lines % 2 == 0 ? "HTTP/1.1 100 Continue" : "") && lines < 99999)
        lines++;
    CHECK(transfer->failing == NYMBL_PROTOCOL);
    CHECK_TEXT(transfer->failing_reason, "head_too_long");
    CHECK(transfer->head.bytes > 65536 && transfer->head.bytes < 65600);
    head_close();
    head_open(NYMBL__GET);
    CHECK(say("HTTP/1.1 200 OK"));
    CHECK(say(""));
    for (lines = 0; say("X: 0123456789") && lines < 99999; lines++)
        ;
    CHECK(lines < 5000); /* trailers count */
    head_close();
}

static void lines_that_are_no_fields_are_passed_over(void)
{
    static const char *const lines[] = {"no colon",
                                        ":",
                                        ": value",
                                        " folded: x",
                                        "a:",
                                        "HTTP/1.1",
                                        "Content-Length",
                                        "\x01\x02: \xff",
                                        "Content-Length : 5"};

    head_open(NYMBL__GET);
    CHECK(say("HTTP/1.1 200 OK"));
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        CHECK(i == 5 || say(lines[i]));
    CHECK_NUMBER(transfer->head.length, -1);
    CHECK(say("HTTP/1.1"));
    CHECK(say(""));
    CHECK(!transfer->head.done); /* no status */
    head_close();
}

static void type_that_is_too_long_is_ignored(void)
{
    char line[600] = "Content-Type: ";

    head_open(NYMBL__GET);
    memset(line + 14, 'x', 500);
    CHECK(say("HTTP/1.1 200 OK"));
    CHECK(say(line));
    CHECK(!transfer->head.has_type);
    line[14 + NYMBL__TYPE_MAX - 1] = '\0';
    CHECK(say(line));
    CHECK(transfer->head.has_type);
    head_close();
}

static void document_of_another_size_is_told_by_the_head(void)
{
    head_open(NYMBL__DOWNLOAD);
    transfer->has_size = true;
    transfer->size = 10;
    CHECK(say("HTTP/1.1 200 OK"));
    CHECK(say("Content-Length: 11"));
    CHECK(!say(""));
    CHECK(transfer->failing == NYMBL_CORRUPT);
    CHECK_TEXT(transfer->failing_reason, "size");
    head_close();
    head_open(NYMBL__DOWNLOAD);
    strcpy(transfer->known_type, "application/pdf");
    CHECK(say("HTTP/1.1 200 OK"));
    CHECK(say("Content-Type: application/json"));
    CHECK(!say(""));
    CHECK(transfer->failing == NYMBL_CORRUPT);
    CHECK_TEXT(transfer->failing_reason, "type");
    head_close();
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(fields_that_matter_are_taken),
        TEST(numbers_that_are_none_are_not_taken),
        TEST(retry_after_is_seconds_or_a_date),
        TEST(codings_are_told),
        TEST(heads_before_the_final_one_are_forgotten),
        TEST(trailers_say_nothing),
        TEST(all_heads_have_one_limit),
        TEST(lines_that_are_no_fields_are_passed_over),
        TEST(type_that_is_too_long_is_ignored),
        TEST(document_of_another_size_is_told_by_the_head),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
