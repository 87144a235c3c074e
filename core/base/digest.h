/* SPDX-License-Identifier: MIT */
/* SHA-256 of many bytes: by OpenSSL if the process has loaded it, because it
 * uses special instructions of the processor; otherwise by sha256.c. */
#ifndef NYMBL_BASE_DIGEST_H
#define NYMBL_BASE_DIGEST_H

#include "base/sha256.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct nymbl__digest {
    void *context;     /* an EVP_MD_CTX; NULL if `own` is used */
    nymbl__sha256 own; /* for sha256.c */
} nymbl__digest;

void nymbl__digest_begin(nymbl__digest *digest);
/* Add bytes. Returns false if OpenSSL runs out of memory: then there is no
 * result. */
bool nymbl__digest_add(nymbl__digest *digest, const void *data, size_t size);
/* Write the result as 64 hexadecimal digits and free the digest. Returns false
 * if OpenSSL runs out of memory. */
bool nymbl__digest_end(nymbl__digest *digest, char text[65]);
/* Release a digest without a result. Does nothing if it has ended or is zeroed.
 */
void nymbl__digest_free(nymbl__digest *digest);

#endif
