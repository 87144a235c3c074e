/* SPDX-License-Identifier: MIT */
/* URLs: validation, comparison, resolution and escaping. */
#ifndef NYMBL_EXCHANGE_URL_H
#define NYMBL_EXCHANGE_URL_H

#include "base/buffer.h"

#include <curl/curl.h>

#define NYMBL__URL_MAX (64u << 10)

/* Parse a URL without a user name. NULL if it is invalid or memory runs out. To
 * be released with curl_url_cleanup(). */
CURLU *nymbl__url_parse(const char *url);
bool nymbl__url_is_https(const char *url);
/* Whether scheme, host and port agree (RFC 6454, section 5). */
bool nymbl__url_is_same_origin(const char *a, const char *b);
/* A hash of the origin. If two origins have the same hash, a connection that
 * could be closed stays open. */
uint64_t nymbl__url_origin_hash(const char *url);
/* Whether a text begins with "HOST port NUMBER" for a URL's host and port. */
bool nymbl__url_has_host_port(const char *url, const char *text);
/* Resolve a reference (RFC 3986, section 5); the fragment is removed. Returns
 * NYMBL_REDIRECT if the reference is unsafe or ambiguous. */
nymbl_kind nymbl__url_resolve(char **out, const char *base,
                              const char *reference);
/* Append text, with all but RFC 3986's unreserved characters percent-encoded.
 */
nymbl_kind nymbl__url_append_escaped(nymbl__buffer *buffer, const char *text);
/* Append `name=value`, with the value percent-encoded. *separator precedes it
 * unless it is NUL, and becomes '&' for the next pair. */
nymbl_kind nymbl__url_append_pair(nymbl__buffer *buffer, char *separator,
                                  const char *name, const char *value);

#endif
