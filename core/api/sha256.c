/* SPDX-License-Identifier: MIT */
/* SHA-256 of bytes in memory. */
#include "nymbl.h"

#include "base/sha256.h"

void nymbl_sha256(char *out, const void *data, size_t size)
{
    nymbl__sha256 hash;

    nymbl__sha256_init(&hash);
    if (size > 0)
        nymbl__sha256_add(&hash, data, size);
    nymbl__sha256_text(&hash, out);
}
