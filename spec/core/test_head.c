/* SPDX-License-Identifier: MIT */
/* The response's head, line by line, as libcurl passes it. */
#include "base/validator.h"
#include "engine/transfer.h"
#include "exchange/response.h"
#include "exchange/easy.h"
#include "test.h"

#include <time.h>

static nymbl_engine *engine;
static nymbl_client *client;
static nymbl_transfer *transfer;

static void head_open(nymbl_expected expected)
{
    nymbl_client_options options = {.base_url = "https://x", .api_key = "k"};

    REQUIRE(nymbl_engine_new(&engine, NULL, NULL) == NYMBL_OK);
    REQUIRE(nymbl_client_new(&client, &options, NULL) == NYMBL_OK);
    REQUIRE(nymbl__transfer_new(&transfer, engine, client, NULL) == NYMBL_OK);
    transfer->exchange.request.expected = expected;
}

static void head_close(void)
{
    nymbl__transfer_release(transfer);
    nymbl_client_free(client);
    nymbl_engine_free(engine);
    CHECK_NUMBER(nymbl_object_count(), 0);
}

/* Process lines without line endings ("" for the empty line). Returns whether
 * it continues. */
static bool say(const char *line)
{
    size_t size = strlen(line) + 2;
    char *exact = malloc(size + 1); /* lets a sanitizer detect overreads */
    bool on;

    memcpy(exact, line, size - 2);
    memcpy(exact + size - 2, "\r\n", 3);
    on = nymbl__easy_header(&transfer->exchange, exact, size);
    free(exact);
    return on;
}

static void relevant_fields_are_read(void)
{
    nymbl__response_head *head;

    head_open(NYMBL_EXPECT_JSON);
    head = &transfer->exchange.head;
    CHECK(say("HTTP/1.1 429 Too Many"));
    CHECK(say("CONTENT-length:  12 "));
    CHECK(say("content-type: application/json; charset=utf-8\t"));
    CHECK(say("X-Amzn-Remapped-Content-Length: 12"));
    CHECK(say("x-amzn-ErrorType: LimitExceededException:http://y"));
    CHECK(say("Retry-After: 120"));
    CHECK(say("Location: /a:b"));
    CHECK(!head->done);
    CHECK(say(""));
    CHECK(head->done);
    CHECK_NUMBER(head->status, 429);
    CHECK_NUMBER(head->length, 12);
    CHECK_NUMBER(head->remapped_length, 12);
    CHECK_TEXT(head->content_type, "application/json; charset=utf-8");
    CHECK(head->has_type && head->limit_exceeded && !head->chunked);
    CHECK(head->retry_after == 120);
    CHECK_TEXT(head->location, "/a:b");
    head_close();
}

static void malformed_numbers_are_ignored(void)
{
    static const char *const bad[] = {
        "",     "-1",  "+1",     "x",     "1x",    "0x10",  "1.5",  "1,2",
        "1, 2", "1 1", "12 12",  "1,",    ",1",    ",",     "1,,1", "1,x",
        "1;1",  "1 ,", "1, 1 x", "\"1\"", "1\x80", "1\x0b",
    };
    static const char *const names[] = {"Content-Length",
                                        "X-Amzn-Remapped-Content-Length"};
    char line[128];

    for (size_t i = 0; i < 2 * sizeof(bad) / sizeof(bad[0]); i++) {
        head_open(NYMBL_EXPECT_JSON);
        CHECK(say("HTTP/1.1 200 OK"));
        snprintf(line, sizeof(line), "%s: %s", names[i % 2], bad[i / 2]);
        if (!CHECK(!say(line)))
            printf("for: %s\n", line);
        CHECK_NUMBER(transfer->exchange.head.length, -1);
        CHECK_NUMBER(transfer->exchange.head.remapped_length, -1);
        CHECK(transfer->exchange.failure == NYMBL_PROTOCOL);
        CHECK_TEXT(transfer->exchange.failure_reason, "bad_response");
        head_close();
    }
}

