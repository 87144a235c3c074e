/* SPDX-License-Identifier: MIT */
/* Parsing of response heads. All heads of a transfer share one size limit. */
#include "exchange/head.h"

#include "base/ascii.h"
#include "base/error.h"
#include "base/secret.h"
#include "base/text.h"
#include "base/validator.h"
#include "exchange/content_range.h"
#include "exchange/value.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void nymbl__head_reset(nymbl__response_head *head)
{
    size_t bytes = head->bytes; /* the limit applies to all heads together */
    const char *sent_id = head->sent_id;

    nymbl__secret_free(head->location); /* it may be a signed URL */
    *head = (nymbl__response_head){
        .bytes = bytes,
        .length = -1,
        .remapped_length = -1,
        .retry_after = -1,
        .retry_date = -1,
        .range_start = -1,
        .range_last = -1,
        .range_total = -1,
        .sent_id = sent_id,
    };
}

/* Longer delays count as this one: 2^31 seconds (as in RFC 9111, section
 * 1.2.2). */
#define RETRY_AFTER_MAX 2147483648.0

/* Parse Retry-After: seconds or a date (RFC 9110, section 10.2.3). Each value
 * is a minimum delay, so the longest of several values (or of a list such as
 * "5, 10") counts. */
static void retry_after_parse(nymbl__response_head *head, const char *text)
{
    double seconds = -1;
    time_t date;

    if (text[strspn(text, "0123456789, \t")] != '\0') {
        date = curl_getdate(text, NULL);
        if (date > head->retry_date)
            head->retry_date = date;
        return;
    }
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9') {
            seconds = -1;
            continue;
        }
        seconds = (seconds < 0 ? 0 : seconds * 10) + (*text - '0');
        if (seconds > RETRY_AFTER_MAX)
            seconds = RETRY_AFTER_MAX;
        if (text[1] < '0' && seconds > head->retry_after)
            head->retry_after = seconds; /* the number is complete */
    }
}

/* Convert Retry-After's date to a delay, by the sender's clock: the field Date,
 * or the local time if that is missing. Date may follow Retry-After, so call
 * this at the end of the head. */
static void retry_date_apply(nymbl__response_head *head)
{
    time_t now;
    double seconds;

    if (head->retry_date == -1)
        return;
    now = *head->date != '\0' ? curl_getdate(head->date, NULL) : -1;
    seconds = difftime(head->retry_date, now != -1 ? now : time(NULL));
    if (seconds < 0)
        seconds = 0;
    if (seconds > RETRY_AFTER_MAX)
        seconds = RETRY_AFTER_MAX;
    if (seconds > head->retry_after)
        head->retry_after = seconds;
}

static void type_parse(nymbl__response_head *head, const char *value)
{
    size_t length = strlen(value);

    if (length == 0 || length >= sizeof(head->content_type))
        return;
    memcpy(head->content_type, value, length + 1);
    head->has_type = true;
}

/* Copy a validator or date unchanged. An overlong one cannot be compared, and
 * of two different ones neither can be trusted: these become "?", which is
 * neither a tag nor a date. */
static void validator_copy(char *field, size_t size, const char *value)
{
    if (strlen(value) >= size || (*field != '\0' && strcmp(field, value) != 0))
        value = "?";
    memcpy(field, value, strlen(value) + 1);
}

/* Copy the service's id of the request. An echo of the id that was sent is
 * ignored, and so is a value that is too long or not visible ASCII. The gateway
 * adds x-amzn-RequestId to the service's own fields, so `first` replaces an id
 * from another field. */
static void request_id_copy(nymbl__response_head *head, const char *value,
                            bool first)
{
    size_t length = strlen(value);

    if (length == 0 || length > NYMBL_REQUEST_ID_MAX ||
        (!first && *head->request_id != '\0') ||
        (head->sent_id != NULL && strcmp(value, head->sent_id) == 0))
        return;
    for (size_t i = 0; i < length; i++)
        if (value[i] < '!' || value[i] > '~')
            return;
    memcpy(head->request_id, value, length + 1);
}

int64_t nymbl__head_length(const nymbl__response_head *head)
{
    if (head->chunked)
        return head->remapped_length;
    return head->length >= 0 ? head->length : head->remapped_length;
}

const char *nymbl__head_validator(const nymbl__response_head *head)
{
    time_t modified, date;

    if (nymbl__validator_is_strong_tag(head->etag))
        return head->etag;
    if (*head->etag != '\0') /* equal weak tags do not prove equal bytes */
        return NULL;
    if (!nymbl__validator_is_date(head->modified) ||
        !nymbl__validator_is_date(head->date))
        return NULL;
    modified = curl_getdate(head->modified, NULL);
    date = curl_getdate(head->date, NULL);
    /* The date is strong if the document cannot have changed twice within one
     * second (section 8.8.2.2). */
    if (modified != -1 && date != -1 && difftime(date, modified) >= 1)
        return head->modified;
    return NULL;
}

