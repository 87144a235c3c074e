/* SPDX-License-Identifier: MIT */
/* Leases: a stream socket for each transfer. */
#ifndef NYMBL_ENGINE_LEASE_H
#define NYMBL_ENGINE_LEASE_H

#include "nymbl.h"

#include <sys/types.h>

#define NYMBL__GUESTS 64      /* that connect and have said nothing yet */
#define NYMBL__LEASE_TOKEN 32 /* hexadecimal digits */

/* One who has connected to the listener and has not said all of his token. */
typedef struct nymbl__guest {
    int fd; /* -1: a free place */
    size_t got;
    char token[NYMBL__LEASE_TOKEN];
} nymbl__guest;

/* Which file it is. */
typedef struct nymbl__mark {
    dev_t device;
    ino_t inode;
} nymbl__mark;

/* Collect what the engine polls beside libcurl's sockets. Returns whether the
 * listener is left out, for want of descriptors. */
bool nymbl__leases_poll(nymbl_engine *engine);
/* Take in who has connected; cancel transfers whose lease has ended. */
void nymbl__leases_serve(nymbl_engine *engine);
/* Wake whoever holds the other end, if there is one. */
void nymbl__lease_wake(const nymbl_transfer *transfer);
/* No more news: close this end. */
void nymbl__lease_end(nymbl_transfer *transfer);
void nymbl__leases_close(nymbl_engine *engine);

#endif
