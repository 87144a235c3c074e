/* SPDX-License-Identifier: MIT */
/* SHA-256 by our own code and by the OpenSSL that libcurl has loaded. */
#include "base/digest.h"
#include "nymbl.h"
#include "test.h"

#include <dlfcn.h>

/* ---- helpers ---- */

static void own_of(const void *data, size_t size, char text[65])
{
    nymbl__sha256 hash;

    nymbl__sha256_init(&hash);
    nymbl__sha256_add(&hash, data, size);
    nymbl__sha256_text(&hash, text);
}

static bool digest_of(const void *data, size_t size, char text[65])
{
    nymbl__digest digest;

    nymbl__digest_begin(&digest);
    if (nymbl__digest_add(&digest, data, size))
        return nymbl__digest_end(&digest, text);
    nymbl__digest_free(&digest);
    return false;
}

static void check_vector(const char *data, size_t size, const char *expected)
{
    char text[65];

    own_of(data, size, text);
    CHECK_TEXT(text, expected);
    CHECK(digest_of(data, size, text));
    CHECK_TEXT(text, expected);
}

/* Not a good generator, but the same bytes each time. */
static unsigned next_random(void)
{
    static unsigned state = 7;

    state = state * 1103515245 + 12345;
    return state >> 8;
}

static void fill(unsigned char *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        data[i] = (unsigned char)next_random();
}

/* ---- tests ---- */

/* FIPS 180-4, by the examples of NIST's "Cryptographic Standards and
 * Guidelines". */
static void vectors_of_the_standard_are_met(void)
{
    char *million = malloc(1000000);

    check_vector("", 0,
                 "e3b0c44298fc1c149afbf4c8996fb924"
                 "27ae41e4649b934ca495991b7852b855");
    check_vector("abc", 3,
                 "ba7816bf8f01cfea414140de5dae2223"
                 "b00361a396177a9cb410ff61f20015ad");
    check_vector("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
                 "248d6a61d20638b8e5c026930c3e6039"
                 "a33ce45964ff2167f6ecedd419db06c1");
    check_vector("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
                 "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
                 112,
                 "cf5b16a778af8380036ce59e7b049237"
                 "0b249b11e8f07a51afac45037afee9d1");
    memset(million, 'a', 1000000);
    check_vector(million, 1000000,
                 "cdc76e5c9914fb9281a1c7e284d73e67"
                 "f1809a48a497200e046d39ccc7112cd0");
    free(million);
}

/* Each length up to four blocks, in pieces of each size up to two. */
static void pieces_give_the_digest_of_the_whole(void)
{
    unsigned char data[256];

    fill(data, sizeof(data));
    for (size_t size = 0; size <= sizeof(data); size++) {
        char whole[65], text[65];

        own_of(data, size, whole);
        for (size_t piece = 1; piece <= 129 && !test_failed(); piece++) {
            nymbl__sha256 hash;

            nymbl__sha256_init(&hash);
            for (size_t at = 0; at < size; at += piece)
                nymbl__sha256_add(&hash, data + at,
                                  size - at < piece ? size - at : piece);
            nymbl__sha256_text(&hash, text);
            CHECK_TEXT(text, whole);
        }
    }
}

/* Lengths at random, in pieces. */
static void own_code_agrees_with_openssl(void)
{
    static unsigned char data[200000];

    nymbl_tls_problem(); /* libcurl is linked if something needs it */
    if (dlsym(RTLD_DEFAULT, "EVP_sha256") == NULL) {
        test_skip("libcurl has loaded no OpenSSL");
        return;
    }
    fill(data, sizeof(data));
    for (int i = 0; i < 300 && !test_failed(); i++) {
        size_t size = next_random() % sizeof(data), at = 0;
        char own[65], others[65];
        nymbl__digest digest;

        own_of(data, size, own);
        nymbl__digest_begin(&digest);
        CHECK(digest.context != NULL);
        while (at < size) {
            size_t piece = 1 + next_random() % 40000;

            if (piece > size - at)
                piece = size - at;
            CHECK(nymbl__digest_add(&digest, data + at, piece));
            at += piece;
        }
        CHECK(nymbl__digest_end(&digest, others));
        CHECK_TEXT(own, others);
    }
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(vectors_of_the_standard_are_met),
        TEST(pieces_give_the_digest_of_the_whole),
        TEST(own_code_agrees_with_openssl),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
