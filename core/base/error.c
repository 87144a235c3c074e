/* SPDX-License-Identifier: MIT */
/* Details of failures for the caller. */
#include "base/error.h"

nymbl_kind nymbl__error_set(nymbl_error *err, nymbl_kind kind,
                            const char *reason)
{
    if (err != NULL)
        *err =
            (nymbl_error){.kind = kind, .reason = reason, .retry_after = -1.0};
    return kind;
}
