/* SPDX-License-Identifier: MIT */
/* A request as data: made where a call starts, read where it is pumped. */
#ifndef NYMBL_EXCHANGE_REQUEST_H
#define NYMBL_EXCHANGE_REQUEST_H

#include "nymbl.h"

#include <curl/curl.h>

typedef enum nymbl__operation {
    NYMBL__TOKEN,
    NYMBL__UPLOAD,
    NYMBL__LIST,
    NYMBL__GET,
    NYMBL__DOWNLOAD,
    NYMBL__DELETE,
} nymbl__operation;

/* What stands around the file in a multipart body; strings are owned. */
typedef struct nymbl__form {
    char *file_name;
    char *content_type;
    char *document_type;
    char *description;
} nymbl__form;

typedef struct nymbl__request {
    nymbl__operation operation;
    char *url;
    char *token_body;           /* body of a token request */
    char *proxy;                /* the client's, which forgets it */
    struct curl_slist *secrets; /* ends in `headers` */
    struct curl_slist *headers;
    nymbl__form form;
    bool expect_continue;
} nymbl__request;

/* Add a header line. */
nymbl_kind nymbl__request_header(struct curl_slist **list, const char *line);
/* The same in two parts; no copy of it stays in memory. */
nymbl_kind nymbl__request_secret(struct curl_slist **list, const char *name,
                                 const char *value);
void nymbl__request_free(nymbl__request *request);

#endif
