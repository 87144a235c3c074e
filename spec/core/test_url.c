/* SPDX-License-Identifier: MIT */
/* URLs: which are allowed, which have the same origin, and how they are joined.
 */
#include "base/buffer.h"
#include "base/secret.h"
#include "exchange/url.h"
#include "test.h"

#include <curl/curl.h>

#include <strings.h>

static void check_problem(const char *url, bool allow_http, bool good)
{
    const char *problem = nymbl_url_problem(url, allow_http);

    if (!CHECK((problem == NULL) == good))
        printf("\"%.80s\": %s\n", url, problem == NULL ? "good" : problem);
}

static void https_urls_are_accepted(void)
{
    static const char *const urls[] = {
        "https://api.example.org",         "https://api.example.org/",
        "https://api.example.org:8443/v1", "HTTPS://API.example.org/a/b/",
        "https://127.0.0.1:1/x",           "https://[::1]:65535/x",
        "https://api.example.org/a..b/.c", "https://h/%20",
    };

    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        check_problem(urls[i], false, true);
        check_problem(urls[i], true, true);
    }
}

static void other_urls_are_refused(void)
{
    static const char *const urls[] = {
        "",
        "https",
        "https:",
        "https://",
        "https:/example.org",
        "//example.org",
        "example.org",
        "ftp://example.org",
        "file:///etc/passwd",
        " https://example.org",
        "https://example.org ",
        "https://exa mple.org",
        "https://example.org/\r\nX: y",
        "https://example.org/\t",
        "https://example.org\\@evil.com",
        "https://example.org/\x7f",
        "https://user@example.org",
        "https://user:pass@example.org",
        "https://@example.org",
        "https://example.org/a@b",
        "https://example.org/?x=1",
        "https://example.org?",
        "https://example.org/#x",
        "https://example.org#",
        "https://example.org:99999/",
        "https://example.org:-1/",
        "https://example.org:x/",
        "https://[::1/",
        "https://[zz]/",
        "https://example.org/a/../b",
        "https://example.org/./b",
        "https://example.org/a/..",
        "https://example.org/a/.",
        "https:///example.org/",
    };

    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        check_problem(urls[i], false, false);
        check_problem(urls[i], true, false);
    }
}

static void overlong_url_is_refused(void)
{
    char url[4000] = "https://example.org/";

    memset(url + 20, 'a', 3900);
    check_problem(url, false, false);
}

static void http_is_allowed_for_loopback_on_request(void)
{
    static const char *const urls[] = {
        "http://127.0.0.1",     "http://127.0.0.1:8080/v1",
        "http://127.1.2.3/",    "http://127.255.255.255",
        "http://[::1]:80/x",    "http://localhost",
        "http://LocalHost:1/x", "HTTP://localhost",
    };

    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        check_problem(urls[i], true, true);
        check_problem(urls[i], false, false);
    }
}

static void http_elsewhere_is_refused(void)
{
    static const char *const urls[] = {
        "http://example.org",
        "http://127.0.0.1.evil.com",
        "http://127.0.0.1%2eevil.com",
        "http://localhost.evil.com",
        "http://localhost@evil.com",
        "http://evil.com/127.0.0.1",
        "http://evil.com:80/localhost",
        "http://128.0.0.1",
        "http://0.0.0.0",
        "http://0300.0.0.1",
        "http://10.0.0.1",
        "http://1.127.0.1",
        "http://127.0.0.256",
        "http://127.0.0.1.",
        "http://127.0.0.1.1",
        "http://[::2]",
        "http://[::]",
        "http://[fe80::1]",
        "http://[::ffff:10.0.0.1]",
        "http://localhos",
        "http://localhostt",
    };

    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        check_problem(urls[i], true, false);
        check_problem(urls[i], false, false);
    }
}

/* Numbers that libcurl itself reads as 127.x.y.z are loopback addresses; as
 * decimals the same text may not be. In either case: never accepted if they
 * lead elsewhere. */
static void odd_numbers_are_accepted_only_as_loopback(void)
{
    static const char *const urls[] = {"http://0177.0.0.1", "http://0x7f.1",
                                       "http://2130706433", "http://127.1",
                                       "http://0127.0.0.1"};

    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        CURLU *parsed = curl_url();
        char *host = NULL;
        bool loopback;

        REQUIRE(curl_url_set(parsed, CURLUPART_URL, urls[i], 0) == CURLUE_OK);
        REQUIRE(curl_url_get(parsed, CURLUPART_HOST, &host, 0) == CURLUE_OK);
        loopback = strncmp(host, "127.", 4) == 0 &&
                   strspn(host, "0123456789.") == strlen(host) &&
                   strcmp(host, "127.1") != 0;
        check_problem(urls[i], true, loopback);
        curl_free(host);
        curl_url_cleanup(parsed);
    }
}

