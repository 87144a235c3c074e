/* SPDX-License-Identifier: MIT */
/* Classification of libcurl's error codes. */
#include "exchange/curl_error.h"

#include "base/error.h"
#include "exchange/url.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* X509_V_ERR_… as OpenSSL numbers them (x509_vfy.h). libcurl passes them
 * through CURLINFO_SSL_VERIFYRESULT. */
static const char *certificate_reason(long result)
{
    switch (result) {
    case 0: /* the chain is valid: libcurl's check of the host name failed */
    case 1: /* that check failed in libcurl 7.88, whose initial value is 1 */
    case 62:
        return nymbl__reason_host_name;
    case 9:
        return nymbl__reason_certificate_not_yet_valid;
    case 10:
        return nymbl__reason_certificate_expired;
    case 18:
        return nymbl__reason_certificate_self_signed;
    case 23:
        return nymbl__reason_certificate_revoked;
    default:
        return nymbl__reason_certificate_untrusted;
    }
}

static nymbl_kind tls_error_classify(CURL *easy, const char *error_text,
                                     CURLcode code, const char **reason)
{
    long result = 0;

    if (code == CURLE_SSL_CACERT_BADFILE) {
        *reason = nymbl__reason_ca_file;
    } else if (code == CURLE_PEER_FAILED_VERIFICATION) {
        curl_easy_getinfo(easy, CURLINFO_SSL_VERIFYRESULT, &result);
        *reason = certificate_reason(result);
    } else if (strstr(error_text, "protocol version") != NULL ||
               strstr(error_text, "unsupported protocol") != NULL) {
        *reason = nymbl__reason_protocol_version;
    } else {
        *reason = nymbl__reason_handshake;
    }
    return NYMBL_TLS;
}

/* Classify the error of a connection that has ended too early. If the head has
 * arrived, a reset is NYMBL_NETWORK, and an orderly end is NYMBL_TRUNCATED. */
static nymbl_kind connection_error_classify(nymbl__exchange *exchange,
                                            CURLcode code, const char **reason)
{
    long number = 0; /* errno */

    curl_easy_getinfo(exchange->easy, CURLINFO_OS_ERRNO, &number);
    if (!nymbl__exchange_was_sent(exchange) && code != CURLE_GOT_NOTHING) {
        *reason = nymbl__reason_connect;
        return NYMBL_NETWORK;
    }
    if (exchange->head.done && number != ECONNRESET && number != EPIPE &&
        code != CURLE_SEND_ERROR) {
        *reason = NULL;
        return NYMBL_TRUNCATED;
    }
    *reason = nymbl__reason_reset;
    return NYMBL_NETWORK;
}

/* The number of descriptors that libcurl needed when it failed with a code. It
 * has closed them by now. So if the process cannot open that many, the lack of
 * descriptors was the cause. */
static int descriptors_needed(CURLcode code)
{
    switch (code) {
    case CURLE_COULDNT_CONNECT: /* a socket */
        return 1;
    case CURLE_SSL_CACERT_BADFILE: /* a socket and a file */
        return 2;
    case CURLE_COULDNT_RESOLVE_PROXY: /* a socket pair and /etc/hosts */
    case CURLE_COULDNT_RESOLVE_HOST:
        return 3;
    default:
        return 0;
    }
}

/* Whether fewer than `count` (at most 3) descriptors can be opened. libcurl
 * does not report why it could not open a socket or file. */
static bool lacks_descriptors(int count)
{
    int opened[3], number = 0;
    bool lacks = false;

    while (number < count && !lacks) {
        opened[number] = open("/", O_RDONLY | O_CLOEXEC);
        lacks = opened[number] < 0 && (errno == EMFILE || errno == ENFILE);
        if (opened[number] < 0)
            break;
        number++;
    }
    while (number > 0)
        close(opened[--number]);
    return lacks;
}

/* Constants that the headers of older libcurl versions lack. */
#define TOO_LARGE 100                               /* CURLE_TOO_LARGE, 8.6 */
#define USED_PROXY ((CURLINFO)(CURLINFO_LONG + 66)) /* 8.7 */

/* Whether the failed connection was to a proxy. Before 8.7 only libcurl's
 * message, which contains the host and port, shows that. */
static bool proxy_was_tried(const nymbl__exchange *exchange)
{
    static const char prefix[] = "Failed to connect to ";
    const char *host = strstr(exchange->error_text, prefix);
    long used = 0;

    if (curl_easy_getinfo(exchange->easy, USED_PROXY, &used) == CURLE_OK)
        return used != 0;
    if (host == NULL)
        return false;
    return !nymbl__url_has_host_port(exchange->request.url,
                                     host + sizeof(prefix) - 1);
}

