/* SPDX-License-Identifier: MIT */
/* What a reply, or the lack of one, means for the call. */
#include "exchange/verdict.h"

#include "api/body.h"
#include "api/calls.h"
#include "base/error.h"
#include "exchange/exchange.h"
#include "exchange/head.h"
#include "exchange/sniff.h"
#include "exchange/url.h"
#include "file/save.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* ---- what a status means ---- */

bool nymbl__verdict_is_success(const nymbl_transfer *transfer)
{
    int status = transfer->head.status;

    switch (transfer->request.operation) {
    case NYMBL__UPLOAD: /* 200 or 201: the guide does not say which */
    case NYMBL__DELETE:
        return status >= 200 && status <= 299;
    case NYMBL__DOWNLOAD:
        return status == 200 || (status == 206 && transfer->range_asked);
    default:
        return status == 200;
    }
}

bool nymbl__verdict_refuses_range(const nymbl_transfer *transfer)
{
    int status = transfer->head.done ? transfer->head.status : 0;

    return transfer->range_asked && status != 401 && status != 429 &&
           ((status >= 400 && status <= 499) || status == 501);
}

bool nymbl__verdict_is_redirect(int status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 ||
           status == 308;
}

/* ---- the head and the first bytes ---- */

/* Bytes of the body that the head promises, or -1. */
int64_t nymbl__verdict_length(const nymbl__reply_head *head)
{
    if (head->chunked)
        return head->remapped_length;
    return head->length >= 0 ? head->length : head->remapped_length;
}

/* A part goes on only where the rest is of the same document as its beginning:
 * the range that was asked for, under the validator it was asked under. */
static void part_check(nymbl_transfer *transfer)
{
    const nymbl__reply_head *head = &transfer->head;
    const char *reason = NULL;
    nymbl_kind kind;

    if (head->status == 206) {
        const char *saved = nymbl__save_validator(transfer->save);
        const char *given = nymbl__head_validator(head);

        transfer->resumed_from = nymbl__save_offset(transfer->save);
        if (head->range_start != transfer->resumed_from ||
            (head->length >= 0 &&
             head->length != head->range_total - head->range_start) ||
            given == NULL || strcmp(given, saved) != 0)
            nymbl__transfer_failing(transfer, NYMBL_PROTOCOL, "range");
        else if (transfer->has_size && head->range_total != transfer->size)
            nymbl__transfer_failing(transfer, NYMBL_CORRUPT, "size");
        transfer->sniffed =
            nymbl__save_peek(transfer->save, transfer->sniff,
                             transfer->resumed_from < NYMBL__SNIFF
                                 ? (size_t)transfer->resumed_from
                                 : NYMBL__SNIFF);
        return;
    }
    kind = nymbl__save_restart(transfer->save, nymbl__head_validator(head),
                               &reason);
    if (kind < 0)
        nymbl__transfer_failing(transfer, kind, reason);
}

/* What there is to look at. */
static nymbl__look look_of(const nymbl_transfer *transfer, bool all)
{
    const nymbl__reply_head *head = &transfer->head;

    return (nymbl__look){
        .known = transfer->known_type,
        .given = head->content_type,
        .has_size = transfer->has_size,
        .has_length = transfer->has_size || nymbl__verdict_length(head) >= 0,
        .encoded = head->encoded,
        .bytes = transfer->sniff,
        .size = transfer->sniffed,
        .all = all,
    };
}

/* Why a response of another size is not the document: it is not a label then.
 */
static const char *size_reason(const nymbl__look *look)
{
    if (look->encoded)
        return "encoding";
    return nymbl__sniff_type(look->known, look->given) != NULL ? "type"
                                                               : "size";
}