static void repeated_equal_number_counts_once(void)
{
    head_open(NYMBL_EXPECT_JSON);
    CHECK(say("HTTP/1.1 200 OK"));
    CHECK(say("Content-Length: 1000000000000000000"));
    CHECK_NUMBER(transfer->exchange.head.length, 1000000000000000000LL);
    CHECK(say("Content-Length: 1000000000000000000 , 1000000000000000000"));
    CHECK(say("X-Amzn-Remapped-Content-Length: 1000000000000000000"));
    CHECK_NUMBER(transfer->exchange.head.length, 1000000000000000000LL);
    CHECK(!say("Content-Length: 0"));
    CHECK(transfer->exchange.failure == NYMBL_PROTOCOL);
    head_close();
    head_open(NYMBL_EXPECT_JSON);
    CHECK(say("HTTP/1.1 103 Early")); /* each head is counted separately */
    CHECK(say("Content-Length: 1"));
    CHECK(say(""));
    CHECK(say("HTTP/1.1 200 OK"));
    CHECK(say("Content-Length: 0,0"));
    CHECK_NUMBER(transfer->exchange.head.length, 0);
    CHECK(say(""));
    head_close();
}

static void check_length(const char *value, int64_t length)
{
    char line[128];

    head_open(NYMBL_EXPECT_JSON);
    CHECK(say("HTTP/1.1 200 OK"));
    snprintf(line, sizeof(line), "Content-Length: %s", value);
    if (!CHECK(say(line) == (length >= 0)))
        printf("%s\n", line);
    CHECK_NUMBER(transfer->exchange.head.length, length);
    CHECK(transfer->exchange.failure ==
          (length < 0 ? NYMBL_PROTOCOL : NYMBL_OK));
    head_close();
}

/* libcurl parses the digits at the beginning of such a value. */
static void malformed_length_is_refused(void)
{
    static const char *const bad[] = {
        "",    "-1",     "+1",    "x", "1x", "0x10", "1.5",  "12 12", "30)",
        "1,2", "12,12x", "1,1,2", ",", "1,", ",1",   "1,,1", "30\r:x"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        check_length(bad[i], -1);
    check_length("1000000000000000000", 1000000000000000000LL);
    check_length("0", 0);
    check_length("1,1", 1);
    check_length("12 ,\t12, 12", 12);
}

/* A length that no body reaches; sums with it must not overflow. */
static void length_that_is_too_large_is_never_reached(void)
{
    static const char *const large[] = {
        "9223372036854775807", "9223372036854775806", "9223372036854775808",
        "99999999999999999999999999999"};
    char line[128];

    for (size_t i = 0; i < sizeof(large) / sizeof(large[0]); i++) {
        head_open(NYMBL_EXPECT_CONTENT);
        strcpy(transfer->exchange.expected_type, "text/plain");
        transfer->port.resumed_from = 100; /* as with a partial file */
        CHECK(say("HTTP/1.1 200 OK"));
        CHECK(say("Transfer-Encoding: chunked"));
        snprintf(line, sizeof(line), "x-amzn-Remapped-Content-Length: %s",
                 large[i]);
        CHECK(say(line));
        CHECK(transfer->exchange.head.remapped_length >= INT64_MAX - 8);
        CHECK(say(""));
        CHECK(transfer->port.response.content_length ==
              transfer->exchange.head.remapped_length);
        head_close();
        head_open(NYMBL_EXPECT_CONTENT);
        transfer->port.resumed_from = 100;
        transfer->exchange.has_size = true;
        transfer->exchange.size = 200;
        CHECK(say("HTTP/1.1 200 OK"));
        CHECK(say(line));
        CHECK(!say(""));
        CHECK(transfer->exchange.failure == NYMBL_CORRUPT);
        head_close();
    }
}

static void check_status(const char *line, size_t size, int status)
{
    char *exact = malloc(size); /* lets a sanitizer detect overreads */
    bool on;

    head_open(NYMBL_EXPECT_JSON);
    memcpy(exact, line, size);
    on = nymbl__easy_header(&transfer->exchange, exact, size);
    if (!CHECK(on == (status != 0) && transfer->exchange.head.status == status))
        printf("for: %.*s\n", (int)size, line);
    if (status == 0) {
        CHECK(transfer->exchange.failure == NYMBL_PROTOCOL);
        CHECK_TEXT(transfer->exchange.failure_reason, "bad_response");
    }
    free(exact);
    head_close();
}

static void status_is_three_digits(void)
{
    static const struct {
        const char *line;
        int status;
    } lines[] = {
        {"HTTP/1.1 200 OK", 200},   {"HTTP/1.0 404", 404},
        {"HTTP/1.1 599 ", 599},     {"HTTP/1.1 999 x", 999},
        {"HTTP/1.1  201 x", 201},   {"HTTP/1.1 100 Continue", 100},
        {"HTTP/1.1 2", 0},          {"HTTP/1.1 20", 0},
        {"HTTP/1.1 20 OK", 0},      {"HTTP/1.1 2000 OK", 0},
        {"HTTP/1.1 200OK", 0},      {"HTTP/1.1 2 00", 0},
        {"HTTP/1.1 099 x", 0},      {"HTTP/1.1 000 x", 0},
        {"HTTP/1.1 +20 x", 0},      {"HTTP/1.1 -20 x", 0},
        {"HTTP/1.1 0x2 x", 0},      {"HTTP/1.1 xyz", 0},
        {"HTTP/1.1 ", 0},           {"HTTP/1.1", 0},
        {"HTTP/1.1200 OK", 0},      {"HTTP/1.11 200 OK", 0},
        {"HTTP/2 200 OK", 0},       {"HTTP/2.0 200 OK", 0},
        {"HTTP/1.x 200 OK", 0},     {"http/1.1 200 OK", 0},
        {"HTTP/1.1\t200 OK", 0},    {"HTTP/1.1 200\tOK", 0},
        {"HTTP/1.1 4294967496", 0}, {"HTTP/ 200 OK", 0},
        {"Content-Length: 1", 0},   {" HTTP/1.1 200 OK", 0},
    };
    char ended[64];

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        check_status(lines[i].line, strlen(lines[i].line), lines[i].status);
        snprintf(ended, sizeof(ended), "%s\r\n", lines[i].line);
        check_status(ended, strlen(ended), lines[i].status);
        snprintf(ended, sizeof(ended), "%s\n", lines[i].line);
        check_status(ended, strlen(ended), lines[i].status);
    }
    check_status("HTTP/1.1 200\0", 13, 0);
}

