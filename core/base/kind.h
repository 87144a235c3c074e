/* SPDX-License-Identifier: MIT */
/* Kinds of failures. */
#ifndef NYMBL_BASE_KIND_H
#define NYMBL_BASE_KIND_H

#include "nymbl.h"

/* The kind of failure that an HTTP status means. */
nymbl_kind nymbl__kind_from_status(int status);

#endif
