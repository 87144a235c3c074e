/* SPDX-License-Identifier: MIT */
/* FNV-1a, a fast hash that is not cryptographic. */
#ifndef NYMBL_BASE_FNV1A_H
#define NYMBL_BASE_FNV1A_H

#include <stddef.h>
#include <stdint.h>

#define NYMBL__FNV1A_INIT UINT64_C(14695981039346656037)

/* Add bytes to a hash, which starts as NYMBL__FNV1A_INIT. */
uint64_t nymbl__fnv1a(uint64_t hash, const void *data, size_t size);

#endif
