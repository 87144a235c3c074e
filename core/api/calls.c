/* SPDX-License-Identifier: MIT */
/* The six calls as URL, headers and body. */
#include "nymbl.h"

#include "api/body.h"
#include "api/client.h"
#include "base/buffer.h"
#include "base/error.h"
#include "engine/pump.h"
#include "exchange/request.h"
#include "exchange/url.h"
#include "file/save.h"
#include "port/body.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- parts ---- */

/* The secrets stand before the other headers in one list, so that a hop to
 * another origin leaves them out by starting further down. */
static nymbl_kind headers_make(nymbl__request *request,
                               const nymbl_client *client, const char *token)
{
    nymbl_kind kind = NYMBL_OK;
    struct curl_slist *last;

    /* A text type first would let a gateway turn the bytes into base64 (AWS,
     * "payload encodings workflow"). */
    kind = nymbl__request_add_header(&request->headers,
                                     request->operation == NYMBL__DOWNLOAD
                                         ? "Accept: */*"
                                         : "Accept: application/json");
    if (kind == NYMBL_OK && request->operation == NYMBL__UPLOAD)
        kind = nymbl__request_add_header(
            &request->headers,
            request->expect_continue ? "Expect: 100-continue" : "Expect:");
    if (token == NULL || kind < 0)
        return kind;
    kind = nymbl__request_add_secret(&request->secrets,
                                     "Authorization: Bearer ", token);
    if (kind == NYMBL_OK)
        kind = nymbl__request_add_secret(&request->secrets,
                                         "x-api-key: ", client->api_key);
    if (kind < 0)
        return kind;
    for (last = request->secrets; last->next != NULL; last = last->next)
        ;
    last->next = request->headers;
    return NYMBL_OK;
}

/* "/Patients({patient})/Documents({document})" behind the base URL. Ids stand
 * in the parentheses without quotes, as in every example of the guide. */
static nymbl_kind path_append(nymbl__buffer *url, const nymbl_client *client,
                              const char *patient, const char *document)
{
    nymbl_kind kind = nymbl__buffer_puts(url, client->base_url);

    if (kind == NYMBL_OK)
        kind = nymbl__buffer_puts(url, "/Patients(");
    if (kind == NYMBL_OK)
        kind = nymbl__url_escape(url, patient);
    if (kind == NYMBL_OK)
        kind = nymbl__buffer_puts(url, ")/Documents");
    if (kind < 0 || document == NULL)
        return kind;
    kind = nymbl__buffer_puts(url, "(");
    if (kind == NYMBL_OK)
        kind = nymbl__url_escape(url, document);
    if (kind == NYMBL_OK)
        kind = nymbl__buffer_puts(url, ")");
    return kind;
}

/* `separator` is '?' or '&', or 0 for the first field of a form. */
static nymbl_kind pair_append(nymbl__buffer *buffer, char *separator,
                              const char *name, const char *value)
{
    nymbl_kind kind = NYMBL_OK;

    if (value == NULL)
        return NYMBL_OK;
    if (*separator != '\0')
        kind = nymbl__buffer_append(buffer, separator, 1);
    *separator = '&';
    if (kind == NYMBL_OK)
        kind = nymbl__buffer_puts(buffer, name);
    if (kind == NYMBL_OK)
        kind = nymbl__buffer_puts(buffer, "=");
    return kind == NYMBL_OK ? nymbl__url_escape(buffer, value) : kind;
}

static nymbl_kind number_append(nymbl__buffer *buffer, char *separator,
                                const char *name, int64_t value)
{
    char digits[24];

    if (value <= 0)
        return NYMBL_OK;
    snprintf(digits, sizeof(digits), "%lld", (long long)value);
    return pair_append(buffer, separator, name, digits);
}

/* A bearer token: visible ASCII (RFC 6750, section 2.1, and a little more). */
static bool token_is_clean(const char *token)
{
    size_t length = token == NULL ? 0 : strlen(token);
    unsigned char wrong = length == 0;

    /* no way out, so that compilers take 16 bytes at a time: tokens are long */
    for (size_t i = 0; i < length; i++)
        wrong |= (token[i] < '!') | (token[i] > '~');
    return !wrong;
}

