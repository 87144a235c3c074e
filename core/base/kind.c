/* SPDX-License-Identifier: MIT */
/* Kinds of failures: their names, texts and HTTP statuses. */
#include "base/kind.h"

nymbl_kind nymbl__kind_from_status(int status)
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

const char *nymbl_kind_name(nymbl_kind kind)
{
    switch (kind) {
    case NYMBL_OK:
        return "ok";
    case NYMBL_DONE:
        return "done";
    case NYMBL_AGAIN:
        return "again";
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
    case NYMBL_SETTINGS:
        return "settings";
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
        return "the service refused the request: see detail for its message";
    case NYMBL_UNAUTHORIZED:
        return "the service refused the token: check the token's source";
    case NYMBL_FORBIDDEN:
        return "the token does not permit this: check its scope";
    case NYMBL_NOT_FOUND:
        return "the patient or document does not exist: check the ids";
    case NYMBL_TOO_LARGE:
        return "the file exceeds the size limit: reduce its size";
    case NYMBL_UNSUPPORTED_TYPE:
        return "the file type is not accepted: use PDF, PNG, JPEG, TIFF or "
               "DOCX";
    case NYMBL_THROTTLED:
        return "too many requests were sent: try again later";
    case NYMBL_QUOTA:
        return "the monthly quota is used up: ask the service for more";
    case NYMBL_SERVER:
        return "the service failed: try again later";
    case NYMBL_HTTP:
        return "the status is unexpected: check base_url";
    case NYMBL_TIMEOUT:
        return "a time limit was exceeded: allow more time";
    case NYMBL_NETWORK:
        return "the service could not be reached: check the network";
    case NYMBL_TLS:
        return "the connection could not be verified: check ca_file";
    case NYMBL_TRUNCATED:
        return "the response ended too early: try again";
    case NYMBL_CORRUPT:
        return "the content is not the document: report it to the service";
    case NYMBL_PROTOCOL:
        return "the response is invalid: check base_url";
    case NYMBL_REDIRECT:
        return "the redirect was not followed: check base_url";
    case NYMBL_IO:
        return "a local file could not be used: check its path";
    case NYMBL_CONTEXT:
        return "the call may not wait here: in nginx call from a rewrite, "
               "access or content handler or from ngx.timer.at, in an event "
               "loop from one of its coroutines, and not from within gsub, "
               "sort, require or another C function";
    case NYMBL_SETTINGS:
        return "a setting cannot be used: check the variable";
    case NYMBL_CANCELED:
        return "the program canceled the call: no action is needed";
    case NYMBL_NO_MEMORY:
        return "not enough memory";
    default:
        return "";
    }
}
