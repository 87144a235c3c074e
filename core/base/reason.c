/* SPDX-License-Identifier: MIT */
/* Reasons of failures. */
#include "base/reason.h"

#include <errno.h>

#define REASON(word) const char nymbl__reason_##word[] = #word;
#include "base/reasons.def"

const char *const *nymbl_reasons(void)
{
    static const char *const words[] = {
#define REASON(word) nymbl__reason_##word,
#include "base/reasons.def"
        NULL};

    return words;
}

const char *nymbl_reason_from_errno(int code)
{
    switch (code) {
    case ENOENT:
        return nymbl__reason_not_found;
    case EACCES:
    case EPERM:
        return nymbl__reason_permission;
    case EEXIST:
        return nymbl__reason_exists;
    case EISDIR:
        return nymbl__reason_directory;
    case ENOTDIR:
        return nymbl__reason_not_a_directory;
    case ENOSPC:
    case EDQUOT:
        return nymbl__reason_no_space;
    case EFBIG:
        return nymbl__reason_file_too_big;
    case EROFS:
        return nymbl__reason_read_only;
    case EMFILE:
    case ENFILE:
        return nymbl__reason_too_many_files;
    case ELOOP:
        return nymbl__reason_too_many_links;
    case ENAMETOOLONG:
        return nymbl__reason_name_too_long;
    case ENXIO:
        return nymbl__reason_not_a_file;
    case EBADF:
        return nymbl__reason_not_open_for_access;
    case EPIPE:
        return nymbl__reason_pipe_closed;
    case EINTR:
        return nymbl__reason_interrupted;
    default:
        return nymbl__reason_io_error;
    }
}
