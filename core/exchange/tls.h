/* SPDX-License-Identifier: MIT */
/* State of a connection that only the TLS library knows. */
#ifndef NYMBL_EXCHANGE_TLS_H
#define NYMBL_EXCHANGE_TLS_H

#include <curl/curl.h>
#include <stdbool.h>

/* Whether the peer has ended the TLS connection with close_notify (RFC 8446,
 * section 6.1). To be called within a libcurl callback. */
bool nymbl__tls_has_ended(CURL *easy);
/* Whether received bytes wait in the TLS library. To be called within a libcurl
 * callback. */
bool nymbl__tls_has_pending(CURL *easy);

#endif
