/* SPDX-License-Identifier: MIT */
/* Reading the token endpoint's response. */
#include "nymbl.h"
#include "test.h"

/* The text without its NUL, so that a sanitizer sees its end. */
static nymbl_kind token_read(nymbl_token *out, const char *text, size_t size,
                             nymbl_error *err)
{
    char *exact = malloc(size > 0 ? size : 1);
    nymbl_kind kind;

    memcpy(exact, text, size);
    kind = nymbl_token_read(out, exact, size, err);
    free(exact);
    return kind;
}

static void check_read(const char *text, const char *token, double expires_in)
{
    nymbl_token out;
    nymbl_error err = {.reason = NULL};
    bool good;

    good = CHECK_NUMBER(token_read(&out, text, strlen(text), &err), NYMBL_OK) &&
           CHECK_TEXT(out.value, token) &&
           CHECK(out.expires_in > expires_in - 1e-6 &&
                 out.expires_in < expires_in + 1e-6);
    if (!good)
        printf("%.100s\n", text);
}

static void check_refused_bytes(const char *text, size_t size,
                                const char *reason)
{
    static const nymbl_token wiped;
    nymbl_token out;
    nymbl_error err = {.reason = NULL};

    memset(&out, 'x', sizeof(out));
    if (!CHECK_NUMBER(token_read(&out, text, size, &err), NYMBL_PROTOCOL) ||
        !CHECK_TEXT(err.reason, reason) ||
        !CHECK(memcmp(&out, &wiped, sizeof(out)) == 0))
        printf("%.*s\n", size < 100 ? (int)size : 100, text);
}

static void check_refused(const char *text)
{
    check_refused_bytes(text, strlen(text), "token_response");
}

static void response_of_the_standard_is_read(void)
{
    /* RFC 6749, section 5.1 */
    check_read("{\n"
               "  \"access_token\":\"2YotnFZFEjr1zCsicMWpAA\",\n"
               "  \"token_type\":\"example\",\n"
               "  \"token_type\":\"Bearer\",\n"
               "  \"expires_in\":3600,\n"
               "  \"refresh_token\":\"tGzv3JOkF0XG5Qx2TlKWIA\",\n"
               "  \"example_parameter\":\"example_value\"\n"
               "}\n",
               "2YotnFZFEjr1zCsicMWpAA", 3600);
    check_read("\xef\xbb\xbf{\"access_token\":\"t\"}", "t", 300);
    check_read(" \t\r\n{ \"access_token\" : \"t\" } \t\r\n", "t", 300);
}

static void type_is_bearer_or_missing(void)
{
    static const char *const good[] = {
        "\"bearer\"", "\"BEARER\"", "\"\\u0062earer\"", "null", "7", "[]"};
    static const char *const bad[] = {"\"mac\"",           "\"\"",
                                      "\"bearer \"",       "\"bear\"",
                                      "\"bearer\\u0000\"", "\"DPoP\""};
    char text[100];

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        snprintf(text, sizeof(text),
                 "{\"token_type\":%s,\"access_token\":\"t\"}", good[i]);
        check_read(text, "t", 300);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(text, sizeof(text),
                 "{\"token_type\":%s,\"access_token\":\"t\"}", bad[i]);
        check_refused(text);
    }
}

static void lifetime_is_a_number_or_digits(void)
{
    static const struct {
        const char *text;
        double seconds;
    } cases[] = {
        {"300", 300},
        {"60", 60},
        {"0.5", 0.5},
        {"12.25", 12.25},
        {"3e2", 300},
        {"3E+1", 30},
        {"1.5e1", 15},
        {"600e-1", 60},
        {"86400", 86400},
        {"86401", 86400},
        {"1e400", 86400},
        {"1e999999999999999999999", 86400},
        {"99999999999999999999999999999999999999999", 86400},
        {"0", 300},
        {"-0", 300},
        {"-1", 300},
        {"-1e400", 300},
        {"0e999", 300},
        {"1e-400", 300},
        {"null", 300},
        {"true", 300},
        {"[]", 300},
        {"{\"a\":1}", 300},
        {"\"60\"", 60},
        {"\"60.\"", 60},
        {"\"60.9\"", 60},
        {"\"\\u0036\\u0030\"", 60},
        {"\"0\"", 300},
        {"\"\"", 300},
        {"\".5\"", 300},
        {"\"-60\"", 300},
        {"\" 60\"", 300},
        {"\"60 \"", 300},
        {"\"60,5\"", 300},
        {"\"6e1\"", 300},
        {"\"0x10\"", 300},
        {"\"soon\"", 300},
        {"\"99999999999999999999\"", 86400},
    };
    char text[200];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(text, sizeof(text),
                 "{\"expires_in\":%s,\"access_token\":\"t\"}", cases[i].text);
        check_read(text, "t", cases[i].seconds);
    }
}

