/* SPDX-License-Identifier: MIT */
/* The peer over TLS: OpenSSL with a certificate that the test creates. */
#ifndef NYMBL_TLS_PEER_H
#define NYMBL_TLS_PEER_H

#include "peer.h"

#include <openssl/ssl.h>

extern SSL_CTX *context;
extern char ca_file[64]; /* with the peer's certificate */

/* Open a world with a client that trusts the peer, whose certificate is for
 * 127.0.0.1. */
void tls_open(void);
/* The certificate is for `name`, and valid between two times, in seconds from
 * now. */
void tls_open_named(const char *name, long from, long to);
void tls_close(void);

/* The parts of these: let the peer use TLS, with a new certificate; and replace
 * the world's client by one that trusts the certificates of a file. */
void tls_start(const char *name, long from, long to);
void tls_client_use(const char *trusted, double patience);
void tls_stop(void);

/* Accept a connection, and begin TLS on it. */
void tls_accept(peer *peer);
void tls_begin(peer *peer);
/* Close it, with close_notify or without. */
void tls_end(peer *peer, bool notify);

#endif
