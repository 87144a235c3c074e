/* SPDX-License-Identifier: MIT */
/* What a part of a document may be continued under: an entity-tag or a date. */
#ifndef NYMBL_BASE_VALIDATOR_H
#define NYMBL_BASE_VALIDATOR_H

#include <stdbool.h>

#define NYMBL__VALIDATOR_MAX 256 /* longer ones are ignored */

/* Whether text is exactly what RFC 9110 allows in If-Range: a strong entity-tag
 * (section 8.8.3) or an HTTP-date (5.6.7). A validator from a server or a file
 * must pass this check before it is sent. */
bool nymbl__is_validator(const char *text);
bool nymbl__is_strong_tag(const char *text);
bool nymbl__is_date(const char *text);

#endif
