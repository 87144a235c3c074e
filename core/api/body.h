/* SPDX-License-Identifier: MIT */
/* Bodies of uploads: binding a body to a transfer. */
#ifndef NYMBL_API_BODY_H
#define NYMBL_API_BODY_H

#include "nymbl.h"

/* Bind the body to the transfer that sends it, from its first byte. `max`: the
 * upload limit in bytes. Fails with NYMBL_MISUSE if it is in use or not ready,
 * NYMBL_IO if it cannot be rewound, or NYMBL_TOO_LARGE. */
nymbl_kind nymbl__body_attach(nymbl_body *body, nymbl_transfer *transfer,
                              int64_t max, nymbl_error *err);

#endif