static void other_protocol_is_refused(void)
{
    head_open(NYMBL_EXPECT_JSON);
    CHECK(!say("HTTP/1.1 101 Switching Protocols"));
    CHECK(transfer->exchange.failure == NYMBL_PROTOCOL);
    CHECK_TEXT(transfer->exchange.failure_reason, "bad_response");
    head_close();
}

/* libcurl ends the head at a line that begins with a CR, whatever follows; and
 * a second status line is not a field. */
static void ambiguous_head_is_refused(void)
{
    static const char *const lines[] = {
        "\rContent-Length: 5", "\r\r",     "\rx",
        "HTTP/1.1 404 x",      "HTTP/1.1", "HTTP/2 200",
    };

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        head_open(NYMBL_EXPECT_JSON);
        CHECK(say("HTTP/1.1 200 OK"));
        CHECK(say("Content-Length: 5"));
        CHECK(!say(lines[i]));
        CHECK(transfer->exchange.failure == NYMBL_PROTOCOL);
        CHECK_TEXT(transfer->exchange.failure_reason, "bad_response");
        CHECK(!transfer->exchange.head.done);
        head_close();
    }
    head_open(NYMBL_EXPECT_JSON);
    CHECK(say("HTTP/1.1 200 OK"));
    CHECK(!nymbl__easy_header(&transfer->exchange, "Location: /a\0b\r\n", 16));
    CHECK(transfer->exchange.failure == NYMBL_PROTOCOL);
    head_close();
}

/* A field whose value continues on the next line is ambiguous (RFC 9112, 5.2).
 */
static void blank_before_the_colon_of_a_relevant_field_is_refused(void)
{
    static const char *const lines[] = {
        "Content-Length : 5", "Transfer-Encoding\t: chunked",
        "content-range \t : bytes 0-1/2", "Content-Length\r: 5",
        "ETag \r : \"a\""};

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        head_open(NYMBL_EXPECT_JSON);
        CHECK(say("HTTP/1.1 200 OK"));
        CHECK(say("X-Other : y"));
        CHECK(say(": y"));
        CHECK(!say(lines[i]));
        CHECK(transfer->exchange.failure == NYMBL_PROTOCOL);
        head_close();
    }
}

