/* SPDX-License-Identifier: MIT */
/* URLs: validation, comparison, resolution and escaping. */
#include "exchange/url.h"

#include "base/ascii.h"
#include "base/fnv1a.h"
#include "base/secret.h"
#include "base/text.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#define HOST_MAX 255

bool nymbl__url_is_https(const char *url)
{
    return nymbl__ascii_begins(url, "https://", 8);
}

/* A component of a URL, or NULL; to be released with curl_free(). */
static char *url_component(CURLU *parsed, CURLUPart part, unsigned flags)
{
    char *text = NULL;

    if (curl_url_get(parsed, part, &text, flags) != CURLUE_OK)
        return NULL;
    return text;
}

CURLU *nymbl__url_parse(const char *url)
{
    CURLU *parsed = curl_url();

    if (parsed == NULL)
        return NULL;
    if (curl_url_set(parsed, CURLUPART_URL, url,
                     CURLU_PATH_AS_IS | CURLU_DISALLOW_USER) != CURLUE_OK) {
        curl_url_cleanup(parsed);
        return NULL;
    }
    return parsed;
}

/* Whether a host is a loopback address (127.0.0.0/8 or ::1, RFC 6890) or
 * localhost, which libcurl resolves to one without a lookup. */
static bool host_is_loopback(const char *host)
{
    unsigned octets[4];
    int used = 0;

    if (nymbl__ascii_equal(host, "localhost") || strcmp(host, "[::1]") == 0)
        return true;
    for (int i = 0; i < 4; i++) {
        const char *at = host + used;
        unsigned value = 0;
        int digits = 0;

        while (at[digits] >= '0' && at[digits] <= '9' && digits < 4)
            value = value * 10 + (unsigned)(at[digits++] - '0');
        if (digits == 0 || value > 255 || at[digits] != (i < 3 ? '.' : '\0'))
            return false;
        octets[i] = value;
        used += digits + 1;
    }
    return octets[0] == 127;
}

/* Whether a host name is ASCII. libcurl decodes other names by the program's
 * locale, so equal bytes could mean different hosts. */
static bool host_is_ascii(const char *host)
{
    while (*host > 0 && *host < 0x7f)
        host++;
    return *host == '\0';
}

/* Whether a segment of a path is "." or "..". */
static bool path_has_dots(const char *path)
{
    for (const char *at = strchr(path, '/'); at != NULL; at = strchr(at, '/')) {
        size_t length = strcspn(++at, "/");

        if (length > 0 && length <= 2 && strspn(at, ".") >= length)
            return true;
    }
    return false;
}

const char *nymbl_url_problem(const char *url, bool allow_http)
{
    const char *problem = NULL;
    CURLU *parsed;
    char *host, *path;

    if (strlen(url) > 2048)
        return "is too long";
    for (const char *at = url; *at != '\0'; at++) {
        if ((unsigned char)*at <= ' ' || *at == 0x7f || *at == '\\')
            return "must not contain white space, control characters or \\";
    }
    if (!nymbl__url_is_https(url) && !nymbl__ascii_begins(url, "http://", 7))
        return "must begin with https://";
    if (strpbrk(url, "?#") != NULL)
        return "must have no query or fragment";
    if (strchr(url, '@') != NULL)
        return "must contain no user name or password";
    /* libcurl ignores a third slash */
    parsed = strstr(url, ":///") != NULL ? NULL : nymbl__url_parse(url);
    if (parsed == NULL)
        return "is not a valid URL";
    host = url_component(parsed, CURLUPART_HOST, 0);
    path = url_component(parsed, CURLUPART_PATH, 0);
    if (host == NULL || path == NULL)
        problem = "is not a valid URL";
    else if (!host_is_ascii(host))
        problem = "must name its host in ASCII (xn--...)";
    else if (path_has_dots(path))
        problem = "must have no . or .. in its path";
    else if (!nymbl__url_is_https(url) &&
             !(allow_http && host_is_loopback(host)))
        problem = allow_http ? "may be http:// on a loopback address only"
                             : "must begin with https://";
    curl_free(host);
    curl_free(path);
    curl_url_cleanup(parsed);
    return problem;
}