static void same_origin_needs_scheme_host_and_port(void)
{
    static const struct {
        const char *a, *b;
        bool same;
    } cases[] = {
        {"https://a.b/x", "https://a.b/y?z", true},
        {"https://a.b/x", "https://A.B:443/", true},
        {"http://a.b/", "http://a.b:80/", true},
        {"https://a.b/", "http://a.b/", false},
        {"https://a.b/", "http://a.b:443/", false},
        {"https://a.b/", "https://a.b:444/", false},
        {"https://a.b/", "https://a.b.c/", false},
        {"https://a.b/", "https://xa.b/", false},
        {"https://[::1]/", "https://[::1]:443/", true},
        {"https://[::1]/", "https://[::2]/", false},
        {"https://a.b/", "nonsense", false},
        {"nonsense", "nonsense", false},
        {"https://a.b/", "https://a.b@evil.com/", false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (!CHECK(nymbl__url_is_same_origin(cases[i].a, cases[i].b) ==
                   cases[i].same))
            printf("%s and %s\n", cases[i].a, cases[i].b);
        CHECK(nymbl__url_is_same_origin(cases[i].b, cases[i].a) ==
              cases[i].same);
    }
}

static void references_are_resolved(void)
{
    static const struct {
        const char *base, *reference, *url; /* NULL: refused */
    } cases[] = {
        {"https://a.b/c/d?e", "f", "https://a.b/c/f"},
        {"https://a.b/c/d", "../f", "https://a.b/f"},
        {"https://a.b/c/d", "/f?g=h", "https://a.b/f?g=h"},
        {"https://a.b/c/d", "?g", "https://a.b/c/d?g"},
        {"https://a.b/c/d", "//x.y/z", "https://x.y/z"},
        {"https://a.b/c/d", "http://x.y/z", "http://x.y/z"},
        {"https://a.b/c/d", "https://x.y/z#frag", "https://x.y/z"},
        {"https://a.b/c/d", "f#frag", "https://a.b/c/f"},
        {"https://a.b/c/d", "f g", "https://a.b/c/f%20g"},
        {"https://a.b/c/d", "https://u@x.y/z", NULL},
        {"https://a.b/c/d", "https://u:p@x.y/z", NULL},
        {"https://a.b/c/d", "https://:p@x.y/z", NULL},
        {"https://a.b/c/d", "//u@x.y/z", NULL},
        {"https://a.b/c/d", "https://", NULL},
        {"https://a.b/c/d", "https://x.y:99999/", NULL},
        {"https://a.b/c/d", "f\r\nX: y", NULL},
        {"https://a.b/c/d", "f\tg", NULL},
        {"https://a.b/c/d", "\x7f", NULL},
        {"https://a.b/c/d", "#f\tg", "https://a.b/c/d"},
        {"https://a.b/c/d?e", "#f", "https://a.b/c/d?e"},
        {"https://a.b/c/d?e", "", "https://a.b/c/d?e"},
        {"https://a.b/c/d?e", "?f#g?h", "https://a.b/c/d?f"},
        {"https://a.b/c/d", "1.2:3", NULL},
        {"https://a.b/c/d", "f g:h", NULL},
        {"https://a.b/c/d", ":f", NULL},
        {"https://a.b/c/d", "f/g:h", "https://a.b/c/f/g:h"},
        {"https://a.b/c/d", "f?g:h", "https://a.b/c/f?g:h"},
        {"https://a.b/c/d", "file:///f", "file:///f"}, /* refused later */
        {"nonsense", "f", NULL},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *url = (char *)"x";
        nymbl_kind kind =
            nymbl__url_resolve(&url, cases[i].base, cases[i].reference);

        CHECK_NUMBER(kind, cases[i].url == NULL ? NYMBL_REDIRECT : NYMBL_OK);
        if (!CHECK_TEXT(url, cases[i].url))
            printf("%s\n", cases[i].reference);
        nymbl__secret_free(url);
    }
}

static void host_that_changes_when_parsed_again_is_refused(void)
{
    static const char *const references[] = {
        "//127%2e0.1/",
        "//127%2E1:8081/x",
        "https://0x7f%2e1",
    };
    char *url;

    for (size_t i = 0; i < sizeof(references) / sizeof(references[0]); i++) {
        if (!CHECK(nymbl__url_resolve(&url, "https://a.example/v1",
                                      references[i]) == NYMBL_REDIRECT))
            printf("%s: %s\n", references[i], url);
        free(url);
    }
    REQUIRE(nymbl__url_resolve(&url, "https://a.example/v1",
                               "//%61.example/%2541") == NYMBL_OK);
    CHECK_TEXT(url, "https://a.example/%2541");
    free(url);
}

static void overlong_reference_is_refused(void)
{
    char *reference = malloc(200001), *url;

    memset(reference, 'a', 200000);
    reference[200000] = '\0';
    CHECK(nymbl__url_resolve(&url, "https://a.b/", reference) ==
          NYMBL_REDIRECT);
    CHECK(url == NULL);
    free(reference);
}

/* libcurl 7.69 to 8.3 and a SOCKS5 proxy: CVE-2023-38545 */
static void host_longer_than_any_name_is_refused(void)
{
    static const size_t lengths[] = {200, 253, 255, 256, 300, 16385, 40000};
    static const char *const before[] = {"https://", "//"};

    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        for (size_t j = 0; j < 2; j++) {
            char *reference = calloc(1, lengths[i] + 20), *url = NULL;
            size_t used = strlen(before[j]);
            nymbl_kind kind;

            memcpy(reference, before[j], used);
            for (size_t k = 0; k < lengths[i]; k++)
                reference[used + k] = k % 64 == 63 ? '.' : 'a';
            memcpy(reference + used + lengths[i], "/x", 2);
            kind = nymbl__url_resolve(&url, "https://a.b/", reference);
            CHECK_NUMBER(kind, lengths[i] > 255 ? NYMBL_REDIRECT : NYMBL_OK);
            CHECK((url == NULL) == (lengths[i] > 255));
            nymbl__secret_free(url);
            free(reference);
        }
    }
}