static void folded_line_of_a_relevant_field_is_refused(void)
{
    static const char *const folded[] = {" A: x", "\tA: x", " ", "\t", " x"};
    static const char *const fields[] = {NULL, "Content-Length: 5", "ETag: \"a",
                                         "Location: https://x/",
                                         "Transfer-Encoding: chunked"};

    for (size_t i = 0; i < 5 * 5; i++) {
        const char *field = fields[i / 5];

        head_open(NYMBL_EXPECT_JSON);
        CHECK(say("HTTP/1.1 200 OK"));
        CHECK(field == NULL || say(field));
        CHECK(!say(folded[i % 5]));
        CHECK(transfer->exchange.failure == NYMBL_PROTOCOL);
        CHECK_TEXT(transfer->exchange.failure_reason, "bad_response");
        head_close();
        head_open(NYMBL_EXPECT_JSON);
        CHECK(say("HTTP/1.1 200 OK"));
        CHECK(say("X-Long: y"));
        CHECK(say(folded[i % 5]));
        CHECK(say(folded[i % 5]));
        CHECK(say(""));
        CHECK(transfer->exchange.head.done &&
              transfer->exchange.head.length == -1);
        head_close();
    }
}

/* Only valid validators may be sent in If-Range, next to the token (RFC
 * 9110, 8.8.3 and 5.6.7). */
static void only_valid_validators_are_accepted(void)
{
    static const char *const good[] = {
        "\"\"",
        "\"a\"",
        "\"!#$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~\"",
        "\"\x80\xff\"",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Wednesday, 09-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun Nov 16 08:49:37 1994",
    };
    static const char *const bad[] = {
        "",
        "\"",
        "a",
        "W/\"a\"",
        "\"a",
        "a\"",
        "\"a\"b\"",
        "\"a\" ",
        "\"a\",\"b\"",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        "Sun, 06 Nov 1994 08:49:37 GMT\r\nX: y",
        "Sun, 06 Nov 1994 08:49:37\rGMT",
        "Sun,\r06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 EST",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "06 Nov 1994 08:49:37 GMT",
        "1994-11-06 08:49:37",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sun\rday, 06-Nov-94 08:49:37 GMT",
        "Sunday,\t06-Nov-94 08:49:37 GMT",
        "Sun Nov \r6 08:49:37 1994",
        "784111777",
        "*",
    };
    char text[] = "\"a?b\"";

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        if (!CHECK(nymbl__validator_is_valid(good[i])))
            printf("for: %s\n", good[i]);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (!CHECK(!nymbl__validator_is_valid(bad[i])))
            printf("for: %s\n", bad[i]);
    }
    for (int byte = 1; byte < 256; byte++) {
        bool may = byte > ' ' && byte != '"' && byte != 0x7f;

        text[2] = (char)byte;
        if (!CHECK(nymbl__validator_is_valid(text) == may))
            printf("for byte %d\n", byte);
    }
}

static void check_validator(const char *tag, const char *modified,
                            const char *expected)
{
    char line[128];

    head_open(NYMBL_EXPECT_CONTENT);
    CHECK(say("HTTP/1.1 200 OK"));
    CHECK(say("Date: Sun, 06 Nov 1994 08:49:47 GMT"));
    snprintf(line, sizeof(line), "ETag: %s", tag);
    CHECK(tag == NULL || say(line));
    snprintf(line, sizeof(line), "Last-Modified: %s", modified);
    CHECK(modified == NULL || say(line));
    CHECK_TEXT(nymbl__head_validator(&transfer->exchange.head), expected);
    head_close();
}

