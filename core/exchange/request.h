/* SPDX-License-Identifier: MIT */
/* A request as the exchange sends it. It is built before the start (`api/`) and
 * read on the wire; only a redirect changes it. */
#ifndef NYMBL_EXCHANGE_REQUEST_H
#define NYMBL_EXCHANGE_REQUEST_H

#include "nymbl.h"

#include <curl/curl.h>

/* The text fields of a multipart body, and the head of its file; owned. */
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
    char *token_body; /* of a token request */
    nymbl__form form; /* of an upload */
    bool expect_continue;
    char *proxy; /* a copy: the client wipes its own when it is closed */
    /* Header lines for the service alone: secrets and the caller's own. The
     * list continues with `headers`. */
    struct curl_slist *service_headers;
    /* Header lines that are sent to other origins, too. */
    struct curl_slist *headers;
} nymbl__request;

/* Whether it changes nothing on the service (RFC 9110, section 9.2.1), so that
 * its outcome is never unknown. */
bool nymbl__request_is_safe(const nymbl__request *request);
/* Whether sending it twice has the effect of sending it once (section 9.2.2).
 */
bool nymbl__request_is_idempotent(const nymbl__request *request);
/* Append a header line to a list: a text that continues with two others, which
 * may be "". No other copy of the line remains in memory. */
nymbl_kind nymbl__request_add_header(struct curl_slist **list, const char *text,
                                     const char *second, const char *third);
/* The lines to send: all, or those for any origin. */
struct curl_slist *nymbl__request_headers(const nymbl__request *request,
                                          bool cross_origin);
/* Let `service_headers` continue with `headers`, once both are complete. */
void nymbl__request_join_headers(nymbl__request *request);
void nymbl__request_free(nymbl__request *request);

#endif
