/* SPDX-License-Identifier: MIT */
/* Attaching a body to the transfer that sends it. */
#ifndef NYMBL_API_BODY_H
#define NYMBL_API_BODY_H

#include "nymbl.h"

/* Attach a body to a transfer, which will send it from its first byte. `max`:
 * the upload limit in bytes. Fails with NYMBL_MISUSE if the body is in use or
 * not ready, NYMBL_IO if it cannot be rewound, or NYMBL_TOO_LARGE. */
nymbl_kind nymbl__body_attach(nymbl_body *body, nymbl_transfer *transfer,
                              int64_t max, nymbl_error *err);

#endif
