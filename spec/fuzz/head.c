/* SPDX-License-Identifier: MIT */
/* Response heads, read by nymbl__head_add_line(). The input is what a server
 * sends, up to the end of its final head. */
#include "exchange/head.h"
#include "fuzz.h"
#include "model.h"

#include "base/secret.h"
#include "base/validator.h"

/* A way to write the same head in other bytes. */
enum variant { AS_IT_IS, OTHER_CASE, WITH_UNKNOWN_FIELDS, VARIANTS };

static unsigned accepted, rejected, unfinished, resumable;

typedef struct result {
    nymbl__response_head head;
    nymbl_kind kind;
    const char *reason;
    size_t taken; /* bytes up to the end of the final head */
} result;

static nymbl_kind add(result *out, const char *line, size_t size)
{
    return nymbl__head_add_line(&out->head, line, size, &out->reason);
}

/* Add a line whose field name is in the other case. */
static nymbl_kind add_other_case(result *out, const uint8_t *line, size_t size)
{
    char *text = text_of(line, size);
    char *colon =
        strncmp(text, "HTTP/", 5) == 0 || strncmp(text, "http/", 5) == 0
            ? NULL
            : memchr(text, ':', size);
    nymbl_kind kind;

    for (char *at = text; colon != NULL && at < colon; at++) {
        if ((*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z'))
            *at ^= 0x20;
    }
    kind = add(out, text, size);
    free(text);
    return kind;
}

static void head_read(result *out, const uint8_t *data, size_t size,
                      enum variant variant)
{
    const uint8_t *end;

    memset(out, 0, sizeof(*out));
    nymbl__head_reset(&out->head);
    out->kind = NYMBL_OK;
    while (out->kind == NYMBL_OK && size > 0 &&
           (end = memchr(data, '\n', size)) != NULL) {
        size_t length = (size_t)(end - data) + 1;
        bool is_first = out->head.status == 0;
        bool is_folded = *data == ' ' || *data == '\t';

        if (variant == WITH_UNKNOWN_FIELDS && !is_first && !is_folded)
            out->kind = add(out, "X-Other: a, 1\r\n", 15);
        if (out->kind < 0)
            break;
        if (variant == OTHER_CASE && !is_first && !is_folded)
            out->kind = add_other_case(out, data, length);
        else
            out->kind = add(out, (const char *)data, length);
        out->taken += length;
        data += length;
        size -= length;
    }
}

static void result_free(result *result)
{
    nymbl__secret_free(result->head.location);
}

static bool is_same_text(const char *a, const char *b)
{
    return (a == NULL) == (b == NULL) && (a == NULL || strcmp(a, b) == 0);
}

static void require_same(const result *a, const result *b)
{
    const nymbl__response_head *one = &a->head, *two = &b->head;

    require(a->kind == b->kind && is_same_text(a->reason, b->reason),
            "kind of a variant");
    require(a->taken == b->taken && one->status == two->status,
            "status of a variant");
    require(one->length == two->length && one->chunked == two->chunked &&
                one->remapped_length == two->remapped_length,
            "length of a variant");
    require(one->range_start == two->range_start &&
                one->range_last == two->range_last &&
                one->range_total == two->range_total &&
                one->has_range == two->has_range,
            "range of a variant");
    require(strcmp(one->etag, two->etag) == 0 &&
                strcmp(one->modified, two->modified) == 0 &&
                strcmp(one->date, two->date) == 0,
            "validators of a variant");
    require(one->encoded == two->encoded && one->has_type == two->has_type &&
                strcmp(one->content_type, two->content_type) == 0,
            "type of a variant");
    require(strcmp(one->request_id, two->request_id) == 0 &&
                is_same_text(one->location, two->location),
            "location of a variant");
}

/* What holds for every head. */
static void check(const result *it)
{
    const nymbl__response_head *head = &it->head;
    const char *validator = nymbl__head_validator(head);

    require(it->kind == NYMBL_OK || it->kind == NYMBL_DONE ||
                it->kind == NYMBL_PROTOCOL || it->kind == NYMBL_CORRUPT,
            "kind");
    require((it->kind == NYMBL_DONE) == (head->done && head->problem == 0),
            "done");
    require(it->kind >= 0 || it->reason != NULL, "reason");
    require(head->retry_after <= 2147483648.0, "delay");
    for (const char *at = head->request_id; *at != '\0'; at++)
        require(*at >= '!' && *at <= '~', "request id");
    if (validator != NULL) {
        require(nymbl__validator_is_valid(validator), "validator");
        require(strpbrk(validator, "\r\n") == NULL, "line in a validator");
        resumable++;
    }
    require(head->range_start < 0 || head->range_last >= head->range_start - 1,
            "range");
    require(head->range_start < 0 || head->range_total < 0 ||
                head->range_last < head->range_total,
            "range within the document");
    if (it->kind != NYMBL_DONE)
        return;
    require(head->status >= 200 && head->status <= 999, "status");
    require(!(head->chunked && head->length >= 0), "two framings");
    require(head->length < 0 || head->remapped_length < 0 ||
                head->length == head->remapped_length,
            "two lengths");
}

/* Whether libcurl rejects such a head before its lines get here: for a NUL, a
 * line without a colon or the status line. */
static bool is_for_libcurl(const model *model, const uint8_t *data, size_t size)
{
    const uint8_t *end;

    if (memchr(data, '\0', size) != NULL ||
        strcmp(model->why, "status line") == 0)
        return true;
    while (size > 0 && (end = memchr(data, '\n', size)) != NULL) {
        size_t length = (size_t)(end - data);
        bool is_field = length > 1 && *data != ' ' && *data != '\t' &&
                        (length < 5 || memcmp(data, "HTTP/", 5) != 0);

        if (is_field && memchr(data, ':', length) == NULL)
            return true;
        size -= length + 1;
        data = end + 1;
    }
    return false;
}

/* An accepted head means the same to a recipient that follows RFC 9112. */
static void check_meaning(const result *it, const uint8_t *data)
{
    model model;

    model_read(&model, (const char *)data, it->taken, false);
    if (model.state == MODEL_INVALID)
        require(is_for_libcurl(&model, data, it->taken), model.why);
    if (model.state != MODEL_INVALID && model.has_head) {
        require(model.status == it->head.status, "another status");
        require((model.framing == FRAME_CHUNKED) ==
                    (it->head.chunked && model.framing != FRAME_NONE),
                "another framing");
        require(model.framing != FRAME_LENGTH || it->head.length >= 0,
                "a length is missing");
    }
    model_free(&model);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    result plain, other;

    head_read(&plain, data, size, AS_IT_IS);
    check(&plain);
    if (plain.kind == NYMBL_DONE)
        check_meaning(&plain, data);
    for (int i = OTHER_CASE; i < VARIANTS && size < 2000; i++) {
        head_read(&other, data, size, i);
        require_same(&plain, &other);
        result_free(&other);
    }
    if (plain.kind == NYMBL_DONE)
        accepted++;
    else if (plain.kind < 0)
        rejected++;
    else
        unfinished++;
    result_free(&plain);
    return 0;
}

bool fuzz_report(void)
{
    printf("%u accepted, %u rejected, %u unfinished; %u can be resumed\n",
           accepted, rejected, unfinished, resumable);
    return accepted > 0 && rejected > 0 && unfinished > 0 && resumable > 0;
}
