/* SPDX-License-Identifier: MIT */
/* Kinds of failure: their words, and where they come from. */
#include "internal.h"

#include <errno.h>
#include <stdatomic.h>

static atomic_long live_objects;

void nymbl__live(int change)
{
    atomic_fetch_add(&live_objects, change);
}

nymbl_kind nymbl__fail(nymbl_error *err, nymbl_kind kind, const char *reason)
{
    if (err != NULL)
        *err =
            (nymbl_error){.kind = kind, .reason = reason, .retry_after = -1.0};
    return kind;
}

nymbl_kind nymbl__status_kind(int status)
{
    switch (status) {
    case 400:
        return NYMBL_BAD_REQUEST;
    case 401:
        return NYMBL_UNAUTHORIZED;
    case 403:
        return NYMBL_FORBIDDEN;
    case 404:
        return NYMBL_NOT_FOUND;
    case 413:
        return NYMBL_TOO_LARGE;
    case 415:
        return NYMBL_UNSUPPORTED_TYPE;
    case 429:
        return NYMBL_THROTTLED;
    default:
        return status >= 500 && status <= 599 ? NYMBL_SERVER : NYMBL_HTTP;
    }
}

const char *nymbl__errno_reason(int code)
{
    switch (code) {
    case ENOENT:
        return "not_found";
    case EACCES:
    case EPERM:
        return "permission";
    case EEXIST:
        return "exists";
    case EISDIR:
        return "directory";
    case ENOTDIR:
        return "not_a_directory";
    case ENOSPC:
        return "no_space";
#ifdef EDQUOT
    case EDQUOT:
        return "no_space";
#endif
    case EFBIG:
        return "file_too_big";
    case EROFS:
        return "read_only";
    case EMFILE:
    case ENFILE:
        return "too_many_files";
    case ELOOP:
        return "too_many_links";
    case ENAMETOOLONG:
        return "name_too_long";
    case ENXIO:
        return "not_a_file";
    case EBADF:
        return "wrong_mode";
    case EPIPE:
        return "pipe_closed";
    case EINTR:
        return "interrupted";
    default:
        return "input_output";
    }
}

const char *nymbl_kind_name(nymbl_kind kind)
{
    switch (kind) {
    case NYMBL_OK:
        return "ok";
    case NYMBL_DONE:
        return "done";
    case NYMBL_WAIT:
        return "wait";
    case NYMBL_BAD_REQUEST:
        return "bad_request";
    case NYMBL_UNAUTHORIZED:
        return "unauthorized";
    case NYMBL_FORBIDDEN:
        return "forbidden";
    case NYMBL_NOT_FOUND:
        return "not_found";
    case NYMBL_TOO_LARGE:
        return "too_large";
    case NYMBL_UNSUPPORTED_TYPE:
        return "unsupported_type";
    case NYMBL_THROTTLED:
        return "throttled";
    case NYMBL_QUOTA:
        return "quota";
    case NYMBL_SERVER:
        return "server";
    case NYMBL_HTTP:
        return "http";
    case NYMBL_TIMEOUT:
        return "timeout";
    case NYMBL_NETWORK:
        return "network";
    case NYMBL_TLS:
        return "tls";
    case NYMBL_TRUNCATED:
        return "truncated";
    case NYMBL_CORRUPT:
        return "corrupt";
    case NYMBL_PROTOCOL:
        return "protocol";
    case NYMBL_REDIRECT:
        return "redirect";
    case NYMBL_IO:
        return "io";
    case NYMBL_CONTEXT:
        return "context";
    case NYMBL_CANCELED:
        return "canceled";
    case NYMBL_NO_MEMORY:
        return "no_memory";
    case NYMBL_MISUSE:
        return "misuse";
    }
    return "unknown";
}

const char *nymbl_kind_text(nymbl_kind kind)
{
    switch (kind) {
    case NYMBL_BAD_REQUEST:
        return "the service refused the request: check its arguments and "
               "filter, detail has the server's words";
    case NYMBL_UNAUTHORIZED:
        return "no valid token: check the credentials or the token";
    case NYMBL_FORBIDDEN:
        return "not allowed: check the API key, the scope and the URL";
    case NYMBL_NOT_FOUND:
        return "no such patient or document: check the ids";
    case NYMBL_TOO_LARGE:
        return "the file is over the size limit: make it smaller or split it";
    case NYMBL_UNSUPPORTED_TYPE:
        return "not an accepted file type: use PDF, PNG, JPEG, TIFF or DOCX";
    case NYMBL_THROTTLED:
        return "too many requests: try again after retry_after, or later";
    case NYMBL_QUOTA:
        return "the monthly quota is spent: wait for the next month or ask "
               "for more";
    case NYMBL_SERVER:
        return "the service failed: try again later";
    case NYMBL_HTTP:
        return "the service gave an unexpected status: check base_url";
    case NYMBL_TIMEOUT:
        return "a time limit ran out: try again or allow more time";
    case NYMBL_NETWORK:
        return "the service could not be reached: check the network, then try "
               "again";
    case NYMBL_TLS:
        return "no trusted connection: check ca_file, the host name and the "
               "clock";
    case NYMBL_TRUNCATED:
        return "the reply ended too early: try again";
    case NYMBL_CORRUPT:
        return "what came is not the document: try again, then report it";
    case NYMBL_PROTOCOL:
        return "the reply makes no sense: check base_url, then report it";
    case NYMBL_REDIRECT:
        return "the service redirects where it must not: report it";
    case NYMBL_IO:
        return "a local file failed: check its path, permissions and space";
    case NYMBL_CONTEXT:
        return "nothing may wait here: in nginx call from a rewrite, access or "
               "content handler or from ngx.timer.at, in an event loop from a "
               "coroutine of its own, and not from within gsub, sort, require "
               "or another function of C";
    case NYMBL_CANCELED:
        return "ended by the program: nothing to do";
    case NYMBL_NO_MEMORY:
        return "not enough memory";
    default:
        return "";
    }
}

long nymbl_live_objects(void)
{
    return atomic_load(&live_objects);
}
