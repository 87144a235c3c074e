/* SPDX-License-Identifier: MIT */
/* The invariants after an exchange, whatever the server has sent. */
#include "response.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REDIRECTS_MAX 5

char description[400];

static const char *const field_names[] = {
    "Host",         "Accept", "User-Agent",        "Authorization",
    "x-api-key",    "Range",  "If-Range",          "Content-Length",
    "Content-Type", "Expect", "Transfer-Encoding",
};

/* A strong entity-tag (RFC 9110, section 8.8.3), or a date's characters. */
static bool validator_is_clean(const char *value, size_t length)
{
    if (length >= 2 && value[0] == '"' && value[length - 1] == '"') {
        for (size_t i = 1; i + 1 < length; i++) {
            unsigned char c = (unsigned char)value[i];

            if (c != 0x21 && (c < 0x23 || c == 0x7f))
                return false;
        }
        return true;
    }
    if (length == 0 || length > 40)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (strchr(" ,:-+ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                   "0123456789",
                   value[i]) == NULL)
            return false;
    }
    return true;
}

/* Whether a line of a request's head was written by us. */
static bool field_is_known(const exchange *x, const char *line, size_t length)
{
    char expected[64];
    size_t name = 0, i = 0;

    for (; i < sizeof(field_names) / sizeof(field_names[0]); i++) {
        name = strlen(field_names[i]);
        if (length > name + 1 && strncmp(line, field_names[i], name) == 0 &&
            line[name] == ':' && line[name + 1] == ' ')
            break;
    }
    if (i == sizeof(field_names) / sizeof(field_names[0]))
        return false;
    line += name + 2;
    length -= name + 2;
    if (memchr(line, '\r', length) != NULL || memchr(line, 0, length) != NULL)
        return false;
    switch (i) {
    case 0:
        snprintf(expected, sizeof(expected), "127.0.0.1:%d", server.port);
        break;
    case 3:
        strcpy(expected, "Bearer tok");
        break;
    case 4:
        strcpy(expected, "key-of-test");
        break;
    case 5:
        snprintf(expected, sizeof(expected), "bytes=%zu-", x->part.size);
        break;
    case 6:
        return x->operation == RESUMED && validator_is_clean(line, length);
    default:
        return true;
    }
    return length == strlen(expected) && memcmp(line, expected, length) == 0;
}

static void first_line_check(const exchange *x, const char *line, size_t length,
                             bool redirected)
{
    static const char *const targets[OPERATIONS] = {
        [TOKEN] = "POST /token",
        [LIST] = "GET /v1/Patients(7)/Documents",
        [GET] = "GET /v1/Patients(7)/Documents(9)",
        [TO_PATH] = "GET /v1/Patients(7)/Documents(9)/$value",
        [TO_WINDOW] = "GET /v1/Patients(7)/Documents(9)/$value",
        [RESUMED] = "GET /v1/Patients(7)/Documents(9)/$value",
        [FROM_BYTES] = "POST /v1/Patients(7)/Documents",
        [FROM_PATH] = "POST /v1/Patients(7)/Documents",
        [FROM_STREAM] = "POST /v1/Patients(7)/Documents",
        [FROM_UNSIZED_STREAM] = "POST /v1/Patients(7)/Documents",
        [DELETE] = "DELETE /v1/Patients(7)/Documents(9)",
    };
    static const char version[] = " HTTP/1.1";
    size_t path = length - strlen(version);

    if (length < strlen(version) + 5 || memcmp(line + path, version, 9) != 0) {
        broken("request line");
    } else if (!redirected) {
        need(path == strlen(targets[x->operation]) &&
                 memcmp(line, targets[x->operation], path) == 0,
             "request target");
    } else {
        need(memcmp(line, "GET /", 5) == 0, "redirected request");
        for (size_t i = 4; i < path; i++)
            need(line[i] > ' ' && line[i] < 0x7f, "byte in a request target");
    }
}

