/* SPDX-License-Identifier: MIT */
/* The SHA-256 of a document while it is downloaded. The saved bytes of a
 * partial file are hashed first, in bounded steps, while the transfer pauses.
 */
#ifndef NYMBL_EXCHANGE_CHECKSUM_H
#define NYMBL_EXCHANGE_CHECKSUM_H

#include "exchange/exchange.h"

/* Begin at the first byte of the document. Does nothing if the caller does not
 * want the digest; the same is true of the other functions. */
void nymbl__checksum_begin(nymbl__exchange *exchange);
/* Whether saved bytes must be hashed before others are accepted. */
bool nymbl__checksum_is_behind(const nymbl__exchange *exchange);
/* Hash some of the saved bytes. Returns NYMBL_AGAIN if more remain, NYMBL_OK,
 * or a failure and its reason. */
nymbl_kind nymbl__checksum_catch_up(nymbl__exchange *exchange,
                                    const char **reason);
/* Add bytes that have arrived. */
nymbl_kind nymbl__checksum_add(nymbl__exchange *exchange, const void *data,
                               size_t size);
/* Set the result, once the document is complete. */
nymbl_kind nymbl__checksum_end(nymbl__exchange *exchange, const char **reason);

#endif
