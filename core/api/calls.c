/* SPDX-License-Identifier: MIT */
/* The token request, and the calls for documents as requests. */
#include "nymbl.h"

#include "api/request.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/text.h"
#include "exchange/url.h"

#include <stdio.h>

/* ---- the token ---- */

static nymbl_kind token_body_make(char **out, const nymbl_client *client)
{
    const nymbl_pair pairs[] = {
        {"grant_type", "client_credentials"},
        {"client_id", client->client_id},
        {"client_secret", client->client_secret},
        {"scope", client->scope},
    };
    nymbl__buffer form;
    char separator = '\0';
    nymbl_kind kind = NYMBL_OK;

    nymbl__buffer_init(&form, NYMBL__URL_MAX);
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        if (kind == NYMBL_OK && pairs[i].value != NULL)
            kind = nymbl__url_append_pair(&form, &separator, pairs[i].name,
                                          pairs[i].value);
    *out = nymbl__buffer_take(&form);
    return kind;
}

nymbl_kind nymbl_token_start(nymbl_transfer **out, nymbl_engine *engine,
                             nymbl_client *client, nymbl_error *err)
{
    const char *problem = nymbl__request_start_problem(engine, client);
    nymbl__request *request;
    nymbl_kind kind;

    *out = NULL;
    if (problem == NULL && client->token_url == NULL)
        problem = "client";
    if (problem != NULL)
        return nymbl__error_set(err, NYMBL_MISUSE, problem);
    kind = nymbl__transfer_new(out, engine, client, err);
    if (kind < 0)
        return kind;
    request = &(*out)->exchange.request;
    request->method = NYMBL_POST;
    request->is_token = true;
    kind = nymbl__text_copy(&request->url, client->token_url);
    if (kind == NYMBL_OK)
        kind = token_body_make(&request->token_body, client);
    if (kind == NYMBL_OK)
        kind = nymbl__request_submit(*out, NULL, NULL);
    if (kind < 0) {
        nymbl__transfer_release(*out);
        *out = NULL;
        return kind == NYMBL_TOO_LARGE
                   ? nymbl__error_set(err, NYMBL_BAD_REQUEST,
                                      nymbl__reason_url_too_long)
                   : nymbl__error_set(err, kind, NULL);
    }
    return NYMBL_OK;
}

/* ---- documents ---- */

/* Whether an id is not empty: without it the path would lead to another
 * resource. */
static bool is_id(const char *text)
{
    return text != NULL && *text != '\0';
}

nymbl_kind nymbl_upload_start(nymbl_transfer **out, nymbl_engine *engine,
                              nymbl_client *client, const char *token,
                              const char *patient, nymbl_body *body,
                              const nymbl_upload_options *options,
                              nymbl_error *err)
{
    *out = NULL;
    if (!is_id(patient))
        return nymbl__error_set(err, NYMBL_MISUSE, "patient");
    return nymbl_request_start(
        out, engine, client, token,
        &(nymbl_request){
            .method = NYMBL_POST,
            .path = (nymbl_segment[]){{"Patients", patient},
                                      {"Documents", NULL},
                                      {NULL, NULL}},
            .body = body,
            .upload = options,
        },
        err);
}

/* A number as digits, or NULL if the option is not set. */
static const char *digits_of(int64_t number, char buffer[24])
{
    if (number <= 0)
        return NULL;
    snprintf(buffer, 24, "%lld", (long long)number);
    return buffer;
}

nymbl_kind nymbl_list_start(nymbl_transfer **out, nymbl_engine *engine,
                            nymbl_client *client, const char *token,
                            const char *patient,
                            const nymbl_list_options *options, nymbl_error *err)
{
    nymbl_list_options none = {0};
    char top[24], skip[24];

    if (options == NULL)
        options = &none;
    *out = NULL;
    if (!is_id(patient))
        return nymbl__error_set(err, NYMBL_MISUSE, "patient");
    return nymbl_request_start(
        out, engine, client, token,
        &(nymbl_request){
            .path = (nymbl_segment[]){{"Patients", patient},
                                      {"Documents", NULL},
                                      {NULL, NULL}},
            .query =
                (nymbl_pair[]){
                    {"$filter", options->filter},
                    {"$select", options->select},
                    {"$orderby", options->orderby},
                    {"$top", digits_of(options->top, top)},
                    {"$skip", digits_of(options->skip, skip)},
                    {"$count", options->count ? "true" : NULL},
                    {NULL, NULL},
                },
            .next_link = options->next_link,
        },
        err);
}

/* Start a request for one document. */
static nymbl_kind document_start(nymbl_transfer **out, nymbl_engine *engine,
                                 nymbl_client *client, const char *token,
                                 const char *patient, const char *document,
                                 nymbl_request request, nymbl_error *err)
{
    bool content = request.expected == NYMBL_EXPECT_CONTENT;

    *out = NULL;
    if (!is_id(patient) || !is_id(document))
        return nymbl__error_set(err, NYMBL_MISUSE,
                                is_id(patient) ? "document" : "patient");
    request.path = (nymbl_segment[]){{"Patients", patient},
                                     {"Documents", document},
                                     {content ? "$value" : NULL, NULL},
                                     {NULL, NULL}};
    return nymbl_request_start(out, engine, client, token, &request, err);
}

nymbl_kind nymbl_get_start(nymbl_transfer **out, nymbl_engine *engine,
                           nymbl_client *client, const char *token,
                           const char *patient, const char *document,
                           nymbl_error *err)
{
    return document_start(out, engine, client, token, patient, document,
                          (nymbl_request){0}, err);
}

nymbl_kind nymbl_download_start(nymbl_transfer **out, nymbl_engine *engine,
                                nymbl_client *client, const char *token,
                                const char *patient, const char *document,
                                const nymbl_download_options *options,
                                nymbl_error *err)
{
    return document_start(out, engine, client, token, patient, document,
                          (nymbl_request){
                              .expected = NYMBL_EXPECT_CONTENT,
                              .download = options,
                          },
                          err);
}

nymbl_kind nymbl_delete_start(nymbl_transfer **out, nymbl_engine *engine,
                              nymbl_client *client, const char *token,
                              const char *patient, const char *document,
                              nymbl_error *err)
{
    return document_start(out, engine, client, token, patient, document,
                          (nymbl_request){.method = NYMBL_DELETE}, err);
}
