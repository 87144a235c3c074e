/* SPDX-License-Identifier: MIT */
/* Known faults of libcurl. */
#ifndef NYMBL_EXCHANGE_QUIRKS_H
#define NYMBL_EXCHANGE_QUIRKS_H

#include <stdbool.h>

/* Whether this libcurl must not use an easy handle for a second exchange, not
 * even for the next hop of a redirect (before 8.20.0). Decided at run time. */
bool nymbl__handles_serve_once(void);

#endif
