/* SPDX-License-Identifier: MIT */
/* What only the TLS library knows of a connection. */
#ifndef NYMBL_EXCHANGE_TLS_H
#define NYMBL_EXCHANGE_TLS_H

#include <curl/curl.h>
#include <stdbool.h>

/* Whether the peer of a transfer's TLS connection has said that nothing more
 * comes (close_notify; RFC 8446, section 6.1). Within a callback only. */
bool nymbl__tls_has_ended(CURL *easy);
/* Whether bytes have come that were not read. Within a callback only. */
bool nymbl__tls_has_pending(CURL *easy);

#endif
