/* SPDX-License-Identifier: MIT */
/* Distinguishing a document from a gateway's other content. */
#include "exchange/sniff.h"
#include "test.h"

#define DOCX                                                                   \
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

static void types_that_cannot_be_the_document_are_detected(void)
{
    static const struct {
        const char *expected_type, *response_type, *reason;
    } cases[] = {
        {"", "application/json", NULL},
        {"application/pdf", "", NULL},
        {"application/pdf", "application/pdf", NULL},
        {"application/pdf", "application/octet-stream", NULL},
        {"application/pdf", "application/json", "type_mismatch"},
        {"application/pdf", "Application/JSON; charset=utf-8", "type_mismatch"},
        {"application/pdf", "application/problem+json", "type_mismatch"},
        {"application/pdf", "text/html", "type_mismatch"},
        {"application/pdf", "text/html;charset=x", "type_mismatch"},
        {"application/pdf", "application/xhtml+xml", "type_mismatch"},
        {"application/pdf", "application/jsonp", NULL},
        {"application/json", "application/json", NULL},
        {"text/html", "text/html", NULL},
        {"text/html", "application/json", "type_mismatch"},
        {"application/json", "text/html", "type_mismatch"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (!CHECK_TEXT(nymbl__sniff_type_mismatch(cases[i].expected_type,
                                                   cases[i].response_type),
                        cases[i].reason))
            printf("%s as %s\n", cases[i].expected_type,
                   cases[i].response_type);
    }
}

static nymbl_kind judged(const nymbl__sniff_input *given, const char *bytes,
                         size_t size, const char **reason)
{
    char *exact =
        malloc(size > 0 ? size : 1); /* lets a sanitizer detect overreads */
    nymbl__sniff_input input = *given;
    nymbl_kind kind;

    memcpy(exact, bytes, size);
    input.bytes = exact;
    input.size = size;
    *reason = NULL;
    kind = nymbl__sniff_check(&input, reason);
    free(exact);
    return kind;
}

static void check_input(const nymbl__sniff_input *input, const char *bytes,
                        size_t size, nymbl_kind kind, const char *expected)
{
    const char *reason;
    bool good = CHECK_NUMBER(judged(input, bytes, size, &reason), kind);

    if (!(CHECK_TEXT(reason, expected) && good))
        printf("\"%s\" as \"%s\": %.60s\n", input->expected_type,
               input->response_type, bytes);
}

/* A document of known size, with all bytes present. */
static void check_bytes(const char *known, const char *given, const char *bytes,
                        const char *reason)
{
    nymbl__sniff_input input = {.expected_type = known,
                                .response_type = given,
                                .has_size = true,
                                .has_length = true,
                                .complete = true};

    check_input(&input, bytes, strlen(bytes),
                reason == NULL ? NYMBL_OK : NYMBL_CORRUPT, reason);
}

static void base64_is_detected_for_every_accepted_type(void)
{
    static const char *const types[][2] = {
        {"application/pdf", "JVBERi0xLjcK"}, {"image/png", "iVBORw0KGgoAAA"},
        {"image/jpeg", "/9j/4AAQ"},          {"image/tiff", "SUkqAAgA"},
        {"image/tiff", "TU0AKgAA"},          {DOCX, "UEsDBBQA"},
    };

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        char quoted[64];

        snprintf(quoted, sizeof(quoted), "\"%s", types[i][1]);
        check_bytes(types[i][0], "", types[i][1], "base64");
        check_bytes("", types[i][0], types[i][1], "base64");
        check_bytes(types[i][0], "text/plain", quoted, "base64");
        check_bytes("text/plain", types[i][0], types[i][1], NULL);
        check_bytes("", "", types[i][1], NULL);
    }
    check_bytes("application/pdf", "", "JVBER", NULL);
    check_bytes("application/pdf", "", "%PDF-1.7", NULL);
    check_bytes("application/pdf", "", "\"", NULL);
    check_bytes("application/pdf", "", "", NULL);
    check_bytes("image/png", "", "JVBERi0xLjcK", NULL);
}

