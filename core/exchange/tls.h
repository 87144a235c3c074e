/* SPDX-License-Identifier: MIT */
/* The state of a connection that only the TLS library knows. */
#ifndef NYMBL_EXCHANGE_TLS_H
#define NYMBL_EXCHANGE_TLS_H

#include <curl/curl.h>
#include <stdbool.h>

/* Whether the peer has ended the TLS connection with close_notify (RFC 8446,
 * section 6.1). Call this only within a callback of libcurl. */
bool nymbl__tls_has_ended(CURL *easy);
/* Whether the TLS library has received bytes that libcurl has not read. Call
 * this only within a callback of libcurl. */
bool nymbl__tls_has_pending(CURL *easy);
/* Get the seconds until the peer's certificate expires. Returns false if the
 * TLS library is not OpenSSL, or there is no certificate. Call this only within
 * a callback of libcurl. */
bool nymbl__tls_certificate_lifetime(CURL *easy, double *seconds);

#endif
