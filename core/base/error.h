/* SPDX-License-Identifier: MIT */
/* Kinds of failure and reason words. */
#ifndef NYMBL_BASE_ERROR_H
#define NYMBL_BASE_ERROR_H

#include "nymbl.h"

/* Fill in *err, unless it is NULL. Returns kind. */
nymbl_kind nymbl__fail(nymbl_error *err, nymbl_kind kind, const char *reason);

/* The kind of failure that an HTTP status means. */
nymbl_kind nymbl__status_kind(int status);

/* The reason word for an errno. */
const char *nymbl__errno_reason(int code);

/* Add to the count for nymbl_object_count(). */
void nymbl__object_count_add(int change);

#endif
