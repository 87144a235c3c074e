/* SPDX-License-Identifier: MIT */
/* The reply's head: what of it matters, under one cap for all its bytes. */
#include "exchange/head.h"

#include "base/ascii.h"
#include "base/buffer.h"
#include "exchange/exchange.h"
#include "exchange/verdict.h"
#include "file/part.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

void nymbl__head_reset(nymbl__reply_head *head)
{
    size_t bytes = head->bytes; /* the cap is for all heads together */

    nymbl__secret_free(head->location); /* a signed URL, perhaps */
    *head = (nymbl__reply_head){
        .bytes = bytes,
        .length = -1,
        .remapped_length = -1,
        .retry_after = -1,
        .retry_date = -1,
        .range_start = -1,
        .range_total = -1,
    };
}

static bool is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

/* Read decimal digits and step over them: their number, or -1 if there are
 * none. A number that is too large for the type becomes INT64_MAX, so that no
 * body is ever long enough for it. */
static int64_t digits_read(const char **at)
{
    const char *text = *at;
    int64_t value = 0;

    if (!is_digit(*text))
        return -1;
    for (; is_digit(*text); text++) {
        int digit = *text - '0';

        value =
            value > (INT64_MAX - digit) / 10 ? INT64_MAX : value * 10 + digit;
    }
    *at = text;
    return value;
}

/* A whole non-negative decimal number, or -1. */
static int64_t number_parse(const char *text)
{
    int64_t value = digits_read(&text);

    return *text == '\0' ? value : -1;
}

/* A length: one number, or a list of the same one (RFC 9112, section 6.3). -1
 * if it is neither. */
static int64_t length_parse(const char *text)
{
    int64_t value = digits_read(&text);

    while (value >= 0 && *text != '\0') {
        text += strspn(text, " \t");
        if (*text++ != ',')
            return -1;
        text += strspn(text, " \t");
        if (digits_read(&text) != value)
            return -1;
    }
    return value;
}

/* The status of a line such as "HTTP/1.1 200 OK" (RFC 9112, section 4), or 0.
 * It has exactly three digits. The line does not end in a NUL. */
static int status_parse(const char *line, size_t size)
{
    static const char version[] = "HTTP/1.";
    size_t at = sizeof(version); /* behind the digit that follows it */
    int status = 0;

    if (size <= at || memcmp(line, version, sizeof(version) - 1) != 0 ||
        !is_digit(line[at - 1]) || line[at] != ' ')
        return 0;
    while (at < size && line[at] == ' ')
        at++;
    if (size - at < 3)
        return 0;
    for (size_t end = at + 3; at < end; at++) {
        if (!is_digit(line[at]))
            return 0;
        status = status * 10 + (line[at] - '0');
    }
    if (at < size && line[at] != ' ' && line[at] != '\r' && line[at] != '\n')
        return 0;
    return status >= 100 ? status : 0;
}

/* No longer wait is meant: 2^31 seconds (as RFC 9111, section 1.2.2). */
#define RETRY_AFTER_MAX 2147483648.0

/* Seconds or a date (RFC 9110, section 10.2.3). Each is the least wait that is
 * asked for, so if there are several ("5, 10" too), the longest counts. */
static void retry_after_take(nymbl__reply_head *head, const char *text)
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
            head->retry_after = seconds; /* its last digit */
    }
}

/* A date means the clock of whoever wrote it: the response's Date, which may
 * stand behind it, or ours if there is none. So it is done at the end. */
static void retry_date_settle(nymbl__reply_head *head)
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

static void type_parse(nymbl__reply_head *head, const char *value)
{
    size_t length = strlen(value);

    if (length == 0 || length >= sizeof(head->content_type))
        return;
    memcpy(head->content_type, value, length + 1);
    head->has_type = true;
}

/* Keep a validator or date as it came. The last one counts; if it is too long,
 * none is kept. */
static void text_keep(char *field, const char *value)
{
    size_t length = strlen(value);

    if (length >= NYMBL__VALIDATOR_MAX)
        length = 0;
    memcpy(field, value, length);
    field[length] = '\0';
}

static bool is_letter(char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
}

/* Whether text has the form of a pattern, in which 'a' stands for a letter, '0'
 * for a digit, '_' for a digit or a blank, and all else for itself. */
static bool text_has_form(const char *text, const char *pattern)
{
    for (; *pattern != '\0'; pattern++, text++) {
        bool fits = *text == *pattern;

        if (*pattern == 'a')
            fits = is_letter(*text);
        else if (*pattern == '0')
            fits = is_digit(*text);
        else if (*pattern == '_')
            fits = is_digit(*text) || *text == ' ';
        if (!fits)
            return false;
    }
    return *text == '\0';
}

