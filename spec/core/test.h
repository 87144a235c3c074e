/* SPDX-License-Identifier: MIT */
/* Shared by all test programs: checks, and a main() that runs a list of
 * functions whose names are sentences. */
#ifndef NYMBL_TEST_H
#define NYMBL_TEST_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct test {
    const char *name;
    void (*run)(void);
} test;

bool test_check(bool good, const char *expression, const char *file, int line);
bool test_check_text(const char *got, const char *expected,
                     const char *expression, const char *file, int line);
bool test_check_number(long long got, long long expected,
                       const char *expression, const char *file, int line);
/* Skip the running test; `why` is a string literal. */
void test_skip(const char *why);
/* Whether a check of the running test has failed. */
bool test_failed(void);
/* Run all tests, or those whose names contain the program's argument. */
int test_main(const test *tests, size_t count, int argc, char **argv);

/* Record a failure and continue. */
#define CHECK(expression)                                                      \
    test_check((expression), #expression, __FILE__, __LINE__)
#define CHECK_TEXT(got, expected)                                              \
    test_check_text((got), (expected), #got, __FILE__, __LINE__)
#define CHECK_NUMBER(got, expected)                                            \
    test_check_number((got), (expected), #got, __FILE__, __LINE__)

/* A check without which the rest of the program cannot run. */
#define REQUIRE(expression)                                                    \
    do {                                                                       \
        if (!CHECK(expression)) {                                              \
            printf("stopped\n");                                               \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

#define TEST(function)                                                         \
    {                                                                          \
#function, function                                                    \
    }
#define TEST_COUNT(tests) (sizeof(tests) / sizeof((tests)[0]))

#endif