static const char *arguments_problem(const nymbl_engine *engine,
                                     const nymbl_client *client,
                                     const char *token, const char *patient)
{
    if (!nymbl_engine_in_this_process(engine) || engine->closed)
        return "engine";
    if (client == NULL || client->closed)
        return "client";
    if (!token_is_clean(token))
        return "token";
    if (patient == NULL || *patient == '\0')
        return "patient";
    return NULL;
}

/* ---- starting ---- */

/* It cannot be started: nothing of it stays. */
static nymbl_kind call_abandon(nymbl_transfer **out, nymbl__buffer *url,
                               nymbl_kind kind)
{
    nymbl__buffer_free(url);
    nymbl__transfer_release(*out);
    *out = NULL;
    return kind;
}

/* What makes a URL too long is an id or a filter that may have come from the
 * service: so it is told as any failure of a call, not as misuse. */
static nymbl_kind start_fail(nymbl_error *err, nymbl_kind kind)
{
    if (kind == NYMBL_TOO_LARGE)
        return nymbl__fail(err, NYMBL_BAD_REQUEST, nymbl__reason_url_too_long);
    return nymbl__fail(err, kind, NULL);
}

/* A transfer with all but its URL's end; *url is to be finished. */
static nymbl_kind call_new(nymbl_transfer **out, nymbl__buffer *url,
                           nymbl__operation operation, nymbl_engine *engine,
                           nymbl_client *client, const char *token,
                           const char *patient, const char *document,
                           nymbl_error *err)
{
    const char *problem = arguments_problem(engine, client, token, patient);
    nymbl_kind kind;

    *out = NULL;
    nymbl__buffer_init(url, NYMBL__URL_MAX);
    if (problem == NULL && document != NULL && *document == '\0')
        problem = "document";
    if (problem != NULL)
        return nymbl__fail(err, NYMBL_MISUSE, problem);
    kind = nymbl__transfer_new(out, engine, client, err);
    if (kind < 0)
        return kind;
    (*out)->exchange.request.operation = operation;
    kind = path_append(url, client, patient, document);
    if (kind < 0) {
        call_abandon(out, url, kind);
        return start_fail(err, kind);
    }
    return NYMBL_OK;
}

/* Hand the transfer to the engine, or release it where `kind` is a failure.
 * Takes the URL over. */
static nymbl_kind call_start(nymbl_transfer **out, nymbl__buffer *url,
                             const char *token, nymbl_kind kind,
                             nymbl_error *err)
{
    nymbl_transfer *transfer = *out;

    transfer->exchange.request.url = nymbl__buffer_take(url);
    if (kind == NYMBL_OK)
        kind =
            headers_make(&transfer->exchange.request, transfer->client, token);
    if (kind == NYMBL_OK)
        kind = nymbl__text_copy(&transfer->exchange.request.proxy,
                                transfer->client->proxy);
    if (kind < 0) {
        nymbl__transfer_release(transfer);
        *out = NULL;
        return start_fail(err, kind);
    }
    nymbl__client_register(transfer->client, transfer->engine);
    nymbl__transfer_command(transfer, NYMBL__ADD);
    return NYMBL_OK;
}

nymbl_kind nymbl_token_start(nymbl_transfer **out, nymbl_engine *engine,
                             nymbl_client *client, nymbl_error *err)
{
    nymbl__buffer url, form;
    char separator = '\0';
    nymbl_kind kind;

    *out = NULL;
    if (!nymbl_engine_in_this_process(engine) || engine->closed)
        return nymbl__fail(err, NYMBL_MISUSE, "engine");
    if (client == NULL || client->closed || client->token_url == NULL)
        return nymbl__fail(err, NYMBL_MISUSE, "client");
    kind = nymbl__transfer_new(out, engine, client, err);
    if (kind < 0)
        return kind;
    (*out)->exchange.request.operation = NYMBL__TOKEN;
    nymbl__buffer_init(&url, NYMBL__URL_MAX);
    nymbl__buffer_init(&form, NYMBL__URL_MAX);
    kind = nymbl__buffer_puts(&url, client->token_url);
    if (kind == NYMBL_OK)
        kind =
            pair_append(&form, &separator, "grant_type", "client_credentials");
    if (kind == NYMBL_OK)
        kind = pair_append(&form, &separator, "client_id", client->client_id);
    if (kind == NYMBL_OK)
        kind = pair_append(&form, &separator, "client_secret",
                           client->client_secret);
    if (kind == NYMBL_OK)
        kind = pair_append(&form, &separator, "scope", client->scope);
    (*out)->exchange.request.token_body = nymbl__buffer_take(&form);
    return call_start(out, &url, NULL, kind, err);
}