/* HTTP-date in its three forms (RFC 9110, section 5.6.7). */
static bool is_date(const char *text)
{
    const char *day = text;

    while (is_letter(*day)) /* the second form has the day's full name */
        day++;
    return text_has_form(text, "aaa, 00 aaa 0000 00:00:00 GMT") ||
           (day - text >= 6 &&
            text_has_form(day, ", 00-aaa-00 00:00:00 GMT")) ||
           text_has_form(text, "aaa aaa _0 00:00:00 0000");
}

/* A strong entity-tag: etagc between quotes (RFC 9110, section 8.8.3). */
static bool is_strong_tag(const char *text)
{
    size_t length = strlen(text);

    if (length < 2 || text[0] != '"' || text[length - 1] != '"')
        return false;
    for (size_t i = 1; i < length - 1; i++) {
        unsigned char byte = (unsigned char)text[i];

        if (byte <= ' ' || byte == '"' || byte == 0x7f)
            return false;
    }
    return true;
}

bool nymbl__is_validator(const char *text)
{
    return is_strong_tag(text) || is_date(text);
}

/* "bytes 5-9/10" (RFC 9110, section 14.4), the one range up to the end. */
static void range_parse(nymbl__reply_head *head, const char *value)
{
    char text[NYMBL__VALIDATOR_MAX] = "";
    char *dash, *slash;
    int64_t start, last, total;

    text_keep(text, value);
    dash = strchr(text, '-');
    slash = strchr(text, '/');
    if (!nymbl__ascii_begins(text, "bytes ", 6) || dash == NULL ||
        slash == NULL)
        return;
    *dash = *slash = '\0';
    start = number_parse(text + 6);
    last = number_parse(dash + 1);
    total = number_parse(slash + 1);
    if (start < 0 || total < 0 || last != total - 1)
        return;
    head->range_start = start;
    head->range_total = total;
}

const char *nymbl__head_validator(const nymbl__reply_head *head)
{
    time_t modified, date;

    if (is_strong_tag(head->etag))
        return head->etag;
    if (*head->etag != '\0') /* a weak one says that bytes may differ */
        return NULL;
    if (!is_date(head->modified) || !is_date(head->date))
        return NULL;
    modified = curl_getdate(head->modified, NULL);
    date = curl_getdate(head->date, NULL);
    /* strong where it could not have changed again in that second (8.8.2.2) */
    if (modified != -1 && date != -1 && difftime(date, modified) >= 1)
        return head->modified;
    return NULL;
}

/* A coding other than none, where none was asked for. */
static bool coding_is_identity(const char *value)
{
    return *value == '\0' || nymbl__ascii_equal(value, "identity");
}

/* The fields that matter, and what else stands at the beginning of a line. */
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
    FIELD_STATUS, /* the status line */
};

static enum field field_find(const char *name, size_t length)
{
#define NAME(text) text, sizeof(text) - 1
    static const struct {
        const char *name;
        size_t length;
        enum field field;
    } known[] = {
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
    };
#undef NAME

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (known[i].length == length &&
            nymbl__ascii_begins(known[i].name, name, length))
            return known[i].field;
    }
    return FIELD_OTHER;
}

static void nonsense(nymbl_transfer *transfer)
{
    nymbl__transfer_failing(transfer, NYMBL_PROTOCOL, "reply");
}

/* Whether the head gives the body two different ends. If it does, nobody knows
 * where the body ends, and a gateway may have been misled (RFC 9112, section
 * 6.3). */
static bool lengths_disagree(const nymbl__reply_head *head)
{
    if (head->length < 0)
        return false;
    return head->chunked || (head->remapped_length >= 0 &&
                             head->remapped_length != head->length);
}

static void length_take(nymbl_transfer *transfer, int64_t *field,
                        const char *value)
{
    int64_t length = length_parse(value);

    if (length < 0 || (*field >= 0 && *field != length))
        nonsense(transfer);
    *field = length;
    if (lengths_disagree(&transfer->head))
        nonsense(transfer);
}

/* The transfer coding is judged here, whatever the status, since libcurl's
 * verdict depends on its version. Nobody asked for any coding but chunked,
 * which is applied once (RFC 9112, sections 7 and 7.4). */
static void coding_take(nymbl_transfer *transfer, const char *value)
{
    nymbl__reply_head *head = &transfer->head;
    bool chunked = nymbl__ascii_equal(value, "chunked");

    if (head->chunked || !(chunked || coding_is_identity(value)))
        nymbl__transfer_failing(transfer,
                                transfer->request.operation == NYMBL__DOWNLOAD
                                    ? NYMBL_CORRUPT
                                    : NYMBL_PROTOCOL,
                                "encoding");
    head->chunked = chunked;
    if (lengths_disagree(head))
        nonsense(transfer);
}