/* Whether a content or transfer coding means that the bytes are unchanged. */
static bool coding_is_identity(const char *value)
{
    return *value == '\0' || nymbl__ascii_equal(value, "identity");
}

/* The kinds of lines: one for each field that is parsed. */
enum field {
    FIELD_OTHER,
    FIELD_CONTENT_LENGTH,
    FIELD_REMAPPED_LENGTH,
    FIELD_TRANSFER_ENCODING,
    FIELD_CONTENT_TYPE,
    FIELD_CONTENT_ENCODING,
    FIELD_CONTENT_RANGE,
    FIELD_ETAG,
    FIELD_LAST_MODIFIED,
    FIELD_DATE,
    FIELD_RETRY_AFTER,
    FIELD_ERROR_TYPE,
    FIELD_LOCATION,
    FIELD_GATEWAY_REQUEST_ID,
    FIELD_REQUEST_ID,
    FIELD_STATUS, /* the status line */
};

static enum field field_find(const char *name, size_t length)
{
#define NAME(text) text, sizeof(text) - 1
    static const struct {
        const char *name;
        size_t length;
        enum field field;
    } fields[] = {
        {NAME("content-length"), FIELD_CONTENT_LENGTH},
        {NAME("x-amzn-remapped-content-length"), FIELD_REMAPPED_LENGTH},
        {NAME("transfer-encoding"), FIELD_TRANSFER_ENCODING},
        {NAME("content-type"), FIELD_CONTENT_TYPE},
        {NAME("content-encoding"), FIELD_CONTENT_ENCODING},
        {NAME("content-range"), FIELD_CONTENT_RANGE},
        {NAME("etag"), FIELD_ETAG},
        {NAME("last-modified"), FIELD_LAST_MODIFIED},
        {NAME("date"), FIELD_DATE},
        {NAME("retry-after"), FIELD_RETRY_AFTER},
        {NAME("x-amzn-errortype"), FIELD_ERROR_TYPE},
        {NAME("location"), FIELD_LOCATION},
        {NAME("x-amzn-requestid"), FIELD_GATEWAY_REQUEST_ID},
        {NAME("apigw-requestid"), FIELD_REQUEST_ID},
        {NAME("x-amz-request-id"), FIELD_REQUEST_ID},
        {NAME("x-request-id"), FIELD_REQUEST_ID},
        {NAME("request-id"), FIELD_REQUEST_ID},
    };
#undef NAME

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (fields[i].length == length &&
            nymbl__ascii_begins(fields[i].name, name, length))
            return fields[i].field;
    }
    return FIELD_OTHER;
}

/* Record a problem. Later problems are ignored. */
static void head_fail(nymbl__response_head *head, nymbl_kind kind,
                      const char *reason)
{
    if (head->problem != NYMBL_OK)
        return;
    head->problem = kind;
    head->problem_reason = reason;
}

static void head_reject(nymbl__response_head *head)
{
    head_fail(head, NYMBL_PROTOCOL, nymbl__reason_bad_response);
}

/* Whether fields contradict each other about the length of the body. Then a
 * gateway may find another end of the body (request smuggling; RFC 9112,
 * section 6.3). */
static bool lengths_disagree(const nymbl__response_head *head)
{
    if (head->length < 0)
        return false;
    return head->chunked || (head->remapped_length >= 0 &&
                             head->remapped_length != head->length);
}

static void length_parse(nymbl__response_head *head, int64_t *field,
                         const char *value)
{
    int64_t length = nymbl__value_parse_length(value);

    if (length < 0 || (*field >= 0 && *field != length))
        head_reject(head);
    *field = length;
    if (lengths_disagree(head))
        head_reject(head);
}

/* Transfer-Encoding is checked here, whatever the status, because libcurl's own
 * check depends on its version. No coding was requested, so only chunked,
 * applied once, is valid (RFC 9112, sections 7 and 7.4). */
static void coding_parse(nymbl__response_head *head, const char *value)
{
    bool chunked = nymbl__ascii_equal(value, "chunked");

    if (head->chunked || !(chunked || coding_is_identity(value)))
        head_fail(head, NYMBL_CORRUPT, nymbl__reason_transfer_encoding);
    head->chunked = chunked;
    if (lengths_disagree(head))
        head_reject(head);
}

/* Parse Location. An equal duplicate is accepted. */
static void location_parse(nymbl__response_head *head, const char *value)
{
    if (head->location == NULL) {
        if (nymbl__text_copy(&head->location, value) < 0)
            head_fail(head, NYMBL_NO_MEMORY, NULL);
    } else if (strcmp(head->location, value) != 0) {
        head_reject(head);
    }
}

/* Parse Content-Range. An equal duplicate is accepted. Of two different ranges
 * one is not that of the bytes, so both are invalid. */
static void range_parse(nymbl__response_head *head, const char *value)
{
    int64_t start, last, total;

    nymbl__content_range_parse(value, &start, &last, &total);
    if (head->has_range &&
        (start != head->range_start || last != head->range_last ||
         total != head->range_total))
        start = last = total = -1;
    head->has_range = true;
    head->range_start = start;
    head->range_last = last;
    head->range_total = total;
}

