/* SPDX-License-Identifier: MIT */
/* Reasons of failures. */
#ifndef NYMBL_BASE_REASON_H
#define NYMBL_BASE_REASON_H

#include "nymbl.h"

/* The text of each reason: nymbl__reason_resolve is "resolve". */
#define REASON(word) extern const char nymbl__reason_##word[];
#include "base/reasons.def"

#endif