/* One target; it may be given twice. */
static void location_take(nymbl_transfer *transfer, const char *value)
{
    nymbl__reply_head *head = &transfer->head;

    if (head->location == NULL) {
        if (nymbl__text_copy(&head->location, value) < 0)
            nymbl__transfer_failing(transfer, NYMBL_NO_MEMORY, NULL);
    } else if (strcmp(head->location, value) != 0) {
        nonsense(transfer);
    }
}

static void field_take(nymbl_transfer *transfer, enum field field,
                       const char *value)
{
    nymbl__reply_head *head = &transfer->head;

    switch (field) {
    case FIELD_CONTENT_LENGTH:
        length_take(transfer, &head->length, value);
        break;
    case FIELD_REMAPPED_LENGTH:
        length_take(transfer, &head->remapped_length, value);
        break;
    case FIELD_TRANSFER_ENCODING:
        coding_take(transfer, value);
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
        text_keep(head->etag, value);
        break;
    case FIELD_LAST_MODIFIED:
        text_keep(head->modified, value);
        break;
    case FIELD_DATE:
        text_keep(head->date, value);
        break;
    case FIELD_RETRY_AFTER:
        retry_after_take(head, value);
        break;
    case FIELD_ERROR_TYPE:
        head->limit_exceeded =
            nymbl__ascii_begins(value, "LimitExceededException", 22);
        break;
    case FIELD_LOCATION:
        location_take(transfer, value);
        break;
    default:
        break;
    }
}

/* Split "Name: value"; other lines are ignored. Only the value of a field that
 * matters is copied. It may be a signed URL, so the copy is wiped. */
static void line_take(nymbl_transfer *transfer, const char *data, size_t size)
{
    nymbl__reply_head *head = &transfer->head;
    const char *colon = memchr(data, ':', size);
    const char *end = data + size, *value = colon, *name;
    char *text;

    /* A folded line continues the previous one (RFC 9112, section 5.2), whose
     * value is then not known. After the status line it continues nothing. */
    if (*data == ' ' || *data == '\t') {
        if (head->field != FIELD_OTHER)
            nonsense(transfer);
        return;
    }
    for (name = colon; name > data && (name[-1] == ' ' || name[-1] == '\t');)
        name--;
    head->field =
        colon == NULL ? FIELD_OTHER : field_find(data, (size_t)(name - data));
    if (head->field == FIELD_OTHER)
        return;
    /* A proxy takes it for that field (section 5.1), libcurl does not. */
    if (name != colon) {
        nonsense(transfer);
        return;
    }
    for (value++; value < end && (*value == ' ' || *value == '\t'); value++)
        ;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t' ||
                           end[-1] == '\r' || end[-1] == '\n'))
        end--;
    size = (size_t)(end - value);
    if (memchr(value, '\0', size) != NULL) {
        nonsense(transfer);
        return;
    }
    text = malloc(size + 1);
    if (text == NULL) {
        nymbl__transfer_failing(transfer, NYMBL_NO_MEMORY, NULL);
        return;
    }
    memcpy(text, value, size);
    text[size] = '\0';
    field_take(transfer, head->field, text);
    nymbl__wipe(text, size);
    free(text);
}

/* The line that each head begins with. */
static void status_take(nymbl_transfer *transfer, const char *data, size_t size)
{
    nymbl__head_reset(&transfer->head);
    transfer->head.status = status_parse(data, size);
    transfer->head.field = FIELD_STATUS;
    /* 101: to what nobody asked for (RFC 9110, section 7.8) */
    if (transfer->head.status == 0 || transfer->head.status == 101)
        nonsense(transfer);
}

/* An empty line: the end of the final head, or of one before it. */
static void head_end(nymbl_transfer *transfer)
{
    retry_date_settle(&transfer->head);
    if (transfer->head.status >= 200)
        nymbl__verdict_head(transfer);
    else
        transfer->head.status = 0;
}

size_t nymbl__head_line(char *data, size_t size, size_t count, void *payload)
{
    nymbl_transfer *transfer = payload;
    nymbl__reply_head *head = &transfer->head;

    size *= count;
    nymbl__transfer_moved(transfer);
    head->bytes += size;
    if (head->bytes > NYMBL__HEAD_MAX) {
        nymbl__transfer_failing(transfer, NYMBL_PROTOCOL, "head_too_long");
        return 0;
    }
    if (head->done || size == 0)
        return size; /* trailers say nothing that we believe */
    if (head->status == 0)
        status_take(transfer, data, size);
    else if (*data == '\n' || (size == 2 && memcmp(data, "\r\n", 2) == 0))
        head_end(transfer);
    else if (*data == '\r' || (size > 5 && memcmp(data, "HTTP/", 5) == 0))
        nonsense(
            transfer); /* libcurl ends a head at any line with a CR first */
    else
        line_take(transfer, data, size);
    return transfer->failing == NYMBL_OK ? size : 0;
}