static void error_bodies_are_detected(void)
{
    check_bytes("application/pdf", "", "{\"error\": {}}", "type_mismatch");
    check_bytes("application/pdf", "", "{\"message\":\"x\"}", "type_mismatch");
    check_bytes("application/pdf", "", " \r\n\t{ \n\"Message\":1",
                "type_mismatch");
    check_bytes("application/pdf", "application/pdf", "{\"error\"",
                "type_mismatch");
    check_bytes("", "", "{\"error\": 1}", "type_mismatch");
    check_bytes("", "application/json", "{\"error\": 1}", "type_mismatch");
    check_bytes("", "application/pdf", "{\"error\": 1}", "type_mismatch");
    check_bytes("application/json", "", "{\"error\": 1}", NULL);
    check_bytes("text/plain", "", " \r\n\t{ \n\"Message\":1", "type_mismatch");
    check_bytes("text/plain", "", "{\"message\":1", "type_mismatch");
    check_bytes("text/plain", "", "\t{ \"messages\":1", NULL);
    check_bytes("text/plain", "text/plain", " ", NULL);
    check_bytes("application/pdf", "", "{\"errors\": 1}", "type_mismatch");
    check_bytes("application/pdf", "", "{\"error", "type_mismatch");
    check_bytes("application/pdf", "", "   ", NULL);
    check_bytes("application/pdf", "", "{", NULL);
    check_bytes("application/pdf", "", "{  ", NULL);
    check_input(&(nymbl__sniff_input){.expected_type = "application/pdf",
                                      .response_type = "",
                                      .has_size = true,
                                      .complete = true},
                "\0{\"error\"", 9, NYMBL_OK, NULL);
}

#define PNG "\x89PNG\r\n\x1a\n"

static const struct {
    const char *type, *bytes;
    size_t size;
} good[] = {
    {"application/pdf", "%PDF-1.7\nxxxxxxxxxxxxxxx", 24},
    {"image/png", PNG "xxxxxxxxxxxxxxxx", 24},
    {"image/jpeg", "\xff\xd8\xff\xe0xxxxxxxxxxxxxxxxxxxx", 24},
    {"image/tiff", "II*\0xxxxxxxxxxxxxxxxxxxx", 24},
    {"image/tiff", "MM\0*xxxxxxxxxxxxxxxxxxxx", 24},
    {"image/tiff", "II+\0\10\0\0\0xxxxxxxxxxxxxxxx", 24},
    {"image/tiff", "MM\0+\0\10\0\0xxxxxxxxxxxxxxxx", 24},
    {DOCX, "PK\3\4\24\0\6\0xxxxxxxxxxxxxxxx", 24},
};

#define GOOD_COUNT (sizeof(good) / sizeof(good[0]))

/* Content without an accepted type: examples of what a gateway may send. */
static const char *const bad[] = {
    "",
    " ",
    "x",
    "OK",
    "Service unavailable, please try again later.\n",
    "<!DOCTYPE html><html><title>Sign in</title></html>",
    "<html lang=en>",
    "<HTML>",
    "<script>location='/login'</script>",
    "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>",
    "<Error><Code>NoSuchKey</Code></Error>",
    "<!-- a page --><p>Sign in",
    "\xef\xbb\xbf<html>",
    "\r\n\r\n   <html>",
    "{\"error\": {\"code\": \"x\"}}",
    "{\"fault\":{\"faultstring\":\"x\"}}",
    "{\"statusCode\": 500}",
    "{\"Errors\":[]}",
    "{}",
    "[]",
    "[{\"code\":1}]",
    "null",
    "\"text\"",
    "12",
    "data:application/pdf;base64,JVBERi0xLjQK",
    "DATA:text/plain,x",
    "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03xxxxxxxxxx",
    "GIF89axxxxxxxxxxxxxxx",
    "BMxxxxxxxxxxxxxxxxxx",
    "RIFF\x01\x02\x03\x04WEBPVP8 ",
    "{\\rtf1\\ansi}",
    "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1xxxxxxxx",
    "%!PS-Adobe-3.0",
    "PK\5\6xxxxxxxxxxxxxxxxxx",
    "HTTP/1.1 200 OK",
    "--boundary\r\nContent-Type: application/pdf",
    "\xff\xfe<\x01h\x01t\x01",
};

