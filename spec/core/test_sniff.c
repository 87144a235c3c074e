/* SPDX-License-Identifier: MIT */
/* Telling a document from what a gateway may send in its place. */
#include "internal.h"
#include "test.h"

#define DOCX                                                                   \
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

static void types_that_cannot_be_the_document_are_told(void)
{
    static const struct {
        const char *known, *given, *reason;
    } cases[] = {
        {"", "application/json", NULL},
        {"application/pdf", "", NULL},
        {"application/pdf", "application/pdf", NULL},
        {"application/pdf", "application/octet-stream", NULL},
        {"application/pdf", "application/json", "type"},
        {"application/pdf", "Application/JSON; charset=utf-8", "type"},
        {"application/pdf", "application/problem+json", "type"},
        {"application/pdf", "text/html", "type"},
        {"application/pdf", "text/html;charset=x", "type"},
        {"application/pdf", "application/xhtml+xml", "type"},
        {"application/pdf", "application/jsonp", NULL},
        {"application/json", "application/json", NULL},
        {"text/html", "text/html", NULL},
        {"text/html", "application/json", "type"},
        {"application/json", "text/html", "type"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (!CHECK_TEXT(nymbl__sniff_type(cases[i].known, cases[i].given),
                        cases[i].reason))
            printf("%s as %s\n", cases[i].known, cases[i].given);
    }
}

static void check_bytes(const char *known, const char *given, const char *bytes,
                        const char *reason)
{
    size_t size = strlen(bytes);
    char *exact = malloc(size + 1); /* so that a sanitizer sees its end */

    memcpy(exact, bytes, size);
    exact = realloc(exact, size > 0 ? size : 1);
    if (!CHECK_TEXT(nymbl__sniff_bytes(known, given, exact, size), reason))
        printf("%s as %s: %s\n", known, given, bytes);
    free(exact);
}

static void base64_is_told_for_every_accepted_type(void)
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

static void error_bodies_are_told(void)
{
    check_bytes("application/pdf", "", "{\"error\": {}}", "type");
    check_bytes("application/pdf", "", "{\"message\":\"x\"}", "type");
    check_bytes("application/pdf", "", " \r\n\t{ \n\"Message\":1", "type");
    check_bytes("application/pdf", "application/pdf", "{\"error\"", "type");
    check_bytes("", "", "{\"error\": 1}", "type");
    check_bytes("", "application/json", "{\"error\": 1}", "type");
    check_bytes("", "application/pdf", "{\"error\": 1}", NULL);
    check_bytes("application/json", "", "{\"error\": 1}", NULL);
    check_bytes("application/pdf", "", "{\"errors\": 1}", NULL);
    check_bytes("application/pdf", "", "{\"error", NULL);
    check_bytes("application/pdf", "", "   ", NULL);
    check_bytes("application/pdf", "", "{", NULL);
    check_bytes("application/pdf", "", "{  ", NULL);
    CHECK(nymbl__sniff_bytes("application/pdf", "", "\0{\"error\"", 9) == NULL);
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(types_that_cannot_be_the_document_are_told),
        TEST(base64_is_told_for_every_accepted_type),
        TEST(error_bodies_are_told),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
