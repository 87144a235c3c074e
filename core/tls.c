/* SPDX-License-Identifier: MIT */
/* What only the TLS library knows of a connection. */
#include "internal.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

/* SSL_RECEIVED_SHUTDOWN (OpenSSL, SSL_get_shutdown(3)): close_notify has come.
 */
#define RECEIVED_SHUTDOWN 2

/* libcurl reports a connection that was cut and one that was closed alike, and
 * reuses one whose last reply was longer than it said. So OpenSSL is asked: the
 * library that libcurl has loaded, and no other, which is why none is linked.
 */
static int (*shutdown_state)(const void *connection);
static int (*bytes_pending)(const void *connection);

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void library_find(void)
{
    const curl_version_info_data *version = curl_version_info(CURLVERSION_NOW);
    const char *name = "libssl.so.3";
    void *library, *symbol;

    if (version->ssl_version == NULL ||
        strncmp(version->ssl_version, "OpenSSL/", 8) != 0)
        return;
    if (version->ssl_version[8] == '1')
        name = "libssl.so.1.1";
    library = dlopen(name, RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
    if (library == NULL)
        return;
    /* memcpy: ISO C has no cast from an object's address to a function's */
    symbol = dlsym(library, "SSL_get_shutdown");
    memcpy(&shutdown_state, &symbol, sizeof(symbol));
    symbol = dlsym(library, "SSL_pending");
    memcpy(&bytes_pending, &symbol, sizeof(symbol));
}

/* The SSL of a transfer's connection, or NULL. */
static const void *connection_of(CURL *easy)
{
    const struct curl_tlssessioninfo *session = NULL;

    pthread_once(&once, library_find);
    if (curl_easy_getinfo(easy, CURLINFO_TLS_SSL_PTR, &session) != CURLE_OK ||
        session == NULL || session->backend != CURLSSLBACKEND_OPENSSL)
        return NULL;
    return session->internals;
}

bool nymbl__tls_has_ended(CURL *easy)
{
    const void *connection = connection_of(easy);

    return connection != NULL && shutdown_state != NULL &&
           (shutdown_state(connection) & RECEIVED_SHUTDOWN) != 0;
}

bool nymbl__tls_has_pending(CURL *easy)
{
    const void *connection = connection_of(easy);

    return connection != NULL && bytes_pending != NULL &&
           bytes_pending(connection) > 0;
}