static void token_is_visible_ascii(void)
{
    static const char *const bad[] = {
        "\"\"",
        "\"a b\"",
        "\"a\\nb\"",
        "\"a\\u0000b\"",
        "\"a\\u007f\"",
        "\"\xc3\xbc\"",
        "\"\\u00fc\"",
        "\"\\ud83d\\ude00\"",
        "\"\\ud800\"",
        "\"a\tb\"",
        "7",
        "null",
        "true",
        "[\"t\"]",
        "{\"access_token\":\"t\"}",
    };
    static const char all[] =
        "!\\\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\\\]^_`"
        "abcdefghijklmnopqrstuvwxyz{|}~";
    static const char read[] =
        "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`"
        "abcdefghijklmnopqrstuvwxyz{|}~";
    char text[300];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(text, sizeof(text), "{\"access_token\":%s}", bad[i]);
        check_refused(text);
    }
    snprintf(text, sizeof(text), "{\"access_token\":\"%s\"}", all);
    check_read(text, read, 300);
    check_read("{\"access_token\":\"\\u0041\\/\\\\\\\"\\u007E\"}", "A/\\\"~",
               300);
    check_read("{\"\\u0061ccess\\u005Ftoken\":\"t\"}", "t", 300);
}

static void token_has_a_maximum(void)
{
    static char text[NYMBL_TOKEN_MAX + 100];
    static char token[NYMBL_TOKEN_MAX + 2];

    memset(token, 'x', NYMBL_TOKEN_MAX + 1);
    snprintf(text, sizeof(text), "{\"access_token\":\"%s\"}", token);
    check_refused(text);
    token[NYMBL_TOKEN_MAX] = '\0';
    snprintf(text, sizeof(text), "{\"access_token\":\"%s\"}", token);
    check_read(text, token, 300);
}

static void last_of_two_members_counts(void)
{
    check_read("{\"access_token\":\"a\",\"access_token\":\"b\"}", "b", 300);
    check_refused("{\"access_token\":\"a\",\"access_token\":null}");
    check_refused("{\"access_token\":\"a\",\"access_token\":\"\"}");
    check_read("{\"access_token\":null,\"access_token\":\"b\"}", "b", 300);
    check_read("{\"access_token\":\"a\",\"expires_in\":5,\"expires_in\":6}",
               "a", 6);
    check_read("{\"access_token\":\"a\",\"expires_in\":5,\"expires_in\":null}",
               "a", 300);
    check_refused("{\"access_token\":\"a\",\"token_type\":\"bearer\","
                  "\"token_type\":\"mac\"}");
}

static void other_members_are_skipped(void)
{
    check_read("{\"x\":[],\"y\":{},\"z\":[[1,-2.5e-3,\"\\\"]}\"],{\"a\":{\"b\":"
               "null}}],\"access_token\":\"t\",\"v\":true,\"w\":false}",
               "t", 300);
    check_read("{\"error\":{\"access_token\":\"no\"},\"access_token\":\"t\"}",
               "t", 300);
    check_read("{\"ACCESS_TOKEN\":\"no\",\"access_token\":\"t\","
               "\"access_tokens\":\"no\",\"access_toke\":\"no\",\"\":0}",
               "t", 300);
    /* as lenient as the Lua module's decoder */
    check_read("{\"scope\":\"a\nb\\'\\ud800\xff\",\"access_token\":\"t\"}", "t",
               300);
}

