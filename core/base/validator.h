/* SPDX-License-Identifier: MIT */
/* Validators (RFC 9110, section 8.8): entity-tags and dates. */
#ifndef NYMBL_BASE_VALIDATOR_H
#define NYMBL_BASE_VALIDATOR_H

#include <stdbool.h>

#define NYMBL__VALIDATOR_MAX 256 /* longer ones are ignored */
#define NYMBL__DATE_MAX 40       /* more than the longest HTTP-date */

/* Whether text is exactly what RFC 9110 allows in If-Range: a strong entity-tag
 * (section 8.8.3) or an HTTP-date (section 5.6.7). A validator from a server or
 * a file must pass this check before it is sent. */
bool nymbl__validator_is_valid(const char *text);
bool nymbl__validator_is_strong_tag(const char *text);
bool nymbl__validator_is_date(const char *text);

#endif
