/* SPDX-License-Identifier: MIT */
/* A request as the exchange sends it. */
#include "exchange/request.h"

#include "base/ascii.h"
#include "base/buffer.h"
#include "base/secret.h"
#include "exchange/head.h"

#include <stdlib.h>
#include <string.h>

bool nymbl__request_is_safe(const nymbl__request *request)
{
    return request->method == NYMBL_GET || request->is_token;
}

bool nymbl__request_is_idempotent(const nymbl__request *request)
{
    return request->method != NYMBL_POST || request->is_token;
}

nymbl_kind nymbl__request_add_header(struct curl_slist **list,
                                     const char *first, const char *second,
                                     const char *third)
{
    struct curl_slist *longer = NULL;
    nymbl__buffer line;
    nymbl_kind kind;

    nymbl__buffer_init(&line, NYMBL__HEAD_MAX);
    kind = nymbl__buffer_puts(&line, first);
    if (kind == NYMBL_OK)
        kind = nymbl__buffer_puts(&line, second);
    if (kind == NYMBL_OK)
        kind = nymbl__buffer_puts(&line, third);
    if (kind == NYMBL_OK) {
        longer = curl_slist_append(*list, line.data);
        kind = longer != NULL ? NYMBL_OK : NYMBL_NO_MEMORY;
    }
    nymbl__buffer_free(&line);
    if (longer != NULL)
        *list = longer;
    return kind;
}

struct curl_slist *nymbl__request_headers(const nymbl__request *request,
                                          bool cross_origin)
{
    return cross_origin || request->service_headers == NULL
               ? request->headers
               : request->service_headers;
}

const char *nymbl__request_sent_id(const nymbl__request *request)
{
    static const char name[] = "x-request-id: ";
    const struct curl_slist *node = request->service_headers;

    for (; node != NULL; node = node->next)
        if (nymbl__ascii_begins(node->data, name, sizeof(name) - 1))
            return node->data + sizeof(name) - 1;
    return NULL;
}

void nymbl__request_join_headers(nymbl__request *request)
{
    struct curl_slist *last = request->service_headers;

    if (last == NULL)
        return;
    while (last->next != NULL)
        last = last->next;
    last->next = request->headers;
}

void nymbl__request_free(nymbl__request *request)
{
    struct curl_slist *node = request->service_headers;
    bool joined = false;

    for (; node != NULL && !joined; node = node->next) {
        nymbl__secret_wipe(node->data, strlen(node->data));
        joined = node->next == request->headers && request->headers != NULL;
    }
    curl_slist_free_all(request->service_headers);
    if (!joined)
        curl_slist_free_all(request->headers);
    nymbl__secret_free(request->url);
    nymbl__secret_free(request->token_body);
    nymbl__secret_free(request->proxy);
    nymbl__secret_free(request->form.file_name);
    free(request->form.content_type);
    nymbl__secret_free(request->form.document_type);
    nymbl__secret_free(request->form.description);
    *request = (nymbl__request){
        .method = request->method,
        .expected = request->expected,
        .is_token = request->is_token,
    };
}
