/* SPDX-License-Identifier: MIT */
/* Checks, and the list of tests. */
#include "test.h"

static int test_failures;         /* of the running test */
static const char *test_skip_why; /* why the running test was skipped */

bool test_check(bool good, const char *expression, const char *file, int line)
{
    if (!good) {
        test_failures++;
        printf("%s:%d: not true: %s\n", file, line, expression);
    }
    return good;
}

bool test_check_text(const char *got, const char *expected,
                     const char *expression, const char *file, int line)
{
    bool good = got == expected ||
                (got != NULL && expected != NULL && strcmp(got, expected) == 0);

    if (!good) {
        test_failures++;
        printf("%s:%d: %s is \"%s\", not \"%s\"\n", file, line, expression,
               got == NULL ? "(null)" : got,
               expected == NULL ? "(null)" : expected);
    }
    return good;
}

bool test_check_number(long long got, long long expected,
                       const char *expression, const char *file, int line)
{
    if (got != expected) {
        test_failures++;
        printf("%s:%d: %s is %lld, not %lld\n", file, line, expression, got,
               expected);
    }
    return got == expected;
}

void test_skip(const char *why)
{
    test_skip_why = why;
}

int test_main(const test *tests, size_t count, int argc, char **argv)
{
    int failed = 0, skipped = 0, ran = 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    /* no test may hang a build */
    alarm(getenv("NYMBL_SPEC_LARGE") != NULL ? 3600 : 300);
    for (size_t i = 0; i < count; i++) {
        if (argc > 1 && strstr(tests[i].name, argv[1]) == NULL)
            continue;
        test_failures = 0;
        test_skip_why = NULL;
        tests[i].run();
        ran++;
        if (test_failures > 0)
            failed++;
        else if (test_skip_why != NULL)
            skipped++;
        printf("%s %s%s%s\n",
               test_failures > 0       ? "FAILED "
               : test_skip_why != NULL ? "skipped"
                                       : "ok     ",
               tests[i].name, test_skip_why != NULL ? ": " : "",
               test_skip_why != NULL ? test_skip_why : "");
    }
    printf("%d tests, %d failed, %d skipped\n", ran, failed, skipped);
    return failed > 0 ? 1 : 0;
}

bool test_failed(void)
{
    return test_failures > 0;
}
