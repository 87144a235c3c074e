/* SPDX-License-Identifier: MIT */
/* The length of a reply. spec/fuzz/reply.c tries arbitrary bytes. */
#include "base/resp.h"
#include "test.h"

#include <string.h>

/* Text of the answer: a length, "again", "invalid" or "too large". */
static const char *answer_to(const char *bytes, size_t size)
{
    static char text[32];
    size_t length = 0;

    switch (nymbl__resp_length(bytes, size, &length)) {
    case NYMBL_OK:
        snprintf(text, sizeof(text), "%zu", length);
        return text;
    case NYMBL_AGAIN:
        return "again";
    case NYMBL_PROTOCOL:
        return "invalid";
    case NYMBL_TOO_LARGE:
        return "too large";
    default:
        return "unknown";
    }
}

static const char *answer(const char *bytes)
{
    return answer_to(bytes, strlen(bytes));
}

static void a_reply_of_each_type_ends_where_the_next_one_begins(void)
{
    CHECK_TEXT(answer("+OK\r\n+OK\r\n"), "5");
    CHECK_TEXT(answer("+\r\n"), "3");
    CHECK_TEXT(answer("-ERR no\r\n:1\r\n"), "9");
    CHECK_TEXT(answer(":123\r\nx"), "6");
    CHECK_TEXT(answer(":-9223372036854775808\r\n"), "23");
    CHECK_TEXT(answer(":+1\r\n"), "5");
    CHECK_TEXT(answer("$5\r\nhello\r\n$"), "11");
    CHECK_TEXT(answer("$2\r\n\r\n\r\n"), "8");
    CHECK_TEXT(answer_to("$3\r\na\0b\r\n", 9), "9");
    CHECK_TEXT(answer("$0\r\n\r\n"), "6");
    CHECK_TEXT(answer("$-1\r\n+"), "5");
    CHECK_TEXT(answer("*0\r\n+"), "4");
    CHECK_TEXT(answer("*-1\r\n+"), "5");
    CHECK_TEXT(answer("*2\r\n:1\r\n$1\r\na\r\n:2\r\n"), "15");
    CHECK_TEXT(answer("*2\r\n*1\r\n:1\r\n*0\r\n:2\r\n"), "16");
}

static void an_unfinished_reply_needs_more_bytes(void)
{
    static const char *const replies[] = {
        "+OK\r\n", "-ERR\r\n", ":-12\r\n", "$5\r\nhello\r\n",
        "*3\r\n:1\r\n*2\r\n$-1\r\n$2\r\nab\r\n+c\r\n"};

    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        for (size_t cut = 0; cut < strlen(replies[i]); cut++)
            CHECK_TEXT(answer_to(replies[i], cut), "again");
        CHECK_NUMBER(atoi(answer(replies[i])), (int)strlen(replies[i]));
    }
}

static void what_is_no_reply_is_invalid(void)
{
    static const char *const invalid[] = {
        "H",          "\r\n",    "+a\nb",   "+a\rb",
        ":x",         ":1x",     ":-\r",    ":\r\n",
        "$+1\r\n",    "$-2\r\n", "$--1",    "$1\r\nabc",
        "$1\r\na\rb", "*-2\r\n", "*1\r\nx", "*2\r\n:1\r\n\r",
        "%1\r\n",     "_\r\n",   "#t\r\n",  ":12345678901234567890"};

    for (size_t i = 0; i < sizeof(invalid) / sizeof(invalid[0]); i++) {
        if (!CHECK_TEXT(answer(invalid[i]), "invalid"))
            printf("    of %s\n", invalid[i]);
    }
}

static void a_reply_over_a_limit_is_too_large(void)
{
    static char bytes[NYMBL_REPLY_MAX + 1];

    CHECK_TEXT(answer("$65536\r\n"), "again");
    CHECK_TEXT(answer("$65537\r\n"), "too large");
    CHECK_TEXT(answer("$9999999999999999999\r\n"), "too large");
    CHECK_TEXT(answer("*64\r\n"), "again");
    CHECK_TEXT(answer("*65\r\n"), "too large");
    CHECK_TEXT(answer("*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n"), "20");
    CHECK_TEXT(answer("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n"), "too large");
    memset(bytes, 'a', sizeof(bytes));
    bytes[0] = '+';
    CHECK_TEXT(answer_to(bytes, NYMBL_REPLY_MAX - 1), "again");
    CHECK_TEXT(answer_to(bytes, NYMBL_REPLY_MAX), "too large");
    memcpy(bytes + NYMBL_REPLY_MAX - 2, "\r\n", 2);
    CHECK_TEXT(answer_to(bytes, NYMBL_REPLY_MAX), "65536");
    memcpy(bytes + NYMBL_REPLY_MAX - 2, "a\r\n", 3);
    CHECK_TEXT(answer_to(bytes, NYMBL_REPLY_MAX + 1), "too large");
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(a_reply_of_each_type_ends_where_the_next_one_begins),
        TEST(an_unfinished_reply_needs_more_bytes),
        TEST(what_is_no_reply_is_invalid),
        TEST(a_reply_over_a_limit_is_too_large),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
