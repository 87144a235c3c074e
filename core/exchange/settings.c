/* SPDX-License-Identifier: MIT */
/* How the service is reached and whom to trust, for every request of a client.
 */
#include "exchange/settings.h"

#include "exchange/url.h"

#include <stdlib.h>

CURLcode nymbl__settings_apply(const nymbl__settings *settings, CURL *easy,
                               const char *url, const char *proxy)
{
    bool https = nymbl__url_is_https(url);
    const char *ca_file = settings->ca_file;
    CURLcode code = CURLE_OK;

#define SET(option, value)                                                     \
    do {                                                                       \
        if (code == CURLE_OK)                                                  \
            code = curl_easy_setopt(easy, option, value);                      \
    } while (0)
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_QUICK_EXIT, 1L);
    SET(CURLOPT_PROTOCOLS_STR, https ? "https" : "http");
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_PATH_AS_IS, 1L);
    SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
    SET(CURLOPT_USERAGENT, settings->user_agent);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    /* A folder of certificates, libcurl's default one too, switches off the
     * cache of the parsed store (docs of CURLOPT_CA_CACHE_TIMEOUT): so none
     * unless it was asked for. */
    if (ca_file != NULL || settings->ca_path != NULL)
        SET(CURLOPT_CAINFO, ca_file);
    if (settings->ca_path != NULL)
        SET(CURLOPT_CAPATH, settings->ca_path);
    else /* not every TLS library knows folders */
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    SET(CURLOPT_PROXY_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (ca_file != NULL)
        SET(CURLOPT_PROXY_CAINFO, ca_file);
    if (settings->ca_path != NULL)
        SET(CURLOPT_PROXY_CAPATH, settings->ca_path);
    else
        curl_easy_setopt(easy, CURLOPT_PROXY_CAPATH, NULL);
    /* The headers of a request are not a proxy's business. */
    SET(CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE);
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    if (!https)
        SET(CURLOPT_PROXY, ""); /* loopback in the clear goes nowhere else */
    else if (proxy != NULL)
        SET(CURLOPT_PROXY, proxy);
    /* Ours counts; libcurl's own is for it to try a host's next address. */
    SET(CURLOPT_CONNECTTIMEOUT_MS,
        settings->connect_timeout < 86400
            ? (long)(settings->connect_timeout * 1000)
            : 86400000L);
#undef SET
    return code;
}

void nymbl__settings_free(nymbl__settings *settings)
{
    free(settings->ca_file);
    free(settings->ca_path);
    free(settings->user_agent);
    *settings = (nymbl__settings){0};
}
