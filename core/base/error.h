/* SPDX-License-Identifier: MIT */
/* Kinds and reasons of failures. */
#ifndef NYMBL_BASE_ERROR_H
#define NYMBL_BASE_ERROR_H

#include "nymbl.h"

/* The text of each reason: nymbl__reason_resolve is "resolve". */
#define REASON(word) extern const char nymbl__reason_##word[];
#include "base/reasons.def"

/* Fill in *err, unless it is NULL. Returns kind. */
nymbl_kind nymbl__fail(nymbl_error *err, nymbl_kind kind, const char *reason);

/* The kind of failure that an HTTP status means. */
nymbl_kind nymbl__status_kind(int status);

/* Add to the count for nymbl_object_count(). */
void nymbl__object_count_add(int change);

#endif
