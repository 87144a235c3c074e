/* SPDX-License-Identifier: MIT */
/* Bodies of uploads, as their caller makes and fills them. */
#ifndef NYMBL_API_BODY_H
#define NYMBL_API_BODY_H

#include "nymbl.h"

/* Bind the body to the transfer that sends it, from its first byte. */
nymbl_kind nymbl__body_attach(nymbl_body *body, nymbl_transfer *transfer,
                              int64_t max, nymbl_error *err);

#endif
