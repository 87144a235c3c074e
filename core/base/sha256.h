/* SPDX-License-Identifier: MIT */
/* SHA-256 (FIPS 180-4). */
#ifndef NYMBL_BASE_SHA256_H
#define NYMBL_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct nymbl__sha256 {
    uint32_t state[8];
    uint64_t size;           /* bytes so far */
    unsigned char block[64]; /* bytes that do not fill a block yet */
} nymbl__sha256;

void nymbl__sha256_init(nymbl__sha256 *hash);
void nymbl__sha256_add(nymbl__sha256 *hash, const void *data, size_t size);
/* Write the result as 64 hexadecimal digits and wipe the hash. */
void nymbl__sha256_text(nymbl__sha256 *hash, char text[65]);
/* Format 32 bytes as hexadecimal digits. */
void nymbl__sha256_format(const unsigned char bytes[32], char text[65]);

#endif
