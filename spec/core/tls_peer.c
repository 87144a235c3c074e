/* SPDX-License-Identifier: MIT */
/* The peer over TLS, and a world with it. */
#include "tls_peer.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

SSL_CTX *context;
char ca_file[64];

static void extension_add(X509 *certificate, int id, const char *value)
{
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, id, value);

    REQUIRE(extension != NULL);
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
}

/* A key, and a self-signed certificate for 127.0.0.1. */
static void context_make(const char *name, long from, long to)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    FILE *file;
    int fd;

    REQUIRE(key != NULL && certificate != NULL);
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), from);
    X509_gmtime_adj(X509_getm_notAfter(certificate), to);
    X509_set_pubkey(certificate, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN",
                               MBSTRING_ASC, (const unsigned char *)"peer", -1,
                               -1, 0);
    X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
    extension_add(certificate, NID_subject_alt_name, name);
    extension_add(certificate, NID_basic_constraints, "critical,CA:TRUE");
    REQUIRE(X509_sign(certificate, key, EVP_sha256()) > 0);
    context = SSL_CTX_new(TLS_server_method());
    REQUIRE(SSL_CTX_use_certificate(context, certificate) == 1);
    REQUIRE(SSL_CTX_use_PrivateKey(context, key) == 1);
    strcpy(ca_file, "/tmp/nymbl-test-ca-XXXXXX");
    fd = mkstemp(ca_file);
    REQUIRE(fd >= 0);
    file = fdopen(fd, "w");
    REQUIRE(PEM_write_X509(file, certificate) == 1);
    fclose(file);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static void context_drop(void)
{
    SSL_CTX_free(context);
    unlink(ca_file);
}

/* ---- the peer over TLS; `tls` NULL: plain TCP ---- */

static ssize_t result_of(SSL *tls, int got)
{
    if (got > 0)
        return got;
    switch (SSL_get_error(tls, got)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return -1;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    default:
        ERR_clear_error();
        errno = EPROTO;
        return -1;
    }
}

static ssize_t (*clear_recv)(peer *, void *, size_t);
static ssize_t (*clear_send)(peer *, const void *, size_t);

static ssize_t tls_recv(peer *peer, void *data, size_t size)
{
    if (peer->tls == NULL)
        return clear_recv(peer, data, size);
    ERR_clear_error(); /* of the client, which may be in the same thread */
    return result_of(peer->tls, SSL_read(peer->tls, data, (int)size));
}

static ssize_t tls_send(peer *peer, const void *data, size_t size)
{
    if (peer->tls == NULL)
        return clear_send(peer, data, size);
    ERR_clear_error();
    return result_of(peer->tls, SSL_write(peer->tls, data, (int)size));
}

void tls_begin(peer *peer)
{
    peer->tls = SSL_new(context);
    SSL_set_fd(peer->tls, peer->fd);
    SSL_set_accept_state(peer->tls);
    SSL_set_mode(peer->tls, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

void tls_accept(peer *peer)
{
    peer_accept(peer);
    tls_begin(peer);
}

void tls_end(peer *peer, bool notify)
{
    if (notify)
        SSL_shutdown(peer->tls);
    SSL_free(peer->tls);
    peer->tls = NULL;
    peer_close(peer);
}

void tls_start(const char *name, long from, long to)
{
    context_make(name, from, to);
    clear_recv = peer_recv;
    clear_send = peer_send_some;
    peer_recv = tls_recv;
    peer_send_some = tls_send;
}

void tls_stop(void)
{
    peer_recv = clear_recv;
    peer_send_some = clear_send;
    context_drop();
}

void tls_client_use(const char *trusted, double patience)
{
    nymbl_client_options options = {.api_key = "key-of-test",
                                    .ca_file = trusted,
                                    .connect_timeout = patience,
                                    .stall_timeout = patience};
    char url[64];

    nymbl_client_free(world.client);
    snprintf(url, sizeof(url), "https://127.0.0.1:%d/v1", world.port);
    options.base_url = url;
    REQUIRE(nymbl_client_new(&world.client, &options, NULL) == NYMBL_OK);
}

void tls_open_named(const char *name, long from, long to)
{
    tls_start(name, from, to);
    world_open(NULL);
    tls_client_use(ca_file, 0);
}

void tls_open(void)
{
    tls_open_named("IP:127.0.0.1", -100, 10000);
}

void tls_close(void)
{
    world_close();
    tls_stop();
}
