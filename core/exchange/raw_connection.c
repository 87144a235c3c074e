/* SPDX-License-Identifier: MIT */
/* A raw connection, which libcurl makes and verifies
 * (CURLOPT_CONNECT_ONLY). */
#include "exchange/raw_connection.h"

#include "base/error.h"
#include "base/secret.h"
#include "base/stream_socket.h"
#include "exchange/curl_error.h"
#include "exchange/setopt.h"
#include "exchange/sockets.h"

/* CURLOPT_CLOSESOCKETFUNCTION. The peer must see the end of the connection even
 * if a forked process has a copy of the socket. */
static int close_cb(void *payload, curl_socket_t fd)
{
    (void)payload;
    nymbl__stream_socket_close(fd);
    return 0;
}

nymbl_kind nymbl__raw_connection_start(nymbl__raw_connection *connection,
                                       CURL *easy)
{
    CURLcode code =
        nymbl__settings_apply(&connection->settings, easy, connection->url, "");

    connection->easy = easy;
    connection->fd = -1;
    NYMBL__SETOPT(code, easy, CURLOPT_URL, connection->url);
    NYMBL__SETOPT(code, easy, CURLOPT_CONNECT_ONLY, 1L);
    NYMBL__SETOPT(code, easy, CURLOPT_SSL_ENABLE_ALPN, 0L);
    NYMBL__SETOPT(code, easy, CURLOPT_NOPROXY, "*");
    if (connection->unix_path != NULL)
        NYMBL__SETOPT(code, easy, CURLOPT_UNIX_SOCKET_PATH,
                      connection->unix_path);
    NYMBL__SETOPT(code, easy, CURLOPT_ERRORBUFFER, connection->error_text);
    NYMBL__SETOPT(code, easy, CURLOPT_OPENSOCKETFUNCTION,
                  nymbl__sockets_open_cb);
    NYMBL__SETOPT(code, easy, CURLOPT_CLOSESOCKETFUNCTION, close_cb);
    return code == CURLE_OK ? NYMBL_OK : NYMBL_NO_MEMORY;
}

nymbl_kind nymbl__raw_connection_complete(nymbl__raw_connection *connection,
                                          CURLcode code, const char **reason)
{
    curl_socket_t fd = CURL_SOCKET_BAD;

    if (code == CURLE_OPERATION_TIMEDOUT)
        return NYMBL_AGAIN;
    if (code != CURLE_OK)
        return nymbl__curl_error_of_connection(
            connection->easy, connection->error_text, code, reason);
    curl_easy_getinfo(connection->easy, CURLINFO_ACTIVESOCKET, &fd);
    connection->fd = fd;
    return NYMBL_OK;
}

static nymbl_kind end_classify(CURLcode code, const char **reason)
{
    if (code == CURLE_AGAIN)
        return NYMBL_AGAIN;
    if (code == CURLE_OUT_OF_MEMORY)
        return NYMBL_NO_MEMORY;
    *reason = nymbl__reason_reset;
    return NYMBL_NETWORK;
}

nymbl_kind nymbl__raw_connection_send(nymbl__raw_connection *connection,
                                      const char *bytes, size_t size,
                                      size_t *sent, const char **reason)
{
    CURLcode code = curl_easy_send(connection->easy, bytes, size, sent);

    return code == CURLE_OK ? NYMBL_OK : end_classify(code, reason);
}

nymbl_kind nymbl__raw_connection_receive(nymbl__raw_connection *connection,
                                         char *bytes, size_t size, size_t *got,
                                         const char **reason)
{
    CURLcode code = curl_easy_recv(connection->easy, bytes, size, got);

    return code == CURLE_OK && *got > 0 ? NYMBL_OK : end_classify(code, reason);
}

void nymbl__raw_connection_free(nymbl__raw_connection *connection)
{
    nymbl__settings_free(&connection->settings);
    nymbl__secret_free(connection->url);
    nymbl__secret_free(connection->unix_path);
}