static void head_check(const exchange *x, const request *request,
                       bool redirected)
{
    const char *line = request->head.data;
    int hosts = 0, tokens = 0, keys = 0;
    bool own = x->operation != TOKEN;

    for (bool first = true;; first = false) {
        const char *end = memmem(
            line, request->head.size - (size_t)(line - request->head.data),
            "\r\n", 2);
        size_t length = (size_t)(end - line);

        if (length == 0)
            break;
        if (first)
            first_line_check(x, line, length, redirected);
        else
            need(field_is_known(x, line, length), "field of a request");
        hosts += strncmp(line, "Host:", 5) == 0;
        tokens += strncmp(line, "Authorization:", 14) == 0;
        keys += strncmp(line, "x-api-key:", 10) == 0;
        line = end + 2;
    }
    need(hosts == 1 && tokens == own && keys == own, "fields of a request");
    need(request->wrong == NULL, "framing of a request");
}

static void requests_check(const exchange *x)
{
    int count = server.request_count - x->first_request;

    need(count <= (is_download(x->operation) ? 1 + REDIRECTS_MAX : 1) +
                      (x->operation == RESUMED),
         "too many requests");
    need(!server.other_called, "another origin was called");
    for (int i = 0; i < count; i++) {
        const request *request = &server.requests[x->first_request + i];

        if (request->has_head)
            head_check(x, request, i > 0);
    }
}

static bool status_is_success(const exchange *x, int status)
{
    if (is_upload(x->operation) || x->operation == DELETE)
        return status >= 200 && status <= 299;
    return status == 200 || (status == 206 && x->operation == RESUMED);
}

/* An upload's success means that the server has received all of it. */
static void upload_check(const exchange *x, const request *request)
{
    const connection *connection = &server.connections[request->connection];
    size_t size = is_from_stream(x->operation) ? stream_size() : content_size();

    if (connection->fd < 0)
        return;
    need(request->complete, "success of half an upload");
    need(request->complete && memmem(request->body.data, request->body.size,
                                     content(), size) != NULL,
         "upload of other bytes");
}

/* The validator in the metadata, which is its last line; without the newline.
 */
static bool meta_has(const bytes *meta, const char *validator)
{
    size_t length = strlen(validator);
    const char *at = meta->data + meta->size - length - 1;

    return length > 0 && meta->size >= length + 2 && at[-1] == '\n' &&
           memcmp(at, validator, length) == 0 && at[length] == '\n';
}

/* The bytes that were downloaded from the start, or the partial file and the
 * rest. */
static void document_check(const exchange *x, const model *model,
                           const char *data, size_t size)
{
    size_t before = model->status == 206 ? x->part.size : 0;
    unsigned long long from = 0, last = 0, total = 0;

    need(model->framing != FRAME_CLOSE, "document without an end");
    need(size == before + model->size &&
             memcmp(data, x->part.data, before) == 0 &&
             memcmp(data + before, model->body, model->size) == 0,
         "other bytes than the response's");
    need(!settings.has_size || size == (size_t)settings.size,
         "document of another size");
    if (model->status != 206)
        return;
    need(sscanf(model->range, "%*s %llu-%llu/%llu", &from, &last, &total) ==
                 3 &&
             from == before && last + 1 == total && total == size,
         "range of something else");
    /* an ETag that is too long is ignored */
    need(meta_has(&x->meta, model->etag) ||
             ((model->etag[0] == '\0' || strlen(model->etag) > 255) &&
              meta_has(&x->meta, model->modified)),
         "range of another version");
    reached.resumed++;
}

static void success_check(const exchange *x, const model *model)
{
    const char *data;
    bytes file;
    size_t size;

    if (server.request_count == x->first_request) {
        broken("success without a request");
        return;
    }
    if (model->state != MODEL_COMPLETE) {
        broken(model->state == MODEL_INVALID
                   ? "success of an invalid response"
                   : "success of an incomplete response");
        return;
    }
    need(status_is_success(x, model->status), "success of another status");
    if (is_upload(x->operation))
        upload_check(x, &server.requests[server.request_count - 1]);
    if (x->operation == TO_WINDOW) {
        document_check(x, model, x->read.data, x->read.size);
    } else if (is_download(x->operation)) {
        need(file_read(target, &file), "success without a file");
        document_check(x, model, file.data, file.size);
        bytes_free(&file);
        folder_check(x->operation != RESUMED && x->part_exists);
    } else {
        data = nymbl_transfer_body(x->transfer, &size);
        need(size == model->size &&
                 (size == 0 || memcmp(data, model->body, size) == 0),
             "another body than the response's");
    }
}