static void validator_of_a_head_is_strong_and_clean(void)
{
    static const char date[] = "Sun, 06 Nov 1994 08:49:37 GMT";

    check_validator("\"a\"", NULL, "\"a\"");
    check_validator("\"a\"", date, "\"a\"");
    check_validator(NULL, date, date);
    check_validator(NULL, "Sun Nov  6 08:49:37 1994",
                    "Sun Nov  6 08:49:37 1994");
    check_validator("W/\"a\"", date, NULL);
    check_validator("\"a\rX-Injected: 1\"", NULL, NULL);
    check_validator("\"a\rX-Injected: 1\"", date, NULL);
    check_validator("\"a b\"", NULL, NULL);
    check_validator("\"a\tb\"", NULL, NULL);
    check_validator("\"a\x01z\"", NULL, NULL);
    check_validator(NULL, "Sun, 06 Nov 1994\r08:49:37 GMT", NULL);
    check_validator(NULL, "1994-11-06 08:49:37", NULL);
    check_validator(NULL, "Sun, 06 Nov 1994 08:49:47 GMT", NULL); /* weak */
}

static void validators_that_differ_are_not_used(void)
{
    static const struct {
        const char *first, *second, *expected;
    } cases[] = {
        {"ETag: \"a\"", "ETag: \"b\"", NULL},
        {"ETag: \"a\"", "ETag: \"a\"", "\"a\""},
        {"ETag: \"a\"", "ETag: W/\"a\"", NULL},
        {"Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
         "Last-Modified: Sun, 06 Nov 1994 08:49:36 GMT", NULL},
    };

    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        head_open(NYMBL_EXPECT_CONTENT);
        CHECK(say("HTTP/1.1 200 OK"));
        CHECK(say("Date: Sun, 06 Nov 1994 08:49:47 GMT"));
        CHECK(say(cases[i].first));
        CHECK(say(cases[i].second));
        CHECK_TEXT(nymbl__head_validator(&transfer->exchange.head),
                   cases[i].expected);
        head_close();
    }
}

/* The delay in a head with these lines; NULL for no line. */
static double retry_after_of(const char *first, const char *second)
{
    nymbl__head_reset(&transfer->exchange.head);
    CHECK(say("HTTP/1.1 503 x"));
    CHECK(first == NULL || say(first));
    CHECK(second == NULL || say(second));
    CHECK(say(""));
    return transfer->exchange.head.retry_after;
}

static void retry_after_is_seconds_or_a_date(void)
{
    static const char *const bad[] = {
        "Retry-After: soon", "Retry-After: -5",  "Retry-After:",
        "Retry-After: 1.5",  "Retry-After: 1e3", "Retry-After: ,",
        "Retry-After: 0x10",
    };
    char line[128], date[64];
    time_t then = time(NULL) + 1000;
    double seconds;

    head_open(NYMBL_EXPECT_JSON);
    CHECK(retry_after_of(NULL, NULL) < 0);
    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime(&then));
    snprintf(line, sizeof(line), "Retry-After: %s", date);
    seconds = retry_after_of(line, NULL);
    CHECK(seconds > 900 && seconds <= 1000);
    CHECK(retry_after_of("Retry-After: Sun, 06 Nov 1994 08:49:37 GMT", NULL) ==
          0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CHECK(retry_after_of(bad[i], NULL) < 0);
    CHECK(retry_after_of("Retry-After: 0", NULL) == 0);
    CHECK(retry_after_of("Retry-After: 0007", NULL) == 7);
    /* absurd values become a usable number */
    CHECK(retry_after_of("Retry-After: 99999999999999999999", NULL) ==
          2147483648.0);
    CHECK(retry_after_of("Retry-After: Fri, 31 Dec 9999 23:59:59 GMT", NULL) ==
          2147483648.0);
    head_close();
}

static void retry_after_is_the_longest_of_several(void)
{
    static const char now[] = "Date: Sun, 06 Nov 1994 08:49:37 GMT";

    head_open(NYMBL_EXPECT_JSON);
    CHECK(retry_after_of("Retry-After: 5", "Retry-After: 10") == 10);
    CHECK(retry_after_of("Retry-After: 10", "Retry-After: 5") == 10);
    CHECK(retry_after_of("Retry-After: 10", "Retry-After: soon") == 10);
    CHECK(retry_after_of("Retry-After: 5, 10", NULL) == 10);
    CHECK(retry_after_of("Retry-After: 10 ,5", NULL) == 10);
    nymbl__head_reset(&transfer->exchange.head);
    CHECK(say("HTTP/1.1 429 x") && say("Retry-After: 5") && say(now));
    CHECK(say("Retry-After: Sun, 06 Nov 1994 08:50:07 GMT"));
    CHECK(say("Retry-After: Sun, 06 Nov 1994 08:49:57 GMT") && say(""));
    CHECK(transfer->exchange.head.retry_after == 30);
    head_close();
}

