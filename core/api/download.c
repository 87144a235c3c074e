/* SPDX-License-Identifier: MIT */
/* Downloads: the file or the window to which a document goes, and the range of
 * it that is requested. */
#include "api/download.h"

#include "api/client.h"
#include "base/error.h"
#include "base/validator.h"
#include "exchange/range.h"
#include "file/atomic_file.h"

#include <stdio.h>
#include <string.h>

static bool is_range(const nymbl_download_options *options)
{
    return options->offset != 0 || options->has_length ||
           options->if_match != NULL;
}

bool nymbl__download_is_valid(const nymbl_download_options *options)
{
    if (options == NULL)
        return true;
    if (options->offset < 0 || options->length < 0 || options->dir_fd < 0 ||
        (options->path != NULL && is_range(options)) ||
        (options->sha256 && (options->offset != 0 || options->has_length)))
        return false;
    return options->if_match == NULL ||
           (strlen(options->if_match) < NYMBL__VALIDATOR_MAX &&
            nymbl__validator_is_strong_tag(options->if_match));
}

/* Request the bytes from `first` to `last`, or to the end if that is INT64_MAX
 * (RFC 9110, section 14.1.2). */
static nymbl_kind range_add(nymbl__exchange *exchange, int64_t first,
                            int64_t last)
{
    char range[64];

    if (last == INT64_MAX)
        snprintf(range, sizeof(range), "Range: bytes=%lld-", (long long)first);
    else
        snprintf(range, sizeof(range), "Range: bytes=%lld-%lld",
                 (long long)first, (long long)last);
    exchange->range_requested = true;
    return nymbl__request_add_header(&exchange->request.headers, range, "", "");
}

/* Request the missing range of a partial file, on condition that the document
 * is unchanged (If-Range; RFC 9110, section 13.1.5). */
static nymbl_kind partial_request(nymbl__exchange *exchange)
{
    int64_t offset = nymbl__atomic_file_offset(exchange->file);
    nymbl_kind kind;

    if (exchange->has_size && offset == exchange->size) {
        nymbl__atomic_file_step_back(exchange->file);
        offset = nymbl__atomic_file_offset(exchange->file);
    }
    if (offset == 0 || (exchange->has_size && offset >= exchange->size))
        return NYMBL_OK;
    kind = range_add(exchange, offset, INT64_MAX);
    if (kind < 0)
        return kind;
    return nymbl__request_add_header(
        &exchange->request.headers,
        "If-Range: ", nymbl__atomic_file_validator(exchange->file), "");
}

/* Request the caller's range. If the document must be a certain version, any
 * other one is useless. So the condition is If-Match, with which the service
 * sends no other version; with If-Range it would send all of that (RFC 9110,
 * section 13.1.1). */
static nymbl_kind range_request(nymbl__exchange *exchange,
                                const nymbl_download_options *options)
{
    int64_t rest = INT64_MAX - options->offset;
    nymbl_kind kind = NYMBL_OK;

    exchange->range_start = options->offset;
    if (options->has_length && options->length < rest)
        exchange->range_end = options->offset + options->length;
    if (options->if_match != NULL) {
        strcpy(exchange->if_match, options->if_match);
        kind = nymbl__request_add_header(&exchange->request.headers,
                                         "If-Match: ", options->if_match, "");
    }
    if (kind < 0 || options->no_range_request ||
        (options->offset == 0 && !options->has_length))
        return kind;
    return range_add(exchange, exchange->range_start,
                     nymbl__range_last(exchange));
}

nymbl_kind nymbl__download_prepare(nymbl_transfer *transfer,
                                   const nymbl_download_options *options,
                                   nymbl_error *err)
{
    nymbl__exchange *exchange = &transfer->exchange;
    char resource[65];
    nymbl_kind kind;

    if (options == NULL)
        return NYMBL_OK;
    exchange->has_size = options->has_size;
    exchange->size = options->size;
    exchange->progress = options->progress;
    exchange->sha256 = options->sha256;
    if (options->content_type != NULL &&
        strlen(options->content_type) < NYMBL__TYPE_MAX)
        strcpy(exchange->expected_type, options->content_type);
    if (options->path == NULL) {
        kind = range_request(exchange, options);
        return kind < 0 ? nymbl__error_set(err, kind, NULL) : NYMBL_OK;
    }
    nymbl__client_resource(transfer->client, exchange->request.url, resource);
    if (options->dir_fd == 0)
        kind = nymbl__atomic_file_open(&exchange->file, options->path,
                                       options->mode, !options->no_overwrite,
                                       options->resume ? resource : NULL, err);
    else
        kind = nymbl__atomic_file_open_at(
            &exchange->file, options->dir_fd, options->path, options->mode,
            !options->no_overwrite, options->resume ? resource : NULL, err);
    if (kind < 0)
        return kind;
    kind = partial_request(exchange);
    return kind < 0 ? nymbl__error_set(err, kind, NULL) : NYMBL_OK;
}
