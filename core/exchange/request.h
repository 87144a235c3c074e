/* SPDX-License-Identifier: MIT */
/* A request as the exchange sends it. The functions in api/ build it before the
 * start; later only a redirect changes it. */
#ifndef NYMBL_EXCHANGE_REQUEST_H
#define NYMBL_EXCHANGE_REQUEST_H

#include "nymbl.h"

#include <curl/curl.h>

/* The fields of a multipart body, except the content of the file; owned. */
typedef struct nymbl__form {
    char *file_name;
    char *content_type;
    char *document_type;
    char *description;
} nymbl__form;

typedef struct nymbl__request {
    nymbl_method method;
    nymbl_expected expected;
    bool is_token; /* a token request (RFC 6749, section 4.4.2) */
    char *url;
    char *token_body;     /* the body of a token request */
    nymbl__form form;     /* the fields of an upload */
    bool expect_continue; /* send `Expect: 100-continue` */
    char *proxy; /* a copy, because a closed client wipes its own proxy */
    /* Header lines that are sent only to the service: the secrets and the
     * caller's lines, followed by `headers`. */
    struct curl_slist *service_headers;
    /* Header lines that are sent to any origin. */
    struct curl_slist *headers;
} nymbl__request;

/* Whether a request changes nothing on the service (RFC 9110, section 9.2.1),
 * so that its outcome is never unknown. */
bool nymbl__request_is_safe(const nymbl__request *request);
/* Whether a request has the same effect if it is sent twice (RFC 9110, section
 * 9.2.2). */
bool nymbl__request_is_idempotent(const nymbl__request *request);
/* Append a header line to a list: three texts, joined. No other copy of the
 * line remains in memory. */
nymbl_kind nymbl__request_add_header(struct curl_slist **list,
                                     const char *first, const char *second,
                                     const char *third);
/* The header lines to send to the service, or after a redirect to another
 * origin. */
struct curl_slist *nymbl__request_headers(const nymbl__request *request,
                                          bool cross_origin);
/* The x-request-id in `service_headers`, or NULL; borrowed. */
const char *nymbl__request_sent_id(const nymbl__request *request);
/* Append `headers` to `service_headers`. Call this once both are complete. */
void nymbl__request_join_headers(nymbl__request *request);
void nymbl__request_free(nymbl__request *request);

#endif
