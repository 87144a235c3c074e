/* SPDX-License-Identifier: MIT */
/* A request as data: built by the functions that start a call, read by the I/O
 * thread. */
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

/* Fields of the multipart body around the file. Strings are owned. */
typedef struct nymbl__form {
    char *file_name;
    char *content_type;
    char *document_type;
    char *description;
} nymbl__form;

typedef struct nymbl__request {
    nymbl__operation operation;
    char *url;
    char *token_body; /* body of a token request */
    char *proxy;      /* copied, because a closed client wipes its own */
    struct curl_slist *secrets; /* header lines; the tail is `headers` */
    struct curl_slist *headers;
    nymbl__form form;
    bool expect_continue;
} nymbl__request;

/* Append a header line. */
nymbl_kind nymbl__request_add_header(struct curl_slist **list,
                                     const char *line);
/* Append a header line with a secret value. No other copy of it stays in
 * memory. */
nymbl_kind nymbl__request_add_secret(struct curl_slist **list, const char *name,
                                     const char *value);
void nymbl__request_free(nymbl__request *request);

#endif
