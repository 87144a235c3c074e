/* SPDX-License-Identifier: MIT */
/* The state of a connection that only the TLS library knows. libcurl does not
 * distinguish a connection that was cut off from one that was closed, reuses a
 * connection on which more bytes arrived than the response had, and formats
 * certificates as text. So this file asks OpenSSL. */
#include "exchange/tls.h"

#include "exchange/tls_library.h"

#include <stddef.h>

/* SSL_RECEIVED_SHUTDOWN of SSL_get_shutdown(3): close_notify was received. */
#define RECEIVED_SHUTDOWN 2

#define SECONDS_PER_DAY 86400.0

/* The SSL object of an easy handle's connection, or NULL. */
static const void *connection_of(CURL *easy)
{
    const struct curl_tlssessioninfo *session = NULL;

    if (curl_easy_getinfo(easy, CURLINFO_TLS_SSL_PTR, &session) != CURLE_OK ||
        session == NULL || session->backend != CURLSSLBACKEND_OPENSSL)
        return NULL;
    return session->internals;
}

bool nymbl__tls_has_ended(CURL *easy)
{
    const nymbl__tls_functions *library = nymbl__tls_library();
    const void *connection = connection_of(easy);

    return connection != NULL && library->get_shutdown != NULL &&
           (library->get_shutdown(connection) & RECEIVED_SHUTDOWN) != 0;
}

bool nymbl__tls_has_pending(CURL *easy)
{
    const nymbl__tls_functions *library = nymbl__tls_library();
    const void *connection = connection_of(easy);

    if (connection == NULL)
        return false;
    /* SSL_has_pending() also counts records that were read but not processed;
     * OpenSSL before 1.1.0 lacks it */
    return (library->pending != NULL && library->pending(connection) > 0) ||
           (library->has_pending != NULL &&
            library->has_pending(connection) > 0);
}

bool nymbl__tls_certificate_lifetime(CURL *easy, double *seconds)
{
    const nymbl__tls_functions *library = nymbl__tls_library();
    const void *connection = connection_of(easy);
    int days_left, seconds_left;
    void *certificate;
    bool found;

    if (connection == NULL || library->peer_certificate == NULL ||
        library->not_after == NULL || library->time_diff == NULL ||
        library->certificate_free == NULL)
        return false;
    certificate = library->peer_certificate(connection);
    if (certificate == NULL)
        return false;
    found = library->time_diff(&days_left, &seconds_left, NULL,
                               library->not_after(certificate)) == 1;
    library->certificate_free(certificate);
    if (found)
        *seconds = days_left * SECONDS_PER_DAY + seconds_left;
    return found;
}
