/* SPDX-License-Identifier: MIT */
/* Which version of the library runs. */
#include "nymbl.h"

const char *nymbl_version(void)
{
    return NYMBL_VERSION;
}
