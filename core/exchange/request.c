/* SPDX-License-Identifier: MIT */
/* A request as data. */
#include "exchange/request.h"

#include "base/buffer.h"
#include "exchange/head.h"

#include <stdlib.h>
#include <string.h>

nymbl_kind nymbl__request_add_header(struct curl_slist **list, const char *line)
{
    struct curl_slist *longer = curl_slist_append(*list, line);

    if (longer == NULL)
        return NYMBL_NO_MEMORY;
    *list = longer;
    return NYMBL_OK;
}

nymbl_kind nymbl__request_add_secret(struct curl_slist **list, const char *name,
                                     const char *value)
{
    nymbl__buffer line;
    nymbl_kind kind;

    nymbl__buffer_init(&line, NYMBL__HEAD_MAX);
    kind = nymbl__buffer_puts(&line, name);
    if (kind == NYMBL_OK)
        kind = nymbl__buffer_puts(&line, value);
    if (kind == NYMBL_OK)
        kind = nymbl__request_add_header(list, line.data);
    nymbl__buffer_free(&line);
    return kind;
}

void nymbl__request_free(nymbl__request *request)
{
    struct curl_slist *node = request->secrets;

    for (; node != NULL && node != request->headers; node = node->next)
        nymbl__wipe(node->data, strlen(node->data));
    if (request->secrets != NULL && node == request->headers)
        request->headers = NULL; /* it is the tail of the other list */
    curl_slist_free_all(request->secrets);
    curl_slist_free_all(request->headers);
    request->secrets = request->headers = NULL;
    nymbl__secret_free(request->url);
    nymbl__secret_free(request->token_body);
    nymbl__secret_free(request->proxy);
    nymbl__secret_free(request->form.file_name);
    free(request->form.content_type);
    nymbl__secret_free(request->form.document_type);
    nymbl__secret_free(request->form.description);
    request->url = request->token_body = request->proxy = NULL;
    request->form = (nymbl__form){0};
}