static bool begins_with(const bytes *whole, const char *data, size_t size)
{
    return size <= whole->size && memcmp(whole->data, data, size) == 0;
}

/* The lines of metadata that say which document it is about (core/file/meta.c);
 * those before say how much of it is on the disk. */
static bytes meta_document(const bytes *meta)
{
    bytes left = *meta;

    for (int i = 0; i < 3 && left.size > 0; i++) {
        const char *end = memchr(left.data, '\n', left.size);
        size_t size = end == NULL ? left.size : (size_t)(end + 1 - left.data);

        left.data += size;
        left.size -= size;
    }
    return left;
}

/* A partial file's validator must belong to its bytes. */
static void meta_check(const exchange *x, const model *model, const bytes *part)
{
    char path[128];
    bytes meta;

    path_make(path, sizeof(path), dir, "document.nymbl-meta");
    if (file_read(path, &meta)) {
        bytes document = meta_document(&meta), old = meta_document(&x->meta);
        bool is_old = document.size > 0 && document.size == old.size &&
                      memcmp(document.data, old.data, old.size) == 0 &&
                      part->size >= x->part.size &&
                      memcmp(part->data, x->part.data, x->part.size) == 0;
        bool is_new =
            model->status == 200 && part->size <= model->size &&
            memcmp(part->data, model->body, part->size) == 0 &&
            (meta_has(&meta, model->etag) || meta_has(&meta, model->modified));

        need(is_old || is_new, "metadata of something else");
    }
    bytes_free(&meta);
}

/* A partial file must contain the received bytes. */
static void part_check(const exchange *x, const model *model)
{
    bytes part, whole = {0};
    char path[128];
    bool good;

    path_make(path, sizeof(path), dir, "document.nymbl-part");
    if (file_read(path, &part)) {
        bytes_add(&whole, x->part.data, x->part.size);
        good = part.size == x->part.size &&
               begins_with(&whole, part.data, part.size);
        if (model->status == 206)
            bytes_add(&whole, model->body, model->size);
        else
            whole.size = 0;
        if (model->status == 200)
            bytes_add(&whole, model->body, model->size);
        need(good || begins_with(&whole, part.data, part.size),
             "part of something else");
        if (part.size > 0)
            meta_check(x, model, &part);
    }
    bytes_free(&part);
    bytes_free(&whole);
}

static void failed_file_check(const exchange *x, const model *model)
{
    bytes file;
    bool exists = file_read(target, &file);

    need(exists == x->old_exists && file.size == x->old.size &&
             memcmp(file.data, x->old.data, file.size) == 0,
         "the old file was touched");
    bytes_free(&file);
    folder_check(x->operation == RESUMED || x->part_exists);
    if (x->operation == RESUMED)
        part_check(x, model);
}

static bool kind_fits_status(nymbl_kind kind, int status)
{
    switch (kind) {
    case NYMBL_BAD_REQUEST:
        return status == 400;
    case NYMBL_UNAUTHORIZED: /* a token request is refused with 400 too */
        return status == 401 || status == 400;
    case NYMBL_FORBIDDEN:
        return status == 403;
    case NYMBL_NOT_FOUND:
        return status == 404;
    case NYMBL_TOO_LARGE:
        return status == 413;
    case NYMBL_UNSUPPORTED_TYPE:
        return status == 415;
    case NYMBL_THROTTLED:
    case NYMBL_QUOTA:
        return status == 429;
    case NYMBL_SERVER:
        return status >= 500;
    case NYMBL_HTTP:
        return status != 0;
    default:
        return true;
    }
}

