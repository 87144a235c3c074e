/* SPDX-License-Identifier: MIT */
/* Known bugs of libcurl. */
#ifndef NYMBL_EXCHANGE_QUIRKS_H
#define NYMBL_EXCHANGE_QUIRKS_H

#include <stdbool.h>

/* Whether this version of libcurl (before 8.20.0, determined at run time) must
 * not use an easy handle for a second request, not even after a redirect. */
bool nymbl__quirks_handle_is_single_use(void);

#endif