void nymbl__verdict_head(nymbl_transfer *transfer)
{
    nymbl__reply_head *head = &transfer->head;
    int64_t length = nymbl__verdict_length(head);
    nymbl__look look;

    head->done = true;
    transfer->dirty = true;
    if (!nymbl__verdict_is_success(transfer)) {
        transfer->reply.max = NYMBL__ERROR_REPLY_MAX;
        return;
    }
    if (transfer->request.operation != NYMBL__DOWNLOAD) {
        nymbl__transfer_head_tell(transfer);
        return;
    }
    if (transfer->save != NULL)
        part_check(transfer);
    look = look_of(transfer, false);
    if (transfer->has_size && length >= 0 && /* no sum: it may be any number */
        length != transfer->size - transfer->resumed_from)
        nymbl__transfer_failing(transfer, NYMBL_CORRUPT, size_reason(&look));
    if (nymbl__sniff_is_clear(&look))
        nymbl__transfer_head_tell(transfer);
}

/* Look at the first bytes before anybody gets them. */
void nymbl__verdict_first_bytes(nymbl_transfer *transfer, bool all)
{
    nymbl__look look = look_of(transfer, all);
    const char *reason = NULL;
    nymbl_kind kind;

    if (transfer->released)
        return;
    kind = nymbl__sniff(&look, &reason);
    if (kind < 0) {
        nymbl__transfer_failing(transfer, kind, reason);
    } else if (kind == NYMBL_OK) {
        if (!transfer->head_told)
            nymbl__transfer_head_tell(transfer);
        transfer->released = true;
    }
}

/* ---- the end ---- */

/* X509_V_ERR_... as OpenSSL numbers them (x509_vfy.h);
 * CURLINFO_SSL_VERIFYRESULT hands them on. */
static const char *certificate_reason(long result)
{
    switch (result) {
    case 0: /* the chain is good: libcurl's own check of the name failed */
    case 1: /* the same: what libcurl 7.88 begins with, and leaves so */
    case 62:
        return "host_name";
    case 9:
        return "certificate_not_yet_valid";
    case 10:
        return "certificate_expired";
    case 18:
        return "certificate_self_signed";
    case 23:
        return "certificate_revoked";
    default:
        return "certificate_untrusted";
    }
}

static nymbl_kind tls_failure(nymbl_transfer *transfer, CURLcode code,
                              const char **reason)
{
    long result = 0;

    if (code == CURLE_SSL_CACERT_BADFILE) {
        *reason = "ca_file";
    } else if (code == CURLE_PEER_FAILED_VERIFICATION) {
        curl_easy_getinfo(transfer->easy, CURLINFO_SSL_VERIFYRESULT, &result);
        *reason = certificate_reason(result);
    } else if (strstr(transfer->errors, "protocol version") != NULL ||
               strstr(transfer->errors, "unsupported protocol") != NULL) {
        *reason = "protocol_version";
    } else {
        *reason = "handshake";
    }
    return NYMBL_TLS;
}

/* A connection that broke. In a body it makes the difference whether the peer
 * was cut off (network) or ended without having sent all (truncated). */
static nymbl_kind broken_connection(nymbl_transfer *transfer, CURLcode code,
                                    const char **reason)
{
    long number = 0;

    curl_easy_getinfo(transfer->easy, CURLINFO_OS_ERRNO, &number);
    if (!transfer->sent_this_hop && code != CURLE_GOT_NOTHING) {
        *reason = "connect";
        return NYMBL_NETWORK;
    }
    if (transfer->head.done && number != ECONNRESET && number != EPIPE &&
        code != CURLE_SEND_ERROR) {
        *reason = NULL;
        return NYMBL_TRUNCATED;
    }
    *reason = "reset";
    return NYMBL_NETWORK;
}

/* How many descriptors libcurl lacks at least one of if it fails with a code
 * for want of them. What it had opened until then is closed again. */
static int descriptors_needed(CURLcode code)
{
    switch (code) {
    case CURLE_COULDNT_CONNECT: /* a socket */
        return 1;
    case CURLE_SSL_CACERT_BADFILE: /* a socket and a file */
        return 2;
    case CURLE_COULDNT_RESOLVE_PROXY: /* its thread's sockets, /etc/hosts */
    case CURLE_COULDNT_RESOLVE_HOST:
        return 3;
    default:
        return 0;
    }
}

