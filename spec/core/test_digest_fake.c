/* SPDX-License-Identifier: MIT */
/* SHA-256 by a library with OpenSSL's interface that counts its calls and fails
 * as a test wants: this program exports the functions. Compiled with TEST_MIXED
 * it exports all but one, which is then another library's. */
#include "base/digest.h"
#include "nymbl.h"
#include "test.h"

#define EXPORT __attribute__((visibility("default")))
#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

/* ---- the library ---- */

static int contexts, updates;
static bool no_context, no_init, no_update;

EXPORT void *EVP_MD_CTX_new(void);
EXPORT void EVP_MD_CTX_free(void *context);
EXPORT const void *EVP_sha256(void);
EXPORT int EVP_DigestInit_ex(void *context, const void *type, void *engine);
EXPORT int EVP_DigestUpdate(void *context, const void *data, size_t size);
EXPORT int EVP_DigestFinal_ex(void *context, unsigned char *out,
                              unsigned *size);

void *EVP_MD_CTX_new(void)
{
    if (no_context)
        return NULL;
    contexts++;
    return calloc(1, sizeof(nymbl__sha256));
}

void EVP_MD_CTX_free(void *context)
{
    if (context != NULL)
        contexts--;
    free(context);
}

const void *EVP_sha256(void)
{
    return "sha256";
}

int EVP_DigestInit_ex(void *context, const void *type, void *engine)
{
    if (no_init || strcmp(type, "sha256") != 0 || engine != NULL)
        return 0;
    nymbl__sha256_init(context);
    return 1;
}

int EVP_DigestUpdate(void *context, const void *data, size_t size)
{
    updates++;
    if (no_update)
        return 0;
    nymbl__sha256_add(context, data, size);
    return 1;
}

#ifndef TEST_MIXED
static bool no_final;

int EVP_DigestFinal_ex(void *context, unsigned char *out, unsigned *size)
{
    char text[65];

    (void)size;
    if (no_final)
        return 0;
    nymbl__sha256_text(context, text);
    for (int i = 0; i < 32; i++) {
        unsigned byte;

        sscanf(text + 2 * i, "%2x", &byte);
        out[i] = (unsigned char)byte;
    }
    return 1;
}
#endif

/* ---- tests ---- */

static bool digest_of(const char *data, char text[65])
{
    nymbl__digest digest;

    nymbl__digest_begin(&digest);
    if (nymbl__digest_add(&digest, data, strlen(data)))
        return nymbl__digest_end(&digest, text);
    nymbl__digest_free(&digest);
    return false;
}

#ifdef TEST_MIXED
static void functions_of_two_libraries_are_not_used(void)
{
    char text[65];

    nymbl_tls_problem(); /* libcurl is linked if something needs it */
    CHECK(digest_of("abc", text));
    CHECK_TEXT(text, ABC);
    CHECK_NUMBER(updates, 0);
}
#else
static void library_that_is_loaded_is_used(void)
{
    nymbl__digest digest;
    char text[65];

    CHECK(digest_of("abc", text)); /* the first use tries it out */
    updates = 0;
    CHECK(digest_of("abc", text));
    CHECK_TEXT(text, ABC);
    CHECK_NUMBER(updates, 1);
    nymbl__digest_begin(&digest);
    CHECK_NUMBER(contexts, 1);
    nymbl__digest_free(&digest);
    nymbl__digest_free(&digest);
    CHECK_NUMBER(contexts, 0);
}

static void own_code_is_used_if_the_library_has_no_memory(void)
{
    char text[65];

    updates = 0;
    no_context = true;
    CHECK(digest_of("abc", text));
    CHECK_TEXT(text, ABC);
    no_context = false;
    no_init = true;
    CHECK(digest_of("abc", text));
    CHECK_TEXT(text, ABC);
    no_init = false;
    CHECK_NUMBER(updates, 0);
    no_update = true; /* too late to begin with own code */
    CHECK(!digest_of("abc", text));
    no_update = false;
    no_final = true;
    CHECK(!digest_of("abc", text));
    no_final = false;
    CHECK_NUMBER(contexts, 0);
}
#endif

int main(int argc, char **argv)
{
    static const test tests[] = {
#ifdef TEST_MIXED
        TEST(functions_of_two_libraries_are_not_used),
#else
        TEST(library_that_is_loaded_is_used),
        TEST(own_code_is_used_if_the_library_has_no_memory),
#endif
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