static void escape_leaves_only_unreserved_characters(void)
{
    nymbl__buffer buffer;
    char all[256];

    nymbl__buffer_init(&buffer, 1000);
    for (int i = 0; i < 255; i++)
        all[i] = (char)(i + 1);
    all[255] = '\0';
    CHECK(nymbl__url_append_escaped(&buffer, all) == NYMBL_OK);
    CHECK_NUMBER((long long)buffer.size, 66 + 3 * (255 - 66));
    for (size_t i = 0; i < buffer.size; i++)
        CHECK(strchr("%-._~", buffer.data[i]) != NULL ||
              (buffer.data[i] >= '0' && buffer.data[i] <= '9') ||
              (buffer.data[i] >= 'A' && buffer.data[i] <= 'Z') ||
              (buffer.data[i] >= 'a' && buffer.data[i] <= 'z'));
    nymbl__buffer_free(&buffer);
    CHECK(nymbl__url_append_escaped(&buffer, "a/b c\xff") == NYMBL_OK);
    CHECK_TEXT(buffer.data, "a%2Fb%20c%FF");
    nymbl__buffer_free(&buffer);
    CHECK(nymbl__url_append_escaped(&buffer, "") == NYMBL_OK);
    nymbl__buffer_free(&buffer);
}

static void escape_keeps_the_limit(void)
{
    nymbl__buffer buffer;

    nymbl__buffer_init(&buffer, 5);
    CHECK(nymbl__url_append_escaped(&buffer, "a//") == NYMBL_TOO_LARGE);
    CHECK(buffer.size <= 5);
    nymbl__buffer_free(&buffer);
}

/* In libcurl's message for a failed connection. */
static void failed_host_is_found_in_a_message(void)
{
    static const struct {
        const char *url, *text;
        bool same;
    } cases[] = {
        {"https://api.example.org/v1", "api.example.org port 443 after", true},
        {"https://API.example.org:8/v1", "api.example.org port 8: x", true},
        {"https://[::1]:8443/v1", "::1 port 8443 after 0 ms", true},
        {"https://[::1]/", "::1 port 443", true},
        {"https://api.example.org/v1", "proxy port 443 after 1 ms", false},
        {"https://api.example.org/v1", "api.example.org port 4433", false},
        {"https://api.example.org/v1", "api.example.org.x port 443", false},
        {"https://api.example.org/v1", "api.example.org", false},
        {"https://[::1]:8443/v1", "[::1] port 8443", false},
        {"no URL", "no URL port 443", false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (!CHECK(nymbl__url_has_host_port(cases[i].url, cases[i].text) ==
                   cases[i].same))
            printf("%s, %s\n", cases[i].url, cases[i].text);
    }
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(https_urls_are_accepted),
        TEST(other_urls_are_refused),
        TEST(overlong_url_is_refused),
        TEST(http_is_allowed_for_loopback_on_request),
        TEST(http_elsewhere_is_refused),
        TEST(odd_numbers_are_accepted_only_as_loopback),
        TEST(same_origin_needs_scheme_host_and_port),
        TEST(references_are_resolved),
        TEST(host_that_changes_when_parsed_again_is_refused),
        TEST(overlong_reference_is_refused),
        TEST(host_longer_than_any_name_is_refused),
        TEST(escape_leaves_only_unreserved_characters),
        TEST(escape_keeps_the_limit),
        TEST(failed_host_is_found_in_a_message),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