/* Whether the process has fewer descriptors left than so many, up to 3: libcurl
 * does not say why it could open no socket or file. */
static bool descriptors_are_out(int count)
{
    int opened[3], number = 0;
    bool out = false;

    while (number < count && !out) {
        opened[number] = open("/", O_RDONLY | O_CLOEXEC);
        out = opened[number] < 0 && (errno == EMFILE || errno == ENFILE);
        if (opened[number] < 0)
            break;
        number++;
    }
    while (number > 0)
        close(opened[--number]);
    return out;
}

/* What the headers of older versions lack. */
#define TOO_LARGE 100                               /* CURLE_TOO_LARGE, 8.6 */
#define USED_PROXY ((CURLINFO)(CURLINFO_LONG + 66)) /* 8.7 */

/* Whether it was a proxy that could not be reached. Before 8.7 only libcurl's
 * words tell: they name the host and port that it tried. */
static bool proxy_was_tried(const nymbl_transfer *transfer)
{
    static const char words[] = "Failed to connect to ";
    const char *host = strstr(transfer->errors, words);
    long used = 0;

    if (curl_easy_getinfo(transfer->easy, USED_PROXY, &used) == CURLE_OK)
        return used != 0;
    if (host == NULL)
        return false;
    return !nymbl__url_is_at(transfer->request.url, host + sizeof(words) - 1);
}

/* A proxy that cannot be reached, or does not let the request pass. */
static const char *proxy_failure(nymbl_transfer *transfer, CURLcode code)
{
    long status = 0;

    curl_easy_getinfo(transfer->easy, CURLINFO_HTTP_CONNECTCODE, &status);
    if (status >= 300 && status <= 999) {
        transfer->proxy_status = (int)status;
        return status == 407 ? "proxy_auth" : "proxy";
    }
    if (code == CURLE_PROXY || code == CURLE_COULDNT_RESOLVE_PROXY ||
        (code == CURLE_COULDNT_CONNECT && proxy_was_tried(transfer)))
        return "proxy";
    return NULL;
}

static nymbl_kind code_failure(nymbl_transfer *transfer, CURLcode code,
                               const char **reason)
{
    if (!transfer->sent_this_hop &&
        descriptors_are_out(descriptors_needed(code))) {
        *reason = "too_many_files";
        return NYMBL_IO;
    }
    if (!transfer->sent_this_hop) {
        *reason = proxy_failure(transfer, code);
        if (*reason != NULL)
            return NYMBL_NETWORK;
    }
    switch ((int)code) {
    case CURLE_COULDNT_RESOLVE_HOST:
        *reason = "resolve";
        return NYMBL_NETWORK;
    case CURLE_COULDNT_CONNECT:
        *reason = "connect";
        return NYMBL_NETWORK;
    case CURLE_PARTIAL_FILE:
        *reason = NULL;
        return NYMBL_TRUNCATED;
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_FAIL_REWIND:
    case CURLE_AGAIN:
        return broken_connection(transfer, code, reason);
    case CURLE_OPERATION_TIMEDOUT:
        *reason = "connect";
        return NYMBL_TIMEOUT;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ENGINE_NOTFOUND:
    case CURLE_SSL_ENGINE_SETFAILED:
    case CURLE_SSL_ENGINE_INITFAILED:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_SHUTDOWN_FAILED:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
    case CURLE_PEER_FAILED_VERIFICATION:
        return tls_failure(transfer, code, reason);
    case CURLE_BAD_CONTENT_ENCODING:
        *reason = "encoding";
        return transfer->request.operation == NYMBL__DOWNLOAD ? NYMBL_CORRUPT
                                                              : NYMBL_PROTOCOL;
    case CURLE_OUT_OF_MEMORY:
    case TOO_LARGE:
        /* what libcurl makes of a header line over its own limit */
        if (transfer->sent_this_hop && !transfer->head.done) {
            *reason = "head_too_long";
            return NYMBL_PROTOCOL;
        }
        return NYMBL_NO_MEMORY;
    default:
        *reason = "reply";
        return NYMBL_PROTOCOL;
    }
}