static bool component_is_equal(CURLU *a, CURLU *b, CURLUPart part,
                               unsigned flags)
{
    char *one = url_component(a, part, flags);
    char *other = url_component(b, part, flags);
    bool same = one != NULL && other != NULL && nymbl__ascii_equal(one, other);

    curl_free(one);
    curl_free(other);
    return same;
}

bool nymbl__url_is_same_origin(const char *a, const char *b)
{
    CURLU *one = nymbl__url_parse(a);
    CURLU *other = nymbl__url_parse(b);
    bool same =
        one != NULL && other != NULL &&
        component_is_equal(one, other, CURLUPART_SCHEME, 0) &&
        component_is_equal(one, other, CURLUPART_HOST, 0) &&
        component_is_equal(one, other, CURLUPART_PORT, CURLU_DEFAULT_PORT);

    curl_url_cleanup(one);
    curl_url_cleanup(other);
    return same;
}

uint64_t nymbl__url_origin_hash(const char *url)
{
    const char *host = strstr(url, "://");
    size_t length = host == NULL ? 0 : (size_t)(host - url) + 3;
    uint64_t hash = NYMBL__FNV1A_INIT;

    length += strcspn(url + length, "/?#");
    for (size_t i = 0; i < length; i++) {
        char byte = nymbl__ascii_lower(url[i]);

        hash = nymbl__fnv1a(hash, &byte, 1);
    }
    return hash;
}

bool nymbl__url_has_host_port(const char *url, const char *text)
{
    static const char word[] = " port ";
    CURLU *parsed = nymbl__url_parse(url);
    char *host = url_component(parsed, CURLUPART_HOST, 0);
    char *port = url_component(parsed, CURLUPART_PORT, CURLU_DEFAULT_PORT);
    const char *name = host, *at;
    size_t length = host == NULL ? 0 : strlen(host);
    bool same = false;

    if (length > 2 && name[0] == '[') { /* an IPv6 address */
        name++;
        length -= 2;
    }
    if (length > 0 && port != NULL && nymbl__ascii_begins(text, name, length) &&
        strncmp(text + length, word, sizeof(word) - 1) == 0) {
        at = text + length + sizeof(word) - 1;
        length = strlen(port);
        same = strncmp(at, port, length) == 0 &&
               strspn(at, "0123456789") == length;
    }
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(parsed);
    return same;
}

/* Whether every version of libcurl interprets a reference without fragment as
 * RFC 3986 does. Older versions reject control characters, newer ones encode
 * them. A colon in the first segment must follow a scheme (sections 4.2 and
 * 3.1). */
static bool reference_is_unambiguous(const char *reference)
{
    size_t scheme = strspn(reference, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                      "abcdefghijklmnopqrstuvwxyz"
                                      "0123456789+-.");
    size_t segment = strcspn(reference, ":/?");

    for (const char *at = reference; *at != '\0'; at++) {
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            return false;
    }
    return reference[segment] != ':' ||
           (scheme == segment && scheme > 0 &&
            strchr("0123456789+-.", *reference) == NULL);
}

/* Whether a host name is longer than the maximum (RFC 1035, section 2.3.4).
 * Before 8.4.0 such a name in a redirect overflows a buffer of libcurl if a
 * SOCKS5 proxy resolves it (CVE-2023-38545). */
static bool host_is_too_long(CURLU *parsed)
{
    char *host = url_component(parsed, CURLUPART_HOST, 0);
    bool too_long = host != NULL && strlen(host) > HOST_MAX;

    if (host != NULL)
        nymbl__secret_wipe(host, strlen(host));
    curl_free(host);
    return too_long;
}

/* Whether a URL that libcurl has made has the same host once it is parsed
 * again. libcurl decodes escapes in a host after it has looked for numbers. So
 * 127%2E1 is a name at first, and an address in the URL that it makes of that.
 * `host` may be NULL: a file has none. */
