/* SPDX-License-Identifier: MIT */
/* Kinds of failure, and how they are recorded. */
#ifndef NYMBL_BASE_ERROR_H
#define NYMBL_BASE_ERROR_H

#include "nymbl.h"

/* Write *err, if there is one. Returns kind. */
nymbl_kind nymbl__fail(nymbl_error *err, nymbl_kind kind, const char *reason);

/* The kind of a status that is not a success. */
nymbl_kind nymbl__status_kind(int status);

/* The fixed word of an errno. */
const char *nymbl__errno_reason(int code);

/* Count objects for nymbl_object_count(). */
void nymbl__object_count_add(int change);

#endif