nymbl_kind nymbl_upload_start(nymbl_transfer **out, nymbl_engine *engine,
                              nymbl_client *client, const char *token,
                              const char *patient, nymbl_body *body,
                              const nymbl_upload_options *options,
                              nymbl_error *err)
{
    nymbl__buffer url;
    nymbl__form *fields;
    nymbl_kind kind;

    *out = NULL;
    if (body == NULL || options == NULL || options->file_name == NULL ||
        options->content_type == NULL)
        return nymbl__fail(err, NYMBL_MISUSE, "options");
    if (strpbrk(options->file_name, "\r\n") != NULL)
        return nymbl__fail(err, NYMBL_MISUSE, "file_name");
    if (strpbrk(options->content_type, "\r\n") != NULL)
        return nymbl__fail(err, NYMBL_MISUSE, "content_type");
    kind = call_new(out, &url, NYMBL__UPLOAD, engine, client, token, patient,
                    NULL, err);
    if (kind < 0)
        return kind;
    kind = nymbl__body_attach(body, *out, client->max_upload_bytes, err);
    if (kind < 0) {
        return call_abandon(out, &url, kind);
    }
    (*out)->port.body = body;
    (*out)->exchange.progress = options->progress;
    (*out)->exchange.request.expect_continue =
        nymbl__body_is_stream(body) && !options->is_rewindable;
    fields = &(*out)->exchange.request.form;
    kind = nymbl__text_copy(&fields->file_name, options->file_name);
    if (kind == NYMBL_OK)
        kind = nymbl__text_copy(&fields->content_type, options->content_type);
    if (kind == NYMBL_OK)
        kind = nymbl__text_copy(&fields->document_type, options->document_type);
    if (kind == NYMBL_OK)
        kind = nymbl__text_copy(&fields->description, options->description);
    return call_start(out, &url, token, kind, err);
}

nymbl_kind nymbl_list_start(nymbl_transfer **out, nymbl_engine *engine,
                            nymbl_client *client, const char *token,
                            const char *patient,
                            const nymbl_list_options *options, nymbl_error *err)
{
    nymbl_list_options none = {0};
    nymbl__buffer url;
    char separator = '?';
    char *resolved = NULL;
    nymbl_kind kind;

    if (options == NULL)
        options = &none;
    kind = call_new(out, &url, NYMBL__LIST, engine, client, token, patient,
                    NULL, err);
    if (kind < 0)
        return kind;
    if (options->next_link != NULL) {
        kind =
            strlen(options->next_link) > NYMBL__URL_MAX
                ? NYMBL_TOO_LARGE
                : nymbl__url_resolve(&resolved, url.data, options->next_link);
        if (kind == NYMBL_OK &&
            !nymbl__url_same_origin(client->base_url, resolved))
            kind = NYMBL_REDIRECT;
        nymbl__buffer_free(&url);
        if (kind == NYMBL_OK)
            kind = nymbl__buffer_puts(&url, resolved);
        nymbl__secret_free(resolved);
        if (kind == NYMBL_TOO_LARGE) {
            call_abandon(out, &url, kind);
            return nymbl__fail(err, NYMBL_PROTOCOL, nymbl__reason_url_too_long);
        }
        return call_start(out, &url, token, kind, err);
    }
    kind = pair_append(&url, &separator, "$filter", options->filter);
    if (kind == NYMBL_OK)
        kind = pair_append(&url, &separator, "$select", options->select);
    if (kind == NYMBL_OK)
        kind = pair_append(&url, &separator, "$orderby", options->orderby);
    if (kind == NYMBL_OK)
        kind = number_append(&url, &separator, "$top", options->top);
    if (kind == NYMBL_OK)
        kind = number_append(&url, &separator, "$skip", options->skip);
    if (kind == NYMBL_OK && options->count)
        kind = pair_append(&url, &separator, "$count", "true");
    return call_start(out, &url, token, kind, err);
}