/* Hold a document against what was promised. */
static nymbl_kind document_verify(nymbl_transfer *transfer, const char **reason)
{
    nymbl__reply_head *head = &transfer->head;
    int64_t length = nymbl__verdict_length(head);
    int64_t got = transfer->hop_received;

    nymbl__verdict_first_bytes(transfer, true);
    if (transfer->failing != NYMBL_OK) {
        *reason = transfer->failing_reason;
        return transfer->failing;
    }
    if (length >= 0 && got < length)
        return NYMBL_TRUNCATED;
    /* An end that neither length nor chunks nor TLS tell is no end. */
    if (head->length < 0 && !head->chunked && !transfer->end_told) {
        *reason = "no_length";
        return NYMBL_TRUNCATED;
    }
    if ((length >= 0 && got != length) ||
        (transfer->has_size &&
         transfer->resumed_from + got != transfer->size) ||
        (head->status == 206 &&
         transfer->resumed_from + got != head->range_total)) {
        *reason = "size";
        return NYMBL_CORRUPT;
    }
    return NYMBL_OK;
}

nymbl_kind nymbl__verdict(nymbl_transfer *transfer, CURLcode code,
                          const char **reason)
{
    nymbl__reply_head *head = &transfer->head;

    *reason = NULL;
    if (transfer->failing != NYMBL_OK) {
        *reason = transfer->failing_reason;
        return transfer->failing;
    }
    if (head->done && !nymbl__verdict_is_success(transfer)) {
        if (nymbl__verdict_is_redirect(head->status)) {
            *reason = "not_followed";
            return NYMBL_REDIRECT;
        }
        if (nymbl__verdict_refuses_range(transfer))
            *reason = "range";
        /* the token endpoint's 400 is about the credentials (RFC 6749, 5.2) */
        if (transfer->request.operation == NYMBL__TOKEN && head->status == 400)
            return NYMBL_UNAUTHORIZED;
        return head->status == 429 && head->limit_exceeded
                   ? NYMBL_QUOTA
                   : nymbl__status_kind(head->status);
    }
    if (code != CURLE_OK)
        return code_failure(transfer, code, reason);
    if (!head->done) { /* libcurl takes a head that was cut for a whole one */
        *reason = "reset";
        return NYMBL_NETWORK;
    }
    if (transfer->request.operation == NYMBL__DOWNLOAD)
        return document_verify(transfer, reason);
    /* a label that nobody asked for (RFC 9110, section 12.5.3) may be wrong */
    if (head->encoded && transfer->reply.size > 0 &&
        !nymbl__sniff_is_json(transfer->reply.data, transfer->reply.size)) {
        *reason = "encoding";
        return NYMBL_PROTOCOL;
    }
    if (transfer->body != NULL && !nymbl__body_all_released(transfer->body)) {
        *reason = "early"; /* for a document that had not come yet */
        return NYMBL_PROTOCOL;
    }
    return NYMBL_OK;
}

/* Whether the upload or delete may have been carried out although it failed. */
bool nymbl__verdict_is_unknown(const nymbl_transfer *transfer, nymbl_kind kind)
{
    int status = transfer->head.done ? transfer->head.status : 0;

    if (transfer->request.operation != NYMBL__UPLOAD &&
        transfer->request.operation != NYMBL__DELETE)
        return false;
    if (!transfer->sent || (status >= 300 && status <= 499))
        return false;
    /* cut by ourselves before the last block: nobody has a whole request */
    if (transfer->body != NULL && status == 0 &&
        (kind == NYMBL_IO || kind == NYMBL_TOO_LARGE || kind == NYMBL_TIMEOUT ||
         kind == NYMBL_CANCELED || kind == NYMBL_NO_MEMORY))
        return nymbl__body_all_released(transfer->body);
    return true;
}