static bool host_is_stable(const char *host, const char *url)
{
    CURLU *parsed = host != NULL ? nymbl__url_parse(url) : NULL;
    char *again = url_component(parsed, CURLUPART_HOST, 0);
    bool same =
        host == NULL || (again != NULL && nymbl__ascii_equal(host, again));

    curl_free(again);
    curl_url_cleanup(parsed);
    return same;
}

/* Whether a URL is safe in a request line (RFC 9112, section 3.2): bytes from a
 * server must never end that line. libcurl checks this too. */
static bool url_is_safe(const char *url)
{
    for (; *url != '\0'; url++) {
        if ((unsigned char)*url <= ' ' || *url == 0x7f)
            return false;
    }
    return true;
}

nymbl_kind nymbl__url_resolve(char **out, const char *base,
                              const char *reference)
{
    nymbl_kind kind = NYMBL_REDIRECT;
    CURLU *parsed = nymbl__url_parse(base);
    char *url = NULL, *host = NULL, *user = NULL, *password = NULL;
    char *text = NULL; /* the reference without its fragment */

    *out = NULL;
    if (nymbl__text_copy(&text, reference) < 0) {
        kind = NYMBL_NO_MEMORY;
        goto done;
    }
    text[strcspn(text, "#")] = '\0';
    if (parsed == NULL || strlen(text) > NYMBL__URL_MAX ||
        !reference_is_unambiguous(text))
        goto done;
    if (*text != '\0' &&
        curl_url_set(parsed, CURLUPART_URL, text, CURLU_URLENCODE) != CURLUE_OK)
        goto done;
    if (host_is_too_long(parsed))
        goto done;
    /* user information would be sent as credentials */
    user = url_component(parsed, CURLUPART_USER, 0);
    password = url_component(parsed, CURLUPART_PASSWORD, 0);
    if (user != NULL || password != NULL)
        goto done;
    host = url_component(parsed, CURLUPART_HOST, 0);
    if (host != NULL && !host_is_ascii(host))
        goto done;
    curl_url_set(parsed, CURLUPART_FRAGMENT, NULL, 0);
    url = url_component(parsed, CURLUPART_URL, 0);
    if (url == NULL || !url_is_safe(url) || !host_is_stable(host, url))
        goto done;
    kind = nymbl__text_copy(out, url);
done:
    if (text != NULL) /* it may be a signed URL */
        nymbl__secret_wipe(text, strlen(reference));
    free(text);
    if (url != NULL)
        nymbl__secret_wipe(url, strlen(url));
    if (password != NULL)
        nymbl__secret_wipe(password, strlen(password));
    curl_free(host);
    curl_free(user);
    curl_free(password);
    curl_free(url);
    curl_url_cleanup(parsed);
    return kind;
}

nymbl_kind nymbl__url_append_escaped(nymbl__buffer *buffer, const char *text)
{
    static const char digits[] = "0123456789ABCDEF";
    static const char unreserved[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                     "abcdefghijklmnopqrstuvwxyz"
                                     "0123456789-._~";

    while (*text != '\0') {
        size_t plain = strspn(text, unreserved);
        nymbl_kind kind = nymbl__buffer_append(buffer, text, plain);

        if (kind < 0)
            return kind;
        text += plain;
        if (*text != '\0') {
            unsigned char byte = (unsigned char)*text++;
            char escaped[3] = {'%', digits[byte >> 4], digits[byte & 15]};

            kind = nymbl__buffer_append(buffer, escaped, sizeof(escaped));
            if (kind < 0)
                return kind;
        }
    }
    return NYMBL_OK;
}

nymbl_kind nymbl__url_append_pair(nymbl__buffer *buffer, char *separator,
                                  const char *name, const char *value)
{
    nymbl_kind kind = NYMBL_OK;

    if (*separator != '\0')
        kind = nymbl__buffer_append(buffer, separator, 1);
    *separator = '&';
    if (kind == NYMBL_OK)
        kind = nymbl__buffer_puts(buffer, name);
    if (kind == NYMBL_OK)
        kind = nymbl__buffer_puts(buffer, "=");
    return kind == NYMBL_OK ? nymbl__url_append_escaped(buffer, value) : kind;
}