nymbl_kind nymbl_get_start(nymbl_transfer **out, nymbl_engine *engine,
                           nymbl_client *client, const char *token,
                           const char *patient, const char *document,
                           nymbl_error *err)
{
    nymbl__buffer url;
    nymbl_kind kind;

    kind = call_new(out, &url, NYMBL__GET, engine, client, token, patient,
                    document != NULL ? document : "", err);
    return kind < 0 ? kind : call_start(out, &url, token, NYMBL_OK, err);
}

/* Ask for the rest of a part, if what it is a part of is still the same. */
static nymbl_kind range_add(nymbl_transfer *transfer)
{
    int64_t offset = nymbl__save_offset(transfer->exchange.save);
    char range[48];
    nymbl_kind kind;

    if (transfer->exchange.has_size && offset == transfer->exchange.size) {
        nymbl__save_step_back(transfer->exchange.save);
        offset = nymbl__save_offset(transfer->exchange.save);
    }
    if (offset == 0 ||
        (transfer->exchange.has_size && offset >= transfer->exchange.size))
        return NYMBL_OK;
    snprintf(range, sizeof(range), "Range: bytes=%lld-", (long long)offset);
    kind =
        nymbl__request_add_header(&transfer->exchange.request.headers, range);
    if (kind == NYMBL_OK)
        kind = nymbl__request_add_secret(
            &transfer->exchange.request.headers,
            "If-Range: ", nymbl__save_validator(transfer->exchange.save));
    transfer->exchange.range_requested = true;
    return kind;
}

nymbl_kind nymbl_download_start(nymbl_transfer **out, nymbl_engine *engine,
                                nymbl_client *client, const char *token,
                                const char *patient, const char *document,
                                const nymbl_download_options *options,
                                nymbl_error *err)
{
    nymbl_download_options none = {0};
    nymbl__buffer url;
    nymbl_kind kind;

    if (options == NULL)
        options = &none;
    kind = call_new(out, &url, NYMBL__DOWNLOAD, engine, client, token, patient,
                    document != NULL ? document : "", err);
    if (kind < 0)
        return kind;
    (*out)->exchange.has_size = options->has_size;
    (*out)->exchange.size = options->size;
    (*out)->exchange.progress = options->progress;
    if (options->content_type != NULL &&
        strlen(options->content_type) < NYMBL__TYPE_MAX)
        strcpy((*out)->exchange.expected_type, options->content_type);
    kind = nymbl__buffer_puts(&url, "/$value");
    if (kind == NYMBL_OK && options->path != NULL) {
        char resource[65];

        nymbl__client_resource(client, url.data, resource);
        kind = nymbl__save_open(&(*out)->exchange.save, options->path,
                                options->mode, !options->no_overwrite,
                                options->resume ? resource : NULL, err);
        if (kind < 0) {
            return call_abandon(out, &url, kind);
        }
        kind = range_add(*out);
    }
    return call_start(out, &url, token, kind, err);
}

nymbl_kind nymbl_delete_start(nymbl_transfer **out, nymbl_engine *engine,
                              nymbl_client *client, const char *token,
                              const char *patient, const char *document,
                              nymbl_error *err)
{
    nymbl__buffer url;
    nymbl_kind kind;

    kind = call_new(out, &url, NYMBL__DELETE, engine, client, token, patient,
                    document != NULL ? document : "", err);
    return kind < 0 ? kind : call_start(out, &url, token, NYMBL_OK, err);
}
