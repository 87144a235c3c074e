/* SPDX-License-Identifier: MIT */
/* Settings that apply to every request of a client. */
#include "exchange/settings.h"

#include "exchange/setopt.h"
#include "exchange/url.h"

#include <stdlib.h>

CURLcode nymbl__settings_apply(const nymbl__settings *settings, CURL *easy,
                               const char *url, const char *proxy)
{
    bool https = nymbl__url_is_https(url);
    const char *ca_file = settings->ca_file;
    CURLcode code = CURLE_OK;

    NYMBL__SETOPT(code, easy, CURLOPT_NOSIGNAL, 1L);
    NYMBL__SETOPT(code, easy, CURLOPT_QUICK_EXIT, 1L);
    NYMBL__SETOPT(code, easy, CURLOPT_PROTOCOLS_STR, https ? "https" : "http");
    NYMBL__SETOPT(code, easy, CURLOPT_HTTP_VERSION,
                  (long)CURL_HTTP_VERSION_1_1);
    NYMBL__SETOPT(code, easy, CURLOPT_FOLLOWLOCATION, 0L);
    NYMBL__SETOPT(code, easy, CURLOPT_PATH_AS_IS, 1L);
    NYMBL__SETOPT(code, easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    NYMBL__SETOPT(code, easy, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
    NYMBL__SETOPT(code, easy, CURLOPT_USERAGENT, settings->user_agent);
    NYMBL__SETOPT(code, easy, CURLOPT_SSLVERSION,
                  (long)CURL_SSLVERSION_TLSv1_2);
    NYMBL__SETOPT(code, easy, CURLOPT_SSL_VERIFYPEER, 1L);
    NYMBL__SETOPT(code, easy, CURLOPT_SSL_VERIFYHOST, 2L);
    /* By default no directory of certificates is used: even libcurl's default
     * one disables the cache of parsed certificates
     * (CURLOPT_CA_CACHE_TIMEOUT). The results of setting NULL are ignored,
     * because not every TLS library supports directories. */
    if (ca_file != NULL || settings->ca_path != NULL)
        NYMBL__SETOPT(code, easy, CURLOPT_CAINFO, ca_file);
    if (settings->ca_path != NULL)
        NYMBL__SETOPT(code, easy, CURLOPT_CAPATH, settings->ca_path);
    else
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    NYMBL__SETOPT(code, easy, CURLOPT_PROXY_SSLVERSION,
                  (long)CURL_SSLVERSION_TLSv1_2);
    if (ca_file != NULL)
        NYMBL__SETOPT(code, easy, CURLOPT_PROXY_CAINFO, ca_file);
    if (settings->ca_path != NULL)
        NYMBL__SETOPT(code, easy, CURLOPT_PROXY_CAPATH, settings->ca_path);
    else
        curl_easy_setopt(easy, CURLOPT_PROXY_CAPATH, NULL);
    /* Do not send the request's headers to a proxy. */
    NYMBL__SETOPT(code, easy, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE);
    NYMBL__SETOPT(code, easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    if (!https) /* a loopback address is never reached through a proxy */
        proxy = "";
    if (proxy != NULL)
        NYMBL__SETOPT(code, easy, CURLOPT_PROXY, proxy);
    /* timeouts.c enforces the connect timeout. libcurl needs to know it only in
     * order to divide the time between a host's addresses. */
    NYMBL__SETOPT(code, easy, CURLOPT_CONNECTTIMEOUT_MS,
                  settings->connect_timeout < 86400
                      ? (long)(settings->connect_timeout * 1000)
                      : 86400000L);
    return code;
}

void nymbl__settings_free(nymbl__settings *settings)
{
    free(settings->ca_file);
    free(settings->ca_path);
    free(settings->user_agent);
    *settings = (nymbl__settings){0};
}
