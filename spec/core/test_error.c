/* SPDX-License-Identifier: MIT */
/* Kinds and reasons: their names, their texts, and their causes. */
#include "base/error.h"
#include "base/kind.h"
#include "test.h"

#include <errno.h>
#include <string.h>

static const struct {
    nymbl_kind kind;
    const char *name;
} kinds[] = {
    {NYMBL_OK, "ok"},
    {NYMBL_DONE, "done"},
    {NYMBL_AGAIN, "again"},
    {NYMBL_BAD_REQUEST, "bad_request"},
    {NYMBL_UNAUTHORIZED, "unauthorized"},
    {NYMBL_FORBIDDEN, "forbidden"},
    {NYMBL_NOT_FOUND, "not_found"},
    {NYMBL_TOO_LARGE, "too_large"},
    {NYMBL_UNSUPPORTED_TYPE, "unsupported_type"},
    {NYMBL_THROTTLED, "throttled"},
    {NYMBL_QUOTA, "quota"},
    {NYMBL_SERVER, "server"},
    {NYMBL_HTTP, "http"},
    {NYMBL_TIMEOUT, "timeout"},
    {NYMBL_NETWORK, "network"},
    {NYMBL_TLS, "tls"},
    {NYMBL_TRUNCATED, "truncated"},
    {NYMBL_CORRUPT, "corrupt"},
    {NYMBL_PROTOCOL, "protocol"},
    {NYMBL_REDIRECT, "redirect"},
    {NYMBL_IO, "io"},
    {NYMBL_CONTEXT, "context"},
    {NYMBL_CANCELED, "canceled"},
    {NYMBL_NO_MEMORY, "no_memory"},
    {NYMBL_MISUSE, "misuse"},
};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void each_kind_has_its_own_name(void)
{
    for (size_t i = 0; i < KINDS; i++) {
        CHECK_TEXT(nymbl_kind_name(kinds[i].kind), kinds[i].name);
        for (size_t j = 0; j < i; j++) {
            CHECK(kinds[i].kind != kinds[j].kind);
            CHECK(strcmp(kinds[i].name, kinds[j].name) != 0);
        }
    }
    CHECK_TEXT(nymbl_kind_name((nymbl_kind)-1000), "unknown");
    CHECK_TEXT(nymbl_kind_name((nymbl_kind)1000), "unknown");
}

static void kinds_that_fail_are_negative_and_dense(void)
{
    for (int kind = -1; kind >= NYMBL_MISUSE; kind--)
        CHECK(strcmp(nymbl_kind_name((nymbl_kind)kind), "unknown") != 0);
    CHECK_TEXT(nymbl_kind_name((nymbl_kind)(NYMBL_MISUSE - 1)), "unknown");
}

static void failures_have_texts_of_fixed_words(void)
{
    for (size_t i = 0; i < KINDS; i++) {
        const char *text = nymbl_kind_text(kinds[i].kind);

        CHECK(text != NULL);
        CHECK((*text != '\0') ==
              (kinds[i].kind < 0 && kinds[i].kind != NYMBL_MISUSE));
        CHECK(strchr(text, '%') == NULL && strchr(text, '\n') == NULL);
        for (size_t j = 0; j < i; j++)
            CHECK(*text == '\0' ||
                  strcmp(text, nymbl_kind_text(kinds[j].kind)) != 0);
    }
    CHECK_TEXT(nymbl_kind_text((nymbl_kind)-1000), "");
}

static void statuses_are_mapped_to_kinds(void)
{
    for (int status = -1; status < 1000; status++) {
        nymbl_kind kind = nymbl__kind_from_status(status);

        switch (status) {
        case 400:
            CHECK(kind == NYMBL_BAD_REQUEST);
            break;
        case 401:
            CHECK(kind == NYMBL_UNAUTHORIZED);
            break;
        case 403:
            CHECK(kind == NYMBL_FORBIDDEN);
            break;
        case 404:
            CHECK(kind == NYMBL_NOT_FOUND);
            break;
        case 413:
            CHECK(kind == NYMBL_TOO_LARGE);
            break;
        case 415:
            CHECK(kind == NYMBL_UNSUPPORTED_TYPE);
            break;
        case 429:
            CHECK(kind == NYMBL_THROTTLED);
            break;
        default:
            CHECK(kind ==
                  (status >= 500 && status <= 599 ? NYMBL_SERVER : NYMBL_HTTP));
        }
    }
}

