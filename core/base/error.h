/* SPDX-License-Identifier: MIT */
/* Details of failures for the caller. */
#ifndef NYMBL_BASE_ERROR_H
#define NYMBL_BASE_ERROR_H

#include "base/reason.h"
#include "nymbl.h"

/* Fill in *err, unless err is NULL. Returns kind. */
nymbl_kind nymbl__error_set(nymbl_error *err, nymbl_kind kind,
                            const char *reason);

#endif