/* The reason if a proxy could not be reached or refused the request, else NULL.
 */
static const char *proxy_reason(nymbl__exchange *exchange, CURLcode code)
{
    long status = 0;

    curl_easy_getinfo(exchange->easy, CURLINFO_HTTP_CONNECTCODE, &status);
    if (status >= 300 && status <= 999) {
        exchange->proxy_status = (int)status;
        return status == 407 ? nymbl__reason_proxy_auth : nymbl__reason_proxy;
    }
    if (code == CURLE_PROXY || code == CURLE_COULDNT_RESOLVE_PROXY)
        return nymbl__reason_proxy;
    /* The name is the proxy's: libcurl resolves no other, except for a SOCKS
     * proxy, and then it fails with CURLE_PROXY. */
    if ((code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST) &&
        proxy_was_tried(exchange))
        return nymbl__reason_proxy;
    return NULL;
}

/* Classify an error that is possible before anything is sent. */
static nymbl_kind connect_error_classify(CURL *easy, const char *error_text,
                                         CURLcode code, const char **reason)
{
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
        *reason = nymbl__reason_resolve;
        return NYMBL_NETWORK;
    case CURLE_COULDNT_CONNECT:
        *reason = nymbl__reason_connect;
        return NYMBL_NETWORK;
    case CURLE_OPERATION_TIMEDOUT:
        *reason = nymbl__reason_connect;
        return NYMBL_TIMEOUT;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ENGINE_NOTFOUND:
    case CURLE_SSL_ENGINE_SETFAILED:
    case CURLE_SSL_ENGINE_INITFAILED:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_SHUTDOWN_FAILED:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
    case CURLE_PEER_FAILED_VERIFICATION:
        return tls_error_classify(easy, error_text, code, reason);
    case CURLE_OUT_OF_MEMORY:
        return NYMBL_NO_MEMORY;
    case CURLE_URL_MALFORMAT:
        if (strcmp(error_text, "No URL set") == 0)
            return NYMBL_NO_MEMORY; /* to copy it, in 8.14 */
        break;
    default:
        break;
    }
    *reason = nymbl__reason_bad_response;
    return NYMBL_PROTOCOL;
}

nymbl_kind nymbl__curl_error_of_connection(CURL *easy, const char *error_text,
                                           CURLcode code, const char **reason)
{
    if (lacks_descriptors(descriptors_needed(code))) {
        *reason = nymbl__reason_too_many_files;
        return NYMBL_IO;
    }
    if (code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR)
        code = CURLE_COULDNT_CONNECT;
    return connect_error_classify(easy, error_text, code, reason);
}

/* Whether any byte of a response may have arrived. libcurl's time of the first
 * byte is that of an upload, if there is one. */
static bool response_may_have_begun(CURL *easy)
{
    curl_off_t when = 0; /* microseconds */

    curl_easy_getinfo(easy, CURLINFO_STARTTRANSFER_TIME_T, &when);
    return when > 0;
}

nymbl_kind nymbl__curl_error_classify(nymbl__exchange *exchange, CURLcode code,
                                      const char **reason)
{
    if (!nymbl__exchange_was_sent(exchange) &&
        lacks_descriptors(descriptors_needed(code))) {
        *reason = nymbl__reason_too_many_files;
        return NYMBL_IO;
    }
    if (!nymbl__exchange_was_sent(exchange)) {
        *reason = proxy_reason(exchange, code);
        if (*reason != NULL)
            return NYMBL_NETWORK;
    }
    switch ((int)code) {
    case CURLE_PARTIAL_FILE:
        *reason = NULL;
        return NYMBL_TRUNCATED;
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_FAIL_REWIND:
    case CURLE_AGAIN:
        return connection_error_classify(exchange, code, reason);
    case CURLE_BAD_CONTENT_ENCODING:
        *reason = nymbl__reason_transfer_encoding;
        return exchange->request.expected == NYMBL_EXPECT_CONTENT
                   ? NYMBL_CORRUPT
                   : NYMBL_PROTOCOL;
    case CURLE_OUT_OF_MEMORY:
    case TOO_LARGE:
        /* A header line over libcurl's limit: below 8.6 it has the code of a
         * lack of memory, but bytes have arrived. */
        if (nymbl__exchange_was_sent(exchange) && !exchange->head.done &&
            (code == TOO_LARGE || response_may_have_begun(exchange->easy))) {
            *reason = nymbl__reason_head_too_long;
            return NYMBL_PROTOCOL;
        }
        return NYMBL_NO_MEMORY;
    default:
        return connect_error_classify(exchange->easy, exchange->error_text,
                                      code, reason);
    }
}
