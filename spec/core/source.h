/* SPDX-License-Identifier: MIT */
/* A source that pushes its bytes between the world's steps. */
#ifndef NYMBL_SOURCE_H
#define NYMBL_SOURCE_H

#include "peer.h"

struct source {
    nymbl_body *body;
    const char *data;
    size_t size, at;
    bool finish;
    nymbl_kind last;
};

extern struct source source;

/* `stated` is the size given to the body; `finish`: it ends by itself.
 */
void source_open(int64_t stated, const char *data, size_t size, bool finish);
/* Push until a transfer may be started. */
void source_ready(void);
void source_close(void);

#endif