static void retry_after_as_a_date_is_on_the_clock_of_the_response(void)
{
    static const char soon[] = "Retry-After: Sun, 06 Nov 1994 08:50:07 GMT";
    static const char now[] = "Date: Sun, 06 Nov 1994 08:49:37 GMT";

    head_open(NYMBL_EXPECT_JSON);
    CHECK(retry_after_of(now, soon) == 30);
    CHECK(retry_after_of(soon, now) == 30); /* in either order */
    CHECK(retry_after_of(soon, "Date: Sunday, 06-Nov-94 08:49:37 GMT") == 30);
    CHECK(retry_after_of(soon, "Date: Sun Nov  6 08:49:37 1994") == 30);
    CHECK(retry_after_of(soon, "Date: Sun, 06 Nov 1994 08:50:08 GMT") == 0);
    CHECK(retry_after_of(soon, "Date: now") == 0); /* the local clock */
    CHECK(retry_after_of("Retry-After: 7", now) == 7);
    /* an informational response does not count */
    nymbl__head_reset(&transfer->exchange.head);
    CHECK(say("HTTP/1.1 103 x") && say(soon) && say(now) && say(""));
    CHECK(say("HTTP/1.1 429 x") && say(now) && say(""));
    CHECK(transfer->exchange.head.retry_after < 0);
    head_close();
}

static void codings_are_recognized(void)
{
    nymbl__response_head *head;

    head_open(NYMBL_EXPECT_JSON);
    head = &transfer->exchange.head;
    CHECK(say("HTTP/1.1 200 x"));
    CHECK(say("Content-Encoding: identity"));
    CHECK(say("Content-Encoding:"));
    CHECK(!head->encoded);
    CHECK(say("Transfer-Encoding: identity")); /* does not end the body */
    CHECK(!head->chunked && !head->encoded);
    CHECK(say("Transfer-Encoding: Chunked"));
    CHECK(head->chunked && !head->encoded);
    CHECK(say("Content-Encoding: br"));
    CHECK(head->encoded);
    CHECK(!say("Transfer-Encoding: identity")); /* chunked must be last */
    CHECK(transfer->exchange.failure == NYMBL_PROTOCOL);
    CHECK_TEXT(transfer->exchange.failure_reason, "transfer_encoding");
    head_close();
}

