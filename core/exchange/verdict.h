/* SPDX-License-Identifier: MIT */
/* What a reply, or the lack of one, means for the call. */
#ifndef NYMBL_EXCHANGE_VERDICT_H
#define NYMBL_EXCHANGE_VERDICT_H

#include "exchange/head.h"

#include <curl/curl.h>

/* The final head is complete: see whether its body is wanted. */
void nymbl__verdict_head(nymbl_transfer *transfer);
bool nymbl__verdict_is_success(const nymbl_transfer *transfer);
bool nymbl__verdict_is_redirect(int status);
/* Whether the rest of a part was asked for, and the status may be because of
 * that: the whole document may be had all the same. */
bool nymbl__verdict_refuses_range(const nymbl_transfer *transfer);
/* Bytes of the body that the head promises, or -1. */
int64_t nymbl__verdict_length(const nymbl__reply_head *head);
/* Look at the first bytes before anybody gets them; `all`: there are no more.
 */
void nymbl__verdict_first_bytes(nymbl_transfer *transfer, bool all);
/* How an exchange that libcurl is through with has ended. */
nymbl_kind nymbl__verdict(nymbl_transfer *transfer, CURLcode code,
                          const char **reason);
/* Whether the upload or delete may have been carried out although it failed. */
bool nymbl__verdict_is_unknown(const nymbl_transfer *transfer, nymbl_kind kind);

#endif
