/* SPDX-License-Identifier: MIT */
/* The number of objects that exist. */
#ifndef NYMBL_BASE_OBJECT_COUNT_H
#define NYMBL_BASE_OBJECT_COUNT_H

#include "nymbl.h"

/* Add to the number that nymbl_object_count() returns. */
void nymbl__object_count_add(int change);

#endif
