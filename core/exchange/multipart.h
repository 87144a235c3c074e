/* SPDX-License-Identifier: MIT */
/* The body of an upload as multipart/form-data (RFC 7578). */
#ifndef NYMBL_EXCHANGE_MULTIPART_H
#define NYMBL_EXCHANGE_MULTIPART_H

#include "exchange/exchange.h"

/* Set the multipart body on the exchange's easy handle. Returns NYMBL_OK or
 * NYMBL_NO_MEMORY. */
nymbl_kind nymbl__multipart_apply(nymbl__exchange *exchange);

#endif
