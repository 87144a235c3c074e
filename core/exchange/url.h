/* SPDX-License-Identifier: MIT */
/* URLs: which belong together, how ids go into them. */
#ifndef NYMBL_EXCHANGE_URL_H
#define NYMBL_EXCHANGE_URL_H

#include "base/buffer.h"

#define NYMBL__URL_MAX (64u << 10)

bool nymbl__url_is_https(const char *url);
/* Whether scheme, host and port agree (RFC 6454, section 5). */
bool nymbl__url_same_origin(const char *a, const char *b);
/* Whether a text begins with a URL's "host port number". */
bool nymbl__url_is_at(const char *url, const char *text);
/* Resolve a reference (RFC 3986, section 5) without fragment. */
nymbl_kind nymbl__url_resolve(char **out, const char *base,
                              const char *reference);
/* Append text, percent-encoded but for RFC 3986's unreserved characters. */
nymbl_kind nymbl__url_escape(nymbl__buffer *buffer, const char *text);

#endif
