/* SPDX-License-Identifier: MIT */
/* FNV-1a, a fast hash that is not cryptographic. */
#include "base/fnv1a.h"

uint64_t nymbl__fnv1a(uint64_t hash, const void *data, size_t size)
{
    const unsigned char *bytes = data;

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(1099511628211);
    return hash;
}
