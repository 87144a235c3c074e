/* SPDX-License-Identifier: MIT */
/* A client: the service's address, the trusted certificates and the secrets. */
#include "api/client.h"

#include "base/ascii.h"
#include "base/error.h"
#include "base/object_count.h"
#include "base/sha256.h"
#include "base/text.h"
#include "engine/client.h"
#include "engine/pump.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONNECT_SECONDS 10.0
#define STALL_SECONDS 30.0

/* Whether a text has no control characters. In a header value (RFC 9110,
 * section 5.5) they could begin another field; in a credential they are a
 * copy-and-paste error. */
static bool text_is_printable(const char *text)
{
    if (text == NULL)
        return true;
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            return false;
    }
    return true;
}

static bool scheme_is_known(const char *scheme)
{
    static const char *const schemes[] = {"http",    "socks",  "socks4",
                                          "socks4a", "socks5", "socks5h"};

    if (nymbl__ascii_equal(scheme, "https"))
        return (curl_version_info(CURLVERSION_NOW)->features &
                CURL_VERSION_HTTPS_PROXY) != 0;
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        if (nymbl__ascii_equal(scheme, schemes[i]))
            return true;
    }
    return false;
}

/* Whether libcurl can use this proxy (CURLOPT_PROXY), which it checks only when
 * it connects. "" means no proxy. If memory runs out here, the client's own
 * allocations report it. */
static bool proxy_is_known(const char *proxy)
{
    CURLU *url = *proxy == '\0' ? NULL : curl_url();
    char *scheme = NULL;
    CURLUcode code = CURLUE_OK;
    bool known;

    if (url != NULL)
        code = curl_url_set(url, CURLUPART_URL, proxy,
                            CURLU_NON_SUPPORT_SCHEME | CURLU_GUESS_SCHEME);
    if (url != NULL && code == CURLUE_OK)
        code = curl_url_get(url, CURLUPART_SCHEME, &scheme, 0);
    known = code == CURLUE_OUT_OF_MEMORY ||
            (code == CURLUE_OK && (scheme == NULL || scheme_is_known(scheme)));
    curl_free(scheme);
    curl_url_cleanup(url);
    return known;
}

/* The name of an option whose value is invalid, or NULL. */
static const char *options_problem(const nymbl_client_options *options)
{
    if (options->base_url == NULL ||
        nymbl_url_problem(options->base_url, options->allow_http) != NULL)
        return "base_url";
    if (options->token_url != NULL &&
        nymbl_url_problem(options->token_url, options->allow_http) != NULL)
        return "token_url";
    if (options->api_key == NULL || *options->api_key == '\0' ||
        !text_is_printable(options->api_key))
        return "api_key";
    if (!text_is_printable(options->user_agent))
        return "user_agent";
    if ((options->token_url != NULL && options->client_id == NULL) ||
        !text_is_printable(options->client_id))
        return "client_id";
    if ((options->token_url != NULL && options->client_secret == NULL) ||
        !text_is_printable(options->client_secret))
        return "client_secret";
    if (!text_is_printable(options->scope))
        return "scope";
    if (options->proxy != NULL && !proxy_is_known(options->proxy))
        return "proxy";
    if (!(options->connect_timeout >= 0))
        return "connect_timeout";
    if (!(options->stall_timeout >= 0))
        return "stall_timeout";
    if (options->max_upload_bytes < 0)
        return "max_upload_bytes";
    if (options->max_connections < 0)
        return "max_connections";
    return NULL;
}

/* Whether at least one directory of a list can be read. OpenSSL separates them
 * by colons (X509_LOOKUP_hash_dir(3)). */
static bool has_readable_dir(const char *list)
{
    while (*list != '\0') {
        size_t length = strcspn(list, ":");
        char *dir = strndup(list, length);
        struct stat status;
        bool readable =
            dir == NULL || /* the client's own allocations report that */
            (stat(dir, &status) == 0 && S_ISDIR(status.st_mode) &&
             faccessat(AT_FDCWD, dir, R_OK | X_OK, AT_EACCESS) == 0);

        free(dir);
        if (readable)
            return true;
        list += length + (list[length] == ':');
    }
    return false;
}

/* The name of an option whose certificates cannot be read, or NULL. libcurl
 * checks the file only in the first request, and the directory never. */
static const char *certificates_problem(const nymbl_client_options *options)
{
    const char *file = options->ca_file;
    struct stat status;

    if (file != NULL && (stat(file, &status) < 0 || S_ISDIR(status.st_mode) ||
                         faccessat(AT_FDCWD, file, R_OK, AT_EACCESS) < 0))
        return nymbl__reason_ca_file;
    if (options->ca_path != NULL && !has_readable_dir(options->ca_path))
        return nymbl__reason_ca_path;
    return NULL;
}