static void what_is_no_json_object_is_refused(void)
{
    static const char *const bad[] = {
        "",
        " ",
        "\xef\xbb\xbf",
        "t",
        "null",
        "\"access_token\"",
        "[\"access_token\",\"t\"]",
        "[{\"access_token\":\"t\"}]",
        "{}",
        "{",
        "{\"access_token\":\"t\"",
        "{\"access_token\":\"t",
        "{\"access_token\":\"t\\",
        "{\"access_token\":\"t\\u004",
        "{\"access_token\":",
        "{\"access_token\"",
        "{\"access_token\":\"t\",}",
        "{,\"access_token\":\"t\"}",
        "{\"access_token\":\"t\"}}",
        "{\"access_token\":\"t\"}{}",
        "{\"access_token\":\"t\"} x",
        "{\"access_token\" \"t\"}",
        "{\"access_token\":\"t\" \"x\":1}",
        "{access_token:\"t\"}",
        "{'access_token':'t'}",
        "{\"access_token\":\"t\",\"x\":\"\\x\"}",
        "{\"access_token\":\"t\",\"x\":\"\\u00g0\"}",
        "{\"access_token\":\"t\",\"x\":nul}",
        "{\"access_token\":\"t\",\"x\":nulll}",
        "{\"access_token\":\"t\",\"x\":NaN}",
        "{\"access_token\":\"t\",\"x\":+1}",
        "{\"access_token\":\"t\",\"x\":01}",
        "{\"access_token\":\"t\",\"x\":1.}",
        "{\"access_token\":\"t\",\"x\":.5}",
        "{\"access_token\":\"t\",\"x\":1e}",
        "{\"access_token\":\"t\",\"x\":-}",
        "{\"access_token\":\"t\",\"x\":0x10}",
        "{\"access_token\":\"t\",\"x\":[1,]}",
        "{\"access_token\":\"t\",\"x\":[1 2]}",
        "{\"access_token\":\"t\",\"x\":[1}",
        "{\"access_token\":\"t\",\"x\":{\"a\"}}",
        "{\"access_token\":\"t\",\"x\":{1:2}}",
        "{\"access_token\":\"t\",\"x\":}",
        "{\"access_token\":\"t\"}//",
        "access_token=t&token_type=bearer",
        "<html><body>Sign in</body></html>",
    };
    static const char good[] = "{\"access_token\":\"t\",\"x\":\"y\"}";
    nymbl_token token;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        check_refused(bad[i]);
    /* no NUL, wherever it is */
    for (size_t at = 0; at <= strlen(good); at++) {
        char text[sizeof(good)];

        memcpy(text, good, at);
        text[at] = '\0';
        memcpy(text + at + 1, good + at, strlen(good) - at);
        check_refused_bytes(text, sizeof(text), "token_response");
    }
    CHECK_NUMBER(nymbl_token_read(&token, NULL, 0, NULL), NYMBL_PROTOCOL);
    nymbl_token_wipe(NULL);
}

static void depth_and_number_of_values_are_limited(void)
{
    static char text[4 * NYMBL_RESPONSE_MAX_VALUES];

    /* the object is one level itself */
    for (int depth = 31; depth <= 32; depth++) {
        char open[33] = "", close[33] = "";

        memset(open, '[', (size_t)depth);
        memset(close, ']', (size_t)depth);
        snprintf(text, sizeof(text), "{\"x\":%s%s,\"access_token\":\"t\"}",
                 open, close);
        if (depth == 31)
            check_read(text, "t", 300);
        else
            check_refused(text);
    }
    for (int more = 0; more <= 1; more++) {
        int values = NYMBL_RESPONSE_MAX_VALUES - 3 + more;
        char *at = text + sprintf(text, "{\"access_token\":\"t\",\"x\":[");

        for (int i = 0; i < values; i++)
            at += sprintf(at, i > 0 ? ",0" : "0");
        strcpy(at, "]}");
        if (more == 0)
            check_read(text, "t", 300);
        else
            check_refused_bytes(text, strlen(text), "response_too_long");
    }
}

static void wiped_token_holds_nothing(void)
{
    static const nymbl_token wiped;
    nymbl_token token;

    memset(&token, 'x', sizeof(token));
    nymbl_token_wipe(&token);
    CHECK(memcmp(&token, &wiped, sizeof(token)) == 0);
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(response_of_the_standard_is_read),
        TEST(type_is_bearer_or_missing),
        TEST(lifetime_is_a_number_or_digits),
        TEST(token_is_visible_ascii),
        TEST(token_has_a_maximum),
        TEST(last_of_two_members_counts),
        TEST(other_members_are_skipped),
        TEST(what_is_no_json_object_is_refused),
        TEST(depth_and_number_of_values_are_limited),
        TEST(wiped_token_holds_nothing),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
