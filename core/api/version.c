/* SPDX-License-Identifier: MIT */
/* The version of the library at run time. */
#include "nymbl.h"

const char *nymbl_version(void)
{
    return NYMBL_VERSION;
}