static void failing_writes_the_error_and_returns_the_kind(void)
{
    nymbl_error err;

    memset(&err, 0x55, sizeof(err));
    CHECK(nymbl__error_set(&err, NYMBL_IO, "word") == NYMBL_IO);
    CHECK(err.kind == NYMBL_IO && err.status == 0 && !err.outcome_unknown);
    CHECK(err.retry_after < 0);
    CHECK_TEXT(err.reason, "word");
    CHECK(nymbl__error_set(NULL, NYMBL_IO, NULL) == NYMBL_IO);
}

static bool is_reason(const char *word)
{
    for (const char *const *reason = nymbl_reasons(); *reason != NULL;
         reason++) {
        if (strcmp(*reason, word) == 0)
            return true;
    }
    return false;
}

static void reasons_are_words_and_differ(void)
{
    const char *const *reasons = nymbl_reasons();
    size_t count = 0;

    for (; reasons[count] != NULL; count++) {
        const char *word = reasons[count];

        CHECK_NUMBER(strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789_"),
                     strlen(word));
        CHECK(strlen(word) >= 4);
        for (size_t i = 0; i < count; i++)
            CHECK(strcmp(reasons[i], word) != 0);
    }
    CHECK(count > 50);
}

static void system_errors_have_their_reasons(void)
{
    static const struct {
        int code;
        const char *word;
    } words[] = {
        {ENOENT, "not_found"},
        {EACCES, "permission"},
        {EPERM, "permission"},
        {EEXIST, "exists"},
        {EISDIR, "directory"},
        {ENOTDIR, "not_a_directory"},
        {ENXIO, "not_a_file"},
        {ENOSPC, "no_space"},
        {EDQUOT, "no_space"},
        {EFBIG, "file_too_big"},
        {EROFS, "read_only"},
        {EMFILE, "too_many_files"},
        {ENFILE, "too_many_files"},
        {ELOOP, "too_many_links"},
        {ENAMETOOLONG, "name_too_long"},
        {EBADF, "not_open_for_access"},
        {EPIPE, "pipe_closed"},
        {EINTR, "interrupted"},
        {EIO, "io_error"},
        {0, "io_error"},
    };

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        CHECK_TEXT(nymbl_reason_from_errno(words[i].code), words[i].word);
}

/* The errors that open(2), read(2), write(2), fsync(2), rename(2), link(2) and
 * connect(2) document (Linux man-pages 6.03). */
static void documented_system_errors_have_a_reason(void)
{
    static const int codes[] = {
        EACCES,    EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN,
        EALREADY,  EBADF,      EBUSY,         ECONNREFUSED, EDESTADDRREQ,
        EDQUOT,    EEXIST,     EFAULT,        EFBIG,        EINPROGRESS,
        EINTR,     EINVAL,     EIO,           EISCONN,      EISDIR,
        ELOOP,     EMFILE,     EMLINK,        ENAMETOOLONG, ENETUNREACH,
        ENFILE,    ENODEV,     ENOENT,        ENOMEM,       ENOSPC,
        ENOTDIR,   ENOTEMPTY,  ENOTSOCK,      ENXIO,        EOPNOTSUPP,
        EOVERFLOW, EPERM,      EPIPE,         EPROTOTYPE,   EROFS,
        ETIMEDOUT, ETXTBSY,    EWOULDBLOCK,   EXDEV,
    };

    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        CHECK(is_reason(nymbl_reason_from_errno(codes[i])));
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(each_kind_has_its_own_name),
        TEST(kinds_that_fail_are_negative_and_dense),
        TEST(failures_have_texts_of_fixed_words),
        TEST(statuses_are_mapped_to_kinds),
        TEST(failing_writes_the_error_and_returns_the_kind),
        TEST(reasons_are_words_and_differ),
        TEST(system_errors_have_their_reasons),
        TEST(documented_system_errors_have_a_reason),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
