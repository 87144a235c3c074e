/* SPDX-License-Identifier: MIT */
/* Requests: checks of the caller's request, and its URL, headers and body as
 * the exchange sends them. */
#include "api/request.h"

#include "api/body.h"
#include "api/download.h"
#include "base/ascii.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/secret.h"
#include "base/text.h"
#include "engine/pump.h"
#include "exchange/url.h"
#include "port/body.h"

#include <stdio.h>
#include <string.h>

/* Size of a header value from the caller. */
#define HEADER_VALUE_MAX 8192

/* ---- checks ---- */

static bool is_letter_or_digit(char byte)
{
    char lower = (char)(byte | 0x20);

    return (lower >= 'a' && lower <= 'z') || (byte >= '0' && byte <= '9');
}

/* Whether a text consists of letters, digits and characters of `others`. */
static bool is_name(const char *text, const char *others)
{
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++)
        if (!is_letter_or_digit(*text) && strchr(others, *text) == NULL)
            return false;
    return true;
}

/* Whether a bearer token is visible ASCII, which is slightly more than RFC
 * 6750, section 2.1, allows. */
static bool token_is_valid(const char *token)
{
    size_t length = token == NULL ? 0 : strlen(token);
    unsigned char wrong = length == 0;

    /* Tokens are long. Without an early exit the compiler vectorizes the loop.
     */
    for (size_t i = 0; i < length; i++)
        wrong |= (token[i] < '!') | (token[i] > '~');
    return !wrong;
}

static bool path_is_valid(const nymbl_request *request)
{
    const nymbl_segment *segment = request->path;

    if (segment == NULL || segment->name == NULL)
        return false;
    for (; segment->name != NULL; segment++)
        if (!is_name(segment->name, "$_-.") || segment->name[0] == '.' ||
            (segment->key != NULL && *segment->key == '\0'))
            return false;
    /* without a key a DELETE would delete a whole collection */
    return request->method != NYMBL_DELETE || segment[-1].key != NULL;
}

static bool query_is_valid(const nymbl_pair *pair)
{
    for (; pair != NULL && pair->name != NULL; pair++)
        if (!is_name(pair->name, "$_-."))
            return false;
    return true;
}

/* Whether a header must not be set by the caller: the library sends it itself,
 * or it affects how a message is framed, cached or continued. */
