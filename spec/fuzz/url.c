/* SPDX-License-Identifier: MIT */
/* URLs from the settings and from redirects. The input is a base URL, a line
 * feed, and a reference. */
#include "exchange/url.h"
#include "fuzz.h"

#include "nymbl.h"

static unsigned bases, refused_bases, resolved, refused;

/* The authority of a URL (RFC 3986, section 3.2). */
static const char *authority_of(const char *url, size_t *length)
{
    const char *at = strstr(url, "://");

    require(at != NULL, "no authority");
    at += 3;
    *length = strcspn(at, "/?#");
    return at;
}

static void check_url(const char *url)
{
    size_t length;
    const char *authority = authority_of(url, &length);

    require(length > 0, "empty host");
    require(memchr(authority, '@', length) == NULL, "user information");
    require(memchr(authority, '\\', length) == NULL, "backslash in a host");
    require(strchr(url, '#') == NULL, "fragment");
    for (const char *at = url; *at != '\0'; at++)
        require((unsigned char)*at > ' ' && *at != 0x7f, "unsafe byte");
    for (size_t i = 0; i < length; i++)
        require((unsigned char)authority[i] < 0x7f, "host that is not ASCII");
}

/* Percent-decode what was escaped: it must be the text. */
static void check_escaping(const char *text)
{
    nymbl__buffer buffer;
    size_t at = 0;

    nymbl__buffer_init(&buffer, 1 << 20);
    require(nymbl__buffer_puts(&buffer, "") == NYMBL_OK &&
                nymbl__url_append_escaped(&buffer, text) == NYMBL_OK,
            "escaping");
    for (size_t i = 0; i < buffer.size; i++, at++) {
        unsigned byte = (unsigned char)buffer.data[i];

        require(byte > ' ' && byte < 0x7f &&
                    strchr("/?#&=+@:;,", (int)byte) == NULL,
                "unescaped byte");
        if (byte == '%') {
            require(sscanf(buffer.data + i + 1, "%2X", &byte) == 1, "escape");
            i += 2;
        }
        require(byte == (unsigned char)text[at] && byte != 0, "decoded byte");
    }
    require(text[at] == '\0', "length of the decoded text");
    nymbl__buffer_free(&buffer);
}

static void check_origins(const char *a, const char *b)
{
    bool same = nymbl__url_is_same_origin(a, b);
    size_t one, two;
    const char *first = authority_of(a, &one), *second = authority_of(b, &two);

    require(nymbl__url_is_same_origin(a, a), "a URL has its own origin");
    require(same == nymbl__url_is_same_origin(b, a), "symmetry");
    if (!same)
        return;
    require(nymbl__url_is_https(a) == nymbl__url_is_https(b), "scheme");
    /* libcurl decodes escapes and numbers in hosts */
    if (memchr(first, '%', one) != NULL || memchr(second, '%', two) != NULL ||
        (*first >= '0' && *first <= '9') || (*second >= '0' && *second <= '9'))
        return;
    one = strcspn(first, ":/?[");
    two = strcspn(second, ":/?[");
    require(one == two, "hosts of one origin");
    for (size_t i = 0; i < one; i++)
        require((first[i] | 0x20) == (second[i] | 0x20), "host of one origin");
}

static bool is_ascii(const char *text)
{
    while (*text > 0)
        text++;
    return *text == '\0';
}

static void resolve(const char *base, const char *reference)
{
    char *url = (char *)base, *again = NULL, *with_fragment;
    nymbl_kind kind = nymbl__url_resolve(&url, base, reference);

    require((kind == NYMBL_OK) == (url != NULL), "result");
    if (kind != NYMBL_OK) {
        require(kind == NYMBL_REDIRECT, "kind");
        refused++;
        return;
    }
    resolved++;
    check_url(url);
    check_origins(base, url);
    require(nymbl__url_resolve(&again, base, url) == NYMBL_OK,
            "what was resolved can be resolved");
    /* an empty reference keeps a path that libcurl would escape elsewhere */
    require(strcmp(again, url) == 0 || !is_ascii(base), "and stays the same");
    free(again);
    if (strchr(reference, '#') == NULL) {
        with_fragment = malloc(strlen(reference) + 10);
        sprintf(with_fragment, "%s#fragment", reference);
        require(nymbl__url_resolve(&again, base, with_fragment) == NYMBL_OK &&
                    strcmp(again, url) == 0,
                "a fragment has no effect");
        free(with_fragment);
        free(again);
    }
    free(url);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *base = field_cut(&data, &size, '\n');
    char *reference = field_cut(&data, &size, '\n');
    const char *problem = nymbl_url_problem(base, true);

    check_escaping(reference);
    if (problem == NULL) {
        bases++;
        check_url(base);
        require(nymbl__url_is_https(base) ||
                    nymbl_url_problem(base, false) != NULL,
                "plain HTTP");
        resolve(base, reference);
    } else {
        refused_bases++;
        resolve("https://a.example:8443/v1/x?y", reference);
    }
    free(base);
    free(reference);
    return 0;
}

bool fuzz_report(void)
{
    printf("%u base URLs accepted, %u refused; %u references resolved, "
           "%u refused\n",
           bases, refused_bases, resolved, refused);
    return bases > 0 && refused_bases > 0 && resolved > 0 && refused > 0;
}