static nymbl_kind client_copy(nymbl_client *client,
                              const nymbl_client_options *options)
{
    static const char product[] = "nymbl/" NYMBL_VERSION;
    struct {
        char **to;
        const char *from;
    } texts[] = {
        {&client->base_url, options->base_url},
        {&client->api_key, options->api_key},
        {&client->token_url, options->token_url},
        {&client->client_id, options->client_id},
        {&client->client_secret, options->client_secret},
        {&client->scope, options->scope},
        {&client->settings.ca_file, options->ca_file},
        {&client->settings.ca_path, options->ca_path},
        {&client->proxy, options->proxy},
    };
    size_t length, extra;

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        nymbl_kind kind = nymbl__text_copy(texts[i].to, texts[i].from);

        if (kind < 0)
            return kind;
    }
    length = strlen(client->base_url);
    while (length > 0 && client->base_url[length - 1] == '/')
        client->base_url[--length] = '\0';
    extra = options->user_agent == NULL ? 0 : strlen(options->user_agent);
    client->settings.user_agent = malloc(sizeof(product) + 1 + extra);
    if (client->settings.user_agent == NULL)
        return NYMBL_NO_MEMORY;
    memcpy(client->settings.user_agent, product, sizeof(product));
    if (extra > 0) {
        client->settings.user_agent[sizeof(product) - 1] = ' ';
        memcpy(client->settings.user_agent + sizeof(product),
               options->user_agent, extra + 1);
    }
    client->allow_http = options->allow_http;
    client->settings.connect_timeout = options->connect_timeout > 0
                                           ? options->connect_timeout
                                           : CONNECT_SECONDS;
    client->settings.stall_timeout =
        options->stall_timeout > 0 ? options->stall_timeout : STALL_SECONDS;
    client->max_upload_bytes = options->max_upload_bytes > 0
                                   ? options->max_upload_bytes
                                   : NYMBL_MAX_UPLOAD_BYTES;
    client->max_connections =
        options->max_connections > 0 ? options->max_connections : 16;
    return NYMBL_OK;
}

nymbl_kind nymbl_client_new(nymbl_client **out,
                            const nymbl_client_options *options,
                            nymbl_error *err)
{
    const char *problem = options_problem(options);
    nymbl_client *client;

    *out = NULL;
    if (problem != NULL)
        return nymbl__error_set(err, NYMBL_MISUSE, problem);
    problem = certificates_problem(options);
    if (problem != NULL)
        return nymbl__error_set(err, NYMBL_TLS, problem);
    client = calloc(1, sizeof(*client));
    if (client == NULL)
        return nymbl__error_set(err, NYMBL_NO_MEMORY, NULL);
    client->references = 1;
    nymbl__object_count_add(1);
    if (client_copy(client, options) < 0) {
        nymbl_client_free(client);
        return nymbl__error_set(err, NYMBL_NO_MEMORY, NULL);
    }
    *out = client;
    return NYMBL_OK;
}

void nymbl_client_close(nymbl_client *client)
{
    nymbl_engine *engine;

    if (client == NULL || client->closed)
        return;
    client->closed = true;
    nymbl__client_wipe(client);
    engine = nymbl__client_unregister(client);
    if (engine == NULL)
        return;
    nymbl__pump_close_client(engine, client);
    nymbl__engine_release(engine);
}

void nymbl_client_free(nymbl_client *client)
{
    nymbl_engine *engine;

    if (client == NULL)
        return;
    /* The client is unregistered here, in its caller's thread. The last
     * reference may be dropped by another engine's thread, against which the
     * lock of an engine without a thread does not protect. */
    engine = nymbl__client_unregister(client);
    if (engine != NULL)
        nymbl__engine_release(engine);
    nymbl__client_release(client);
}

int64_t nymbl_client_max_upload_bytes(const nymbl_client *client)
{
    return client->max_upload_bytes;
}

/* Hash texts, each followed by a NUL, so that "ab", "c" differs from "a", "bc".
 */
static void fields_hash(const char *const *fields, size_t count, char out[65])
{
    nymbl__sha256 hash;

    nymbl__sha256_init(&hash);
    for (size_t i = 0; i < count; i++) {
        if (fields[i] != NULL)
            nymbl__sha256_add(&hash, fields[i], strlen(fields[i]));
        nymbl__sha256_add(&hash, "", 1);
    }
    nymbl__sha256_text(&hash, out);
}

nymbl_kind nymbl_client_account_id(const nymbl_client *client,
                                   nymbl_shared_state which, char *out)
{
    const char *limits[] = {client->base_url, client->api_key, NULL, NULL};
    const char *token[] = {client->token_url, client->client_id,
                           client->client_secret, client->scope};
    const char *ids[] = {client->base_url, NULL, NULL, NULL};
    const char *const *fields = which == NYMBL_SHARED_TOKEN ? token
                                : which == NYMBL_SHARED_IDS ? ids
                                                            : limits;

    if (client->closed || fields[0] == NULL)
        return NYMBL_MISUSE;
    fields_hash(fields, 4, out);
    return NYMBL_OK;
}

/* The client secret and a token from the caller are not hashed: they may be
 * replaced while the account remains the same. */
void nymbl__client_resource(const nymbl_client *client, const char *url,
                            char out[65])
{
    const char *fields[] = {client->base_url,  client->api_key,
                            client->token_url, client->client_id,
                            client->scope,     url};

    fields_hash(fields, sizeof(fields) / sizeof(fields[0]), out);
}