static void unknown_document_must_be_of_an_accepted_type(void)
{
    static const char *const types[] = {
        "",           "text/html",  "application/json",
        "text/plain", "image/webp", "application/octet-stream",
        "binary",     "image",      "application/pdfx"};

    for (size_t t = 0; t < sizeof(types) / sizeof(types[0]); t++) {
        nymbl__sniff_input input = {
            .expected_type = "", .response_type = types[t], .complete = true};

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
            check_input(&input, bad[i], strlen(bad[i]), NYMBL_CORRUPT,
                        "type_mismatch");
        for (int length = 0; length < 2; length++) {
            input.has_length = length == 1;
            for (size_t i = 0; i < GOOD_COUNT; i++)
                check_input(&input, good[i].bytes, good[i].size, NYMBL_OK,
                            NULL);
        }
    }
    /* a ZIP file that is not a Word document, by its first entry's name */
    check_input(&(nymbl__sniff_input){.expected_type = "",
                                      .response_type = "",
                                      .complete = true},
                "PK\3\4\24\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\1\0\0\0"
                "\13\0\0\0xl/book.xmlx",
                42, NYMBL_CORRUPT, "type_mismatch");
    /* the response's type is believed if the bytes do not contradict it */
    for (size_t t = 0; t < GOOD_COUNT; t++) {
        nymbl__sniff_input input = {.expected_type = "",
                                    .response_type = good[t].type,
                                    .complete = true};

        check_input(&input, "", 0, NYMBL_OK, NULL);
        check_input(&input, "damaged", 7, NYMBL_OK, NULL);
        check_input(&input, "<html>", 6, NYMBL_CORRUPT, "type_mismatch");
        check_input(&input, "{\"fault\":1}", 11, NYMBL_CORRUPT,
                    "type_mismatch");
        check_input(&input, "data:,", 6, NYMBL_CORRUPT, "type_mismatch");
        for (size_t i = 0; i < GOOD_COUNT; i++)
            check_input(&input, good[i].bytes, good[i].size, NYMBL_OK, NULL);
    }
}

static void bytes_are_compared_with_the_known_type(void)
{
    static const char *const others[] = {"text/plain", "text/html", "image/gif",
                                         "application/json",
                                         "application/octet-stream"};

    /* a matching size means a damaged file; text is refused at any size */
    for (size_t t = 0; t < GOOD_COUNT; t++) {
        nymbl__sniff_input input = {.expected_type = good[t].type,
                                    .response_type = "",
                                    .complete = true};

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
            check_input(&input, bad[i], strlen(bad[i]), NYMBL_CORRUPT,
                        "type_mismatch");
        for (size_t i = 0; i < GOOD_COUNT; i++) {
            bool same = strcmp(good[i].type, good[t].type) == 0;

            input.has_size = input.has_length = false;
            check_input(&input, good[i].bytes, good[i].size,
                        same ? NYMBL_OK : NYMBL_CORRUPT,
                        same ? NULL : "type_mismatch");
            input.has_size = input.has_length = true;
            check_input(&input, good[i].bytes, good[i].size, NYMBL_OK, NULL);
        }
        check_input(&input, "damaged", 7, NYMBL_OK, NULL);
        check_input(&input, "[]", 2, NYMBL_CORRUPT, "type_mismatch");
        check_input(&input, "[\0]", 3, NYMBL_OK, NULL);
        check_input(&input, "<\0x", 3, NYMBL_OK, NULL);
        check_input(&input, "<p>", 3, NYMBL_CORRUPT, "type_mismatch");
    }
    for (size_t t = 0; t < sizeof(others) / sizeof(others[0]); t++) {
        nymbl__sniff_input input = {.expected_type = others[t],
                                    .response_type = others[t],
                                    .complete = true};

        check_input(&input, "", 0, NYMBL_OK, NULL);
        check_input(&input, "a letter", 8, NYMBL_OK, NULL);
        check_input(&input, "<html>", 6, NYMBL_OK, NULL);
        check_input(&input, "[1]", 3, NYMBL_OK, NULL);
        check_input(&input, "data:,x", 7, NYMBL_OK, NULL);
    }
}