static bool header_is_reserved(const char *name)
{
    static const char *const names[] = {
        "authorization", "connection", "cookie", "date",      "expect",
        "host",          "keep-alive", "range",  "te",        "trailer",
        "upgrade",       "user-agent", "via",    "x-api-key",
    };
    static const char *const prefixes[] = {"accept", "content-", "if-",
                                           "proxy-", "transfer-"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (nymbl__ascii_equal(name, names[i]))
            return true;
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
        if (nymbl__ascii_begins(name, prefixes[i], strlen(prefixes[i])))
            return true;
    return false;
}

/* Whether all names of headers are tokens (RFC 9110, section 5.6.2), and all
 * values visible ASCII with blanks only inside. */
static bool headers_are_valid(const nymbl_pair *pair)
{
    for (; pair != NULL && pair->name != NULL; pair++) {
        const char *value = pair->value;
        size_t length = value == NULL ? 0 : strlen(value);

        if (!is_name(pair->name, "!#$%&'*+-.^_`|~") ||
            header_is_reserved(pair->name))
            return false;
        if (value == NULL)
            continue;
        if (length == 0 || length > HEADER_VALUE_MAX || value[0] == ' ' ||
            value[length - 1] == ' ')
            return false;
        for (size_t i = 0; i < length; i++)
            if (value[i] < ' ' || value[i] > '~')
                return false;
    }
    return true;
}

static const char *upload_problem(const nymbl_request *request)
{
    const nymbl_upload_options *options = request->upload;

    if (request->method != NYMBL_POST)
        return request->body != NULL ? "body" : NULL;
    if (request->body == NULL || options == NULL ||
        options->file_name == NULL || options->content_type == NULL)
        return "options";
    if (strpbrk(options->file_name, "\r\n") != NULL)
        return "file_name";
    if (strpbrk(options->content_type, "\r\n") != NULL)
        return "content_type";
    return NULL;
}

/* The name of the argument that is invalid, or NULL. */
static const char *request_problem(const char *token,
                                   const nymbl_request *request)
{
    if (!token_is_valid(token))
        return "token";
    if (request == NULL)
        return "request";
    if (!path_is_valid(request))
        return "path";
    if (!query_is_valid(request->query))
        return "query";
    if (!headers_are_valid(request->headers))
        return "headers";
    if (request->expected == NYMBL_EXPECT_CONTENT &&
        request->method != NYMBL_GET)
        return "expected";
    if (!nymbl__download_is_valid(request->download))
        return "download";
    return upload_problem(request);
}

const char *nymbl__request_start_problem(const nymbl_engine *engine,
                                         const nymbl_client *client)
{
    if (!nymbl_engine_in_this_process(engine) || engine->closed)
        return "engine";
    if (client == NULL || client->closed)
        return "client";
    return NULL;
}

/* ---- the URL ---- */

/* Append the path. Keys are in parentheses without quotes, as in every example
 * of the service (lua/README.md, Facts about the service). */
static nymbl_kind path_append(nymbl__buffer *url, const nymbl_segment *segment)
{
    nymbl_kind kind = NYMBL_OK;

    for (; kind == NYMBL_OK && segment->name != NULL; segment++) {
        kind = nymbl__buffer_puts(url, "/");
        if (kind == NYMBL_OK)
            kind = nymbl__buffer_puts(url, segment->name);
        if (segment->key == NULL)
            continue;
        if (kind == NYMBL_OK)
            kind = nymbl__buffer_puts(url, "(");
        if (kind == NYMBL_OK)
            kind = nymbl__url_append_escaped(url, segment->key);
        if (kind == NYMBL_OK)
            kind = nymbl__buffer_puts(url, ")");
    }
    return kind;
}

static nymbl_kind query_append(nymbl__buffer *url, const nymbl_pair *pair)
{
    nymbl_kind kind = NYMBL_OK;
    char separator = '?';

    for (; kind == NYMBL_OK && pair != NULL && pair->name != NULL; pair++)
        if (pair->value != NULL)
            kind = nymbl__url_append_pair(url, &separator, pair->name,
                                          pair->value);
    return kind;
}

/* Replace a URL by a link from the response to it. */
static nymbl_kind link_follow(nymbl__buffer *url, const char *base_url,
                              const char *link)
{
    char *resolved = NULL;
    nymbl_kind kind = strlen(link) > NYMBL__URL_MAX
                          ? NYMBL_TOO_LARGE
                          : nymbl__url_resolve(&resolved, url->data, link);

    if (kind == NYMBL_OK && !nymbl__url_is_same_origin(base_url, resolved))
        kind = NYMBL_REDIRECT;
    nymbl__buffer_free(url);
    if (kind == NYMBL_OK)
        kind = nymbl__buffer_puts(url, resolved);
    nymbl__secret_free(resolved);
    return kind;
}

static nymbl_kind url_make(char **out, const nymbl_client *client,
                           const nymbl_request *request, nymbl_error *err)
{
    nymbl__buffer url;
    nymbl_kind kind, too_long = NYMBL_BAD_REQUEST;

    nymbl__buffer_init(&url, NYMBL__URL_MAX);
    kind = nymbl__buffer_puts(&url, client->base_url);
    if (kind == NYMBL_OK)
        kind = path_append(&url, request->path);
    if (kind == NYMBL_OK && request->next_link == NULL)
        kind = query_append(&url, request->query);
    if (kind == NYMBL_OK && request->next_link != NULL) {
        kind = link_follow(&url, client->base_url, request->next_link);
        too_long = NYMBL_PROTOCOL; /* the service has sent it */
    }
    if (kind == NYMBL_OK)
        *out = nymbl__buffer_take(&url);
    nymbl__buffer_free(&url);
    /* An id, a filter or a link may have come from the service, so a URL that
     * is too long is a failure of the call and not misuse. */
    if (kind == NYMBL_TOO_LARGE)
        return nymbl__error_set(err, too_long, nymbl__reason_url_too_long);
    return kind < 0 ? nymbl__error_set(err, kind, NULL) : NYMBL_OK;
}

/* ---- the body and the target ---- */

static nymbl_kind upload_prepare(nymbl_transfer *transfer,
                                 const nymbl_request *request, nymbl_error *err)
{
    const nymbl_upload_options *options = request->upload;
    nymbl__form *form = &transfer->exchange.request.form;
    nymbl_kind kind = nymbl__body_attach(
        request->body, transfer, transfer->client->max_upload_bytes, err);

    if (kind < 0)
        return kind;
    transfer->port.body = request->body;
    transfer->exchange.progress = options->progress;
    transfer->exchange.request.expect_continue =
        nymbl__body_is_stream(request->body) && !options->is_rewindable;
    kind = nymbl__text_copy(&form->file_name, options->file_name);
    if (kind == NYMBL_OK)
        kind = nymbl__text_copy(&form->content_type, options->content_type);
    if (kind == NYMBL_OK)
        kind = nymbl__text_copy(&form->document_type, options->document_type);
    if (kind == NYMBL_OK)
        kind = nymbl__text_copy(&form->description, options->description);
    return kind < 0 ? nymbl__error_set(err, kind, NULL) : NYMBL_OK;
}

/* ---- starting ---- */

static nymbl_kind service_headers_add(nymbl__request *request,
                                      const char *api_key, const char *token,
                                      const nymbl_pair *pair)
{
    struct curl_slist **list = &request->service_headers;
    nymbl_kind kind =
        nymbl__request_add_header(list, "Authorization: Bearer ", token, "");

    if (kind == NYMBL_OK)
        kind = nymbl__request_add_header(list, "x-api-key: ", api_key, "");
    for (; kind == NYMBL_OK && pair != NULL && pair->name != NULL; pair++)
        if (pair->value != NULL)
            kind =
                nymbl__request_add_header(list, pair->name, ": ", pair->value);
    return kind;
}

nymbl_kind nymbl__request_submit(nymbl_transfer *transfer, const char *token,
                                 const nymbl_pair *headers)
{
    nymbl__request *request = &transfer->exchange.request;
    /* AWS API Gateway may turn bytes into base64 if a text type is the first in
     * Accept (its developer guide, "payload encodings workflow"). */
    nymbl_kind kind = nymbl__request_add_header(
        &request->headers, "Accept: ",
        request->expected == NYMBL_EXPECT_CONTENT ? "*/*" : "application/json",
        "");

    /* an empty Expect keeps libcurl from adding its own */
    if (kind == NYMBL_OK && transfer->port.body != NULL)
        kind = nymbl__request_add_header(
            &request->headers,
            "Expect:", request->expect_continue ? " 100-continue" : "", "");
    if (kind == NYMBL_OK && token != NULL)
        kind = service_headers_add(request, transfer->client->api_key, token,
                                   headers);
    if (kind == NYMBL_OK)
        kind = nymbl__text_copy(&request->proxy, transfer->client->proxy);
    if (kind < 0)
        return kind;
    transfer->exchange.head.sent_id = nymbl__request_sent_id(request);
    nymbl__request_join_headers(request);
    nymbl__client_register(transfer->client, transfer->engine);
    nymbl__pump_command(transfer, NYMBL__COMMAND_START);
    return NYMBL_OK;
}

static nymbl_kind transfer_prepare(nymbl_transfer *transfer,
                                   const nymbl_request *request,
                                   nymbl_error *err)
{
    nymbl__request *prepared = &transfer->exchange.request;
    nymbl_kind kind = url_make(&prepared->url, transfer->client, request, err);

    prepared->method = request->method;
    prepared->expected = request->expected;
    transfer->exchange.inspect = request->inspect;
    if (kind == NYMBL_OK && request->body != NULL)
        kind = upload_prepare(transfer, request, err);
    if (kind == NYMBL_OK && request->expected == NYMBL_EXPECT_CONTENT)
        kind = nymbl__download_prepare(transfer, request->download, err);
    return kind;
}

nymbl_kind nymbl_request_start(nymbl_transfer **out, nymbl_engine *engine,
                               nymbl_client *client, const char *token,
                               const nymbl_request *request, nymbl_error *err)
{
    const char *problem = nymbl__request_start_problem(engine, client);
    nymbl_kind kind;

    *out = NULL;
    if (problem == NULL)
        problem = request_problem(token, request);
    if (problem != NULL)
        return nymbl__error_set(err, NYMBL_MISUSE, problem);
    kind = nymbl__transfer_new(out, engine, client, err);
    if (kind < 0)
        return kind;
    kind = transfer_prepare(*out, request, err);
    if (kind == NYMBL_OK) {
        kind = nymbl__request_submit(*out, token, request->headers);
        if (kind < 0)
            nymbl__error_set(err, kind, NULL);
    }
    if (kind < 0) {
        nymbl__transfer_release(*out);
        *out = NULL;
    }
    return kind;
}
