/* SPDX-License-Identifier: MIT */
/* Setting options of an easy handle one after the other. */
#ifndef NYMBL_EXCHANGE_SETOPT_H
#define NYMBL_EXCHANGE_SETOPT_H

#include <curl/curl.h>

/* curl_easy_setopt(), unless an earlier option failed: `code`, a variable that
 * starts as CURLE_OK, keeps the first failure. A macro, because libcurl checks
 * the type of a literal option at compile time. */
#define NYMBL__SETOPT(code, easy, option, value)                               \
    do {                                                                       \
        if ((code) == CURLE_OK)                                                \
            (code) = curl_easy_setopt(easy, option, value);                    \
    } while (0)

#endif