static void informational_heads_are_discarded(void)
{
    nymbl__response_head *head;

    head_open(NYMBL_EXPECT_JSON);
    head = &transfer->exchange.head;
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

static void trailers_are_ignored(void)
{
    head_open(NYMBL_EXPECT_JSON);
    CHECK(say("HTTP/1.1 200 OK"));
    CHECK(say("Content-Type: a/b"));
    CHECK(say(""));
    CHECK(say("Content-Type: c/d"));
    CHECK(say("Content-Length: 5"));
    CHECK(say("HTTP/1.1 500 x"));
    CHECK(say(""));
    CHECK_TEXT(transfer->exchange.head.content_type, "a/b");
    CHECK_NUMBER(transfer->exchange.head.length, -1);
    CHECK_NUMBER(transfer->exchange.head.status, 200);
    head_close();
}

static void all_heads_have_one_limit(void)
{
    size_t lines = 0;

    head_open(NYMBL_EXPECT_JSON);
    while (say(lines % 2 == 0 ? "HTTP/1.1 100 Continue" : "") && lines < 99999)
        lines++;
    CHECK(transfer->exchange.failure == NYMBL_PROTOCOL);
    CHECK_TEXT(transfer->exchange.failure_reason, "head_too_long");
    CHECK(transfer->exchange.head.bytes > 65536 &&
          transfer->exchange.head.bytes < 65600);
    head_close();
    head_open(NYMBL_EXPECT_JSON);
    CHECK(say("HTTP/1.1 200 OK"));
    CHECK(say(""));
    for (lines = 0; say("X: 0123456789") && lines < 99999; lines++)
        ;
    CHECK(lines < 5000); /* trailers count */
    head_close();
}

static void lines_that_are_not_fields_are_ignored(void)
{
    static const char *const lines[] = {
        "no colon",       ":",          ": value",
        " folded: x",     "a:",         "Content-Length",
        "\x01\x02: \xff", "X-Other : y"};

    head_open(NYMBL_EXPECT_JSON);
    CHECK(say("HTTP/1.1 200 OK"));
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        CHECK(say(lines[i]));
    CHECK_NUMBER(transfer->exchange.head.length, -1);
    CHECK(say(""));
    CHECK(transfer->exchange.head.done);
    head_close();
    head_open(NYMBL_EXPECT_JSON);
    CHECK(!say("HTTP/1.1"));
    CHECK(!say(""));
    CHECK(!transfer->exchange.head.done); /* no status */
    head_close();
}

static void type_that_is_too_long_is_ignored(void)
{
    char line[600] = "Content-Type: ";

    head_open(NYMBL_EXPECT_JSON);
    memset(line + 14, 'x', 500);
    CHECK(say("HTTP/1.1 200 OK"));
    CHECK(say(line));
    CHECK(!transfer->exchange.head.has_type);
    line[14 + NYMBL__TYPE_MAX - 1] = '\0';
    CHECK(say(line));
    CHECK(transfer->exchange.head.has_type);
    head_close();
}

static void document_of_another_size_is_detected_from_the_head(void)
{
    head_open(NYMBL_EXPECT_CONTENT);
    transfer->exchange.has_size = true;
    transfer->exchange.size = 10;
    CHECK(say("HTTP/1.1 200 OK"));
    CHECK(say("Content-Length: 11"));
    CHECK(!say(""));
    CHECK(transfer->exchange.failure == NYMBL_CORRUPT);
    CHECK_TEXT(transfer->exchange.failure_reason, "size_mismatch");
    head_close();
    head_open(NYMBL_EXPECT_CONTENT);
    strcpy(transfer->exchange.expected_type, "application/pdf");
    CHECK(say("HTTP/1.1 200 OK"));
    CHECK(say("Content-Type: application/json"));
    CHECK(say("")); /* the header may be wrong: no byte was seen */
    CHECK(!transfer->port.response_published &&
          !transfer->port.content_checked);
    nymbl__response_check_first_bytes(&transfer->exchange, true);
    CHECK(!transfer->port.response_published &&
          !transfer->port.content_checked);
    CHECK(transfer->exchange.failure == NYMBL_CORRUPT);
    CHECK_TEXT(transfer->exchange.failure_reason, "type_mismatch");
    head_close();
}

static char request_id[NYMBL_REQUEST_ID_MAX + 1];

/* The id that is published after a head with these lines. */
static const char *id_of(const char *const *lines, const char *sent)
{
    head_open(NYMBL_EXPECT_JSON);
    transfer->exchange.head.sent_id = sent;
    CHECK(say("HTTP/1.1 200 OK"));
    for (; *lines != NULL; lines++)
        CHECK(say(*lines));
    CHECK(say(""));
    nymbl_transfer_request_id(transfer, request_id);
    head_close();
    return request_id;
}

#define ID_OF(sent, ...) id_of((const char *const[]){__VA_ARGS__, NULL}, sent)

static void request_id_is_the_gateway_s_or_the_service_s(void)
{
    CHECK_TEXT(ID_OF(NULL, "Date: x"), "");
    CHECK_TEXT(ID_OF(NULL, "X-Request-ID: s-1"), "s-1");
    CHECK_TEXT(ID_OF(NULL, "apigw-requestid: Abc=", "request-id: r"), "Abc=");
    CHECK_TEXT(ID_OF(NULL, "request-id: r", "x-amz-request-id: z"), "r");
    CHECK_TEXT(ID_OF(NULL, "x-request-id: s", "x-amzn-RequestId: a"), "a");
    CHECK_TEXT(ID_OF(NULL, "x-amzn-RequestId: a", "x-request-id: s"), "a");
}

static void request_id_is_bounded_and_visible(void)
{
    char line[16 + NYMBL_REQUEST_ID_MAX + 2] = "x-request-id: ";
    char *end = line + strlen(line);

    memset(end, 'i', NYMBL_REQUEST_ID_MAX + 1);
    CHECK_TEXT(ID_OF(NULL, line), "");
    end[NYMBL_REQUEST_ID_MAX] = '\0';
    CHECK_TEXT(ID_OF(NULL, line), end);
    CHECK_TEXT(ID_OF(NULL, "x-request-id:"), "");
    CHECK_TEXT(ID_OF(NULL, "x-request-id: a b"), "");
    CHECK_TEXT(ID_OF(NULL, "x-request-id: a\tb"), "");
    CHECK_TEXT(ID_OF(NULL, "x-request-id: a\x1b[0m"), "");
    CHECK_TEXT(ID_OF(NULL, "x-request-id: \xc3\xa9"), "");
    CHECK_TEXT(ID_OF(NULL, "x-request-id: a b", "request-id: r"), "r");
}

static void echo_of_the_sent_id_is_no_request_id(void)
{
    CHECK_TEXT(ID_OF("mine", "x-request-id: mine"), "");
    CHECK_TEXT(ID_OF("mine", "x-request-id: mine", "request-id: r"), "r");
    CHECK_TEXT(ID_OF("mine", "x-amzn-requestid: mine"), "");
    CHECK_TEXT(ID_OF("mine", "x-request-id: mine2"), "mine2");
}

static void request_id_of_another_origin_is_ignored(void)
{
    head_open(NYMBL_EXPECT_CONTENT);
    CHECK(say("HTTP/1.1 302 Found"));
    CHECK(say("x-amzn-RequestId: service"));
    CHECK(say(""));
    nymbl__head_reset(&transfer->exchange.head);
    transfer->exchange.cross_origin = true;
    CHECK(say("HTTP/1.1 403 Forbidden"));
    CHECK(say("x-amz-request-id: other"));
    CHECK(say(""));
    nymbl_transfer_request_id(transfer, request_id);
    CHECK_TEXT(request_id, "service");
    head_close();
}

static void invalid_head_has_its_request_id(void)
{
    head_open(NYMBL_EXPECT_JSON);
    CHECK(say("HTTP/1.1 200 OK"));
    CHECK(say("x-amzn-RequestId: service"));
    CHECK(say("Content-Length: 1"));
    CHECK(!say("Content-Length: 2"));
    nymbl_transfer_request_id(transfer, request_id);
    CHECK_TEXT(request_id, "service");
    head_close();
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(relevant_fields_are_read),
        TEST(malformed_numbers_are_ignored),
        TEST(malformed_length_is_refused),
        TEST(repeated_equal_number_counts_once),
        TEST(length_that_is_too_large_is_never_reached),
        TEST(status_is_three_digits),
        TEST(other_protocol_is_refused),
        TEST(ambiguous_head_is_refused),
        TEST(blank_before_the_colon_of_a_relevant_field_is_refused),
        TEST(folded_line_of_a_relevant_field_is_refused),
        TEST(only_valid_validators_are_accepted),
        TEST(validator_of_a_head_is_strong_and_clean),
        TEST(validators_that_differ_are_not_used),
        TEST(retry_after_is_seconds_or_a_date),
        TEST(retry_after_is_the_longest_of_several),
        TEST(retry_after_as_a_date_is_on_the_clock_of_the_response),
        TEST(codings_are_recognized),
        TEST(informational_heads_are_discarded),
        TEST(trailers_are_ignored),
        TEST(all_heads_have_one_limit),
        TEST(lines_that_are_not_fields_are_ignored),
        TEST(type_that_is_too_long_is_ignored),
        TEST(document_of_another_size_is_detected_from_the_head),
        TEST(request_id_is_the_gateway_s_or_the_service_s),
        TEST(request_id_is_bounded_and_visible),
        TEST(echo_of_the_sent_id_is_no_request_id),
        TEST(request_id_of_another_origin_is_ignored),
        TEST(invalid_head_has_its_request_id),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
