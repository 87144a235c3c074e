/* SPDX-License-Identifier: MIT */
/* The version's forms agree. */
#include "nymbl.h"
#include "test.h"

static void library_and_header_are_of_one_version(void)
{
    CHECK_TEXT(nymbl_version(), NYMBL_VERSION);
}

static void number_is_the_text(void)
{
    char text[32];

    snprintf(text, sizeof(text), "%d.%d.%d", NYMBL_VERSION_NUMBER >> 16,
             NYMBL_VERSION_NUMBER >> 8 & 0xff, NYMBL_VERSION_NUMBER & 0xff);
    CHECK_TEXT(text, NYMBL_VERSION);
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(library_and_header_are_of_one_version),
        TEST(number_is_the_text),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
