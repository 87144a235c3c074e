/* SPDX-License-Identifier: MIT */
/* The functions of the TLS library that libcurl calls. */
#ifndef NYMBL_EXCHANGE_TLS_LIBRARY_H
#define NYMBL_EXCHANGE_TLS_LIBRARY_H

/* Functions of OpenSSL, looked up at run time, because linking a library could
 * bring in another one than libcurl's. Each is NULL if it was not found. */
typedef struct nymbl__tls_functions {
    int (*get_shutdown)(const void *connection);
    int (*pending)(const void *connection);
    int (*has_pending)(const void *connection);
    void *(*peer_certificate)(const void *connection); /* a new reference */
    const void *(*not_after)(const void *certificate);
    /* from == NULL: now */
    int (*time_diff)(int *days, int *seconds, const void *from, const void *to);
    void (*certificate_free)(void *certificate);
} nymbl__tls_functions;

/* Find the library at the first call. */
const nymbl__tls_functions *nymbl__tls_library(void);

#endif
