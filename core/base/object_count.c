/* SPDX-License-Identifier: MIT */
/* The number of objects that exist. */
#include "base/object_count.h"

#include <stdatomic.h>

static atomic_long live_objects;

void nymbl__object_count_add(int change)
{
    atomic_fetch_add(&live_objects, change);
}

long nymbl_object_count(void)
{
    return atomic_load(&live_objects);
}