static void field_parse(nymbl__response_head *head, enum field field,
                        const char *value)
{
    switch (field) {
    case FIELD_CONTENT_LENGTH:
        length_parse(head, &head->length, value);
        break;
    case FIELD_REMAPPED_LENGTH:
        length_parse(head, &head->remapped_length, value);
        break;
    case FIELD_TRANSFER_ENCODING:
        coding_parse(head, value);
        break;
    case FIELD_CONTENT_TYPE:
        type_parse(head, value);
        break;
    case FIELD_CONTENT_ENCODING:
        head->encoded = head->encoded || !coding_is_identity(value);
        break;
    case FIELD_CONTENT_RANGE:
        range_parse(head, value);
        break;
    case FIELD_ETAG:
        validator_copy(head->etag, sizeof(head->etag), value);
        break;
    case FIELD_LAST_MODIFIED:
        validator_copy(head->modified, sizeof(head->modified), value);
        break;
    case FIELD_DATE:
        validator_copy(head->date, sizeof(head->date), value);
        break;
    case FIELD_RETRY_AFTER:
        retry_after_parse(head, value);
        break;
    case FIELD_ERROR_TYPE:
        head->limit_exceeded =
            nymbl__ascii_begins(value, "LimitExceededException", 22);
        break;
    case FIELD_LOCATION:
        location_parse(head, value);
        break;
    case FIELD_GATEWAY_REQUEST_ID:
        request_id_copy(head, value, true);
        break;
    case FIELD_REQUEST_ID:
        request_id_copy(head, value, false);
        break;
    default:
        break;
    }
}

/* Parse a line "Name: value"; other lines are ignored. The value of a known
 * field is copied; the copy is wiped, because it may be a signed URL. */
static void line_parse(nymbl__response_head *head, const char *data,
                       size_t size)
{
    const char *colon = memchr(data, ':', size);
    const char *end = data + size, *value = colon, *name;
    char *text;

    /* A folded line continues the value of the previous line (RFC 9112, section
     * 5.2), which was parsed without it. So the head is rejected if the
     * previous line is a known field or the status line. */
    if (*data == ' ' || *data == '\t') {
        if (head->field != FIELD_OTHER)
            head_reject(head);
        return;
    }
    for (name = colon; name > data && (name[-1] == ' ' || name[-1] == '\t' ||
                                       name[-1] == '\r');)
        name--;
    head->field =
        colon == NULL ? FIELD_OTHER : field_find(data, (size_t)(name - data));
    if (head->field == FIELD_OTHER)
        return;
    /* Some proxies accept blanks before the colon (section 5.1), a CR alone
     * being one (section 2.2), and libcurl does not, so they would read
     * different heads. */
    if (name != colon) {
        head_reject(head);
        return;
    }
    for (value++; value < end && (*value == ' ' || *value == '\t'); value++)
        ;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t' ||
                           end[-1] == '\r' || end[-1] == '\n'))
        end--;
    size = (size_t)(end - value);
    if (memchr(value, '\0', size) != NULL) {
        head_reject(head);
        return;
    }
    text = malloc(size + 1);
    if (text == NULL) {
        head_fail(head, NYMBL_NO_MEMORY, NULL);
        return;
    }
    memcpy(text, value, size);
    text[size] = '\0';
    field_parse(head, head->field, text);
    nymbl__secret_wipe(text, size);
    free(text);
}

/* Parse the status line. */
static void status_parse(nymbl__response_head *head, const char *data,
                         size_t size)
{
    nymbl__head_reset(head);
    head->status = nymbl__value_parse_status(data, size);
    head->field = FIELD_STATUS;
    /* 101 is invalid, because no upgrade was requested (RFC 9110, section 7.8)
     */
    if (head->status == 0 || head->status == 101)
        head_reject(head);
}

/* Process the empty line at the end of a final head or an interim (1xx) one. */
static void head_end(nymbl__response_head *head)
{
    retry_date_apply(head);
    if (head->status >= 200)
        head->done = true;
    else
        head->status = 0;
}

nymbl_kind nymbl__head_add_line(nymbl__response_head *head, const char *data,
                                size_t size, const char **reason)
{
    head->bytes += size;
    if (head->bytes > NYMBL__HEAD_MAX) {
        *reason = nymbl__reason_head_too_long;
        return NYMBL_PROTOCOL;
    }
    if (head->done || size == 0)
        return NYMBL_OK; /* trailers are ignored */
    if (head->status == 0)
        status_parse(head, data, size);
    else if (*data == '\n' || (size == 2 && memcmp(data, "\r\n", 2) == 0))
        head_end(head);
    else if (*data == '\r' || (size > 5 && memcmp(data, "HTTP/", 5) == 0))
        head_reject(head); /* libcurl would end the head at such a line */
    else
        line_parse(head, data, size);
    *reason = head->problem_reason;
    if (head->problem < 0)
        return head->problem;
    return head->done ? NYMBL_DONE : NYMBL_OK;
}
