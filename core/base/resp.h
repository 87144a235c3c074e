/* SPDX-License-Identifier: MIT */
/* The length of a reply in RESP2, the protocol of Redis. */
#ifndef NYMBL_BASE_RESP_H
#define NYMBL_BASE_RESP_H

#include "nymbl.h"

/* Elements of an array, and arrays within arrays. */
#define NYMBL__RESP_ELEMENTS 64
#define NYMBL__RESP_DEPTH 4

/* Find the end of the reply that begins with these bytes; more replies may
 * follow it. Returns NYMBL_OK with its length; NYMBL_AGAIN if more bytes are
 * needed; NYMBL_PROTOCOL if this is no reply; or NYMBL_TOO_LARGE if it exceeds
 * NYMBL_REPLY_MAX or one of the limits above. Once the answer is not
 * NYMBL_AGAIN, more bytes do not change it. */
nymbl_kind nymbl__resp_length(const char *bytes, size_t size, size_t *length);

#endif
