/* SPDX-License-Identifier: MIT */
/* Time limits of a transfer. */
#ifndef NYMBL_EXCHANGE_LIMITS_H
#define NYMBL_EXCHANGE_LIMITS_H

#include "nymbl.h"

#define NYMBL__CONNECT_SECONDS 10.0
#define NYMBL__STALL_SECONDS 30.0
#define NYMBL__REPLY_SECONDS 60.0         /* for a reply held in memory */
#define NYMBL__UPLOAD_REPLY_SECONDS 120.0 /* for the reply to begin */

/* Charge polled time; give the seconds until a limit runs out. */
void nymbl__transfer_charge(nymbl_transfer *transfer, double seconds);
double nymbl__transfer_left(const nymbl_transfer *transfer);
/* End it where a limit has run out. */
void nymbl__transfer_enforce(nymbl_transfer *transfer);

#endif
