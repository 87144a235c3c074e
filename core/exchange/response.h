/* SPDX-License-Identifier: MIT */
/* Validation of a response: its status, its head and its content. */
#ifndef NYMBL_EXCHANGE_RESPONSE_H
#define NYMBL_EXCHANGE_RESPONSE_H

#include "exchange/exchange.h"

bool nymbl__response_is_success(const nymbl__exchange *exchange);
bool nymbl__response_is_redirect(int status);
/* Whether `size` more bytes are more than the body of a document may have. */
bool nymbl__response_is_too_long(const nymbl__exchange *exchange, size_t size);
/* Check the complete final head. A problem fails the exchange; otherwise the
 * head is published to the caller, unless the content must be checked first. */
void nymbl__response_check_head(nymbl__exchange *exchange);
/* Check the first bytes of a document before the caller gets any byte.
 * `complete`: no more bytes follow. */
void nymbl__response_check_first_bytes(nymbl__exchange *exchange,
                                       bool complete);
/* Check a complete document: compare the number of its bytes with every length
 * that is known. Returns NYMBL_OK, or a failure and its reason. */
nymbl_kind nymbl__response_check_document(nymbl__exchange *exchange,
                                          const char **reason);

#endif