static void length_and_signature_override_the_content_type(void)
{
    static const char *const labels[] = {"application/json", "text/html",
                                         "application/problem+json", ""};

    for (size_t t = 0; t < 4 * GOOD_COUNT; t++) {
        bool coded = *labels[t % 4] == '\0';
        const char *reason = coded ? "content_encoding" : "type_mismatch";
        size_t i = t / 4;
        nymbl__sniff_input input = {.expected_type = good[i].type,
                                    .response_type = labels[t % 4],
                                    .encoded = coded,
                                    .complete = true};
        char later[40] = "xxxxxxxx\r\n";

        memcpy(later + 10, good[i].bytes, good[i].size);
        check_input(&input, good[i].bytes, good[i].size, NYMBL_CORRUPT, reason);
        input.has_length = true;
        check_input(&input, good[i].bytes, good[i].size, NYMBL_OK, NULL);
        check_input(&input, good[(i + 2) % GOOD_COUNT].bytes, 24,
                    strcmp(good[(i + 2) % GOOD_COUNT].type, good[i].type) == 0
                        ? NYMBL_OK
                        : NYMBL_CORRUPT,
                    strcmp(good[(i + 2) % GOOD_COUNT].type, good[i].type) == 0
                        ? NULL
                        : reason);
        /* after other bytes, as in a chunk of aws-chunked or a gzip block */
        check_input(&input, later, 34,
                    !coded && i == 0 ? NYMBL_OK : NYMBL_CORRUPT,
                    !coded && i == 0 ? NULL : reason);
        check_input(&input, "damaged", 7, NYMBL_CORRUPT, reason);
        check_input(&input, "", 0, NYMBL_CORRUPT, reason);
        input.expected_type = "text/plain";
        check_input(&input, "a letter", 8, NYMBL_CORRUPT, reason);
        input.expected_type = "";
        check_input(&input, good[i].bytes, good[i].size, NYMBL_OK, NULL);
    }
}

/* Whatever the pieces, there is no early result, and the final one is the same.
 */
static void result_does_not_depend_on_the_pieces(void)
{
    static const char *const knowns[] = {"", "application/pdf", "image/png",
                                         "text/plain"};
    char pages[4][NYMBL__SNIFF_MAX + 600];

    memset(pages, 'x', sizeof(pages));
    memcpy(pages[0] + NYMBL__SNIFF_MAX - 5, "%PDF-", 5);
    memcpy(pages[1] + NYMBL__SNIFF_MAX - 4, "%PDF-", 5); /* one byte too late */
    memset(pages[2], ' ', 500);
    memcpy(pages[2] + 500, "<html>", 6);
    memcpy(pages[3], good[1].bytes, 24);
    for (size_t i = 0; i < 4 * 4; i++) {
        nymbl__sniff_input input = {.expected_type = knowns[i / 4],
                                    .response_type = ""};
        const char *reason, *last;
        nymbl_kind end, kind;

        end = judged(&input, pages[i % 4], NYMBL__SNIFF_MAX, &last);
        CHECK(end == NYMBL_OK || end == NYMBL_CORRUPT);
        for (size_t size = 0; size < NYMBL__SNIFF_MAX; size++) {
            kind = judged(&input, pages[i % 4], size, &reason);
            if (!CHECK(kind == NYMBL_AGAIN || kind == end))
                printf("%s, page %zu at %zu\n", input.expected_type, i % 4,
                       size);
        }
        if (i / 4 < 2)
            CHECK_NUMBER(end, i % 4 == 0 || (i % 4 == 3 && i / 4 == 0)
                                  ? NYMBL_OK
                                  : NYMBL_CORRUPT);
    }
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(types_that_cannot_be_the_document_are_detected),
        TEST(base64_is_detected_for_every_accepted_type),
        TEST(error_bodies_are_detected),
        TEST(unknown_document_must_be_of_an_accepted_type),
        TEST(bytes_are_compared_with_the_known_type),
        TEST(length_and_signature_override_the_content_type),
        TEST(result_does_not_depend_on_the_pieces),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
