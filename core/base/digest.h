/* SPDX-License-Identifier: MIT */
/* SHA-256 of many bytes: by OpenSSL if the process has loaded it, which uses
 * the instructions of the processor for it, otherwise by our own code. */
#ifndef NYMBL_BASE_DIGEST_H
#define NYMBL_BASE_DIGEST_H

#include "base/sha256.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct nymbl__digest {
    void *context; /* an EVP_MD_CTX; NULL: `own` is used */
    nymbl__sha256 own;
} nymbl__digest;

void nymbl__digest_begin(nymbl__digest *digest);
/* False if OpenSSL has no memory: the digest is lost. */
bool nymbl__digest_add(nymbl__digest *digest, const void *data, size_t size);
/* Write 64 hexadecimal digits. False as above. Frees the digest. */
bool nymbl__digest_end(nymbl__digest *digest, char text[65]);
/* Release one that has begun. Does nothing to one that has ended or is zeroed.
 */
void nymbl__digest_free(nymbl__digest *digest);

#endif