static bool kind_is_sane(const exchange *x)
{
    switch (x->error.kind) {
    case NYMBL_IO:
        return settings.short_stream && is_from_stream(x->operation);
    case NYMBL_CANCELED:
        return x->canceled;
    case NYMBL_CORRUPT:
    case NYMBL_TLS:
        return is_download(x->operation);
    case NYMBL_CONTEXT:
    case NYMBL_SETTINGS:
    case NYMBL_NO_MEMORY:
    case NYMBL_MISUSE:
        return false;
    default:
        return kind_fits_status(x->error.kind, x->error.status);
    }
}

/* Whether the server may have carried the request out. */
static void outcome_check(const exchange *x)
{
    const nymbl_error *error = &x->error;
    bool refused = error->status >= 300 && error->status <= 499;
    int count = server.request_count - x->first_request;

    if (!is_upload(x->operation) && x->operation != DELETE) {
        need(!error->outcome_unknown, "unknown outcome of a question");
        return;
    }
    if (count == 0) {
        need(!error->outcome_unknown || x->canceled ||
                 server.connection_count > 0,
             "unknown outcome of nothing");
        return;
    }
    if (server.requests[server.request_count - 1].complete && !refused)
        need(error->outcome_unknown, "known outcome of a sent request");
}

static void failure_check(const exchange *x, const model *model)
{
    const nymbl_error *error = &x->error;
    size_t size;
    const char *data = nymbl_transfer_body(x->transfer, &size);

    need(error->kind == x->kind, "two kinds");
    need(kind_is_sane(x), "kind of a failure");
    need(error->status == 0 || !model->has_head ||
             error->status == model->status,
         "status of something else");
    need(error->status == 0 || (error->status >= 100 && error->status <= 999),
         "status of other than three digits");
    need(error->retry_after == -1 ||
             (error->retry_after >= 0 && error->retry_after < 1e19),
         "seconds to wait");
    need(error->reason == NULL || strlen(error->reason) < 40, "reason");
    /* a truncated body is the beginning of the received bytes */
    need(size == 0 || model->body == NULL ||
             (size <= model->size && memcmp(data, model->body, size) == 0),
         "body of something else");
    outcome_check(x);
    if (x->operation == TO_WINDOW)
        need(x->read.size == 0 ||
                 (model->body != NULL && x->read.size <= model->size &&
                  memcmp(x->read.data, model->body, x->read.size) == 0),
             "bytes of something else were read");
    else if (is_download(x->operation))
        failed_file_check(x, model);
}

/* The response to the last request: the bytes sent since it began. */
static void response_read(const exchange *x, model *out)
{
    const request *request;
    const connection *connection;

    if (server.request_count == x->first_request) {
        model_read(out, "", 0, false);
        return;
    }
    request = &server.requests[server.request_count - 1];
    connection = &server.connections[request->connection];
    model_read(out, connection->sent.data + request->sent_before,
               connection->sent.size - request->sent_before, connection->ended);
}

/* Print the exchange, to help analyze a finding. */
static void describe(const exchange *x, const model *model)
{
    static const char *const states[] = {"incomplete", "complete", "invalid"};

    snprintf(description, sizeof(description),
             "operation %c: %s (%s), status %d%s; %d requests, the response to "
             "the last one is %s (%s) with status %d and %zu bytes",
             operations[x->operation], nymbl_kind_name(x->kind),
             x->error.reason != NULL ? x->error.reason : "no reason",
             x->error.status, x->error.outcome_unknown ? ", unknown" : "",
             server.request_count - x->first_request, states[model->state],
             model->why != NULL ? model->why : "", model->status, model->size);
}

void exchange_check(exchange *x)
{
    model model;
    int count = server.request_count - x->first_request;

    response_read(x, &model);
    requests_check(x);
    if (x->kind == NYMBL_OK) {
        success_check(x, &model);
        reached.success[x->operation]++;
        reached.redirected += count > 1;
        reached.reused += x->first_request > 0 && server.connection_count == 1;
    } else if (x->kind < 0) {
        failure_check(x, &model);
        reached.failure[x->operation]++;
    } else {
        broken("neither success nor failure");
    }
    if (problem != NULL)
        describe(x, &model);
    model_free(&model);
}
