/* SPDX-License-Identifier: MIT */
/* What a response says by RFC 9112, read a second time by other code. */
#ifndef NYMBL_FUZZ_MODEL_H
#define NYMBL_FUZZ_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODEL_VALUE_MAX 512

typedef struct model {
    enum {
        MODEL_INCOMPLETE, /* more bytes would have to come */
        MODEL_COMPLETE,
        MODEL_INVALID /* or open to two readings */
    } state;
    const char *why; /* it is not complete */
    bool has_head;   /* the final response's head is complete */
    int status;
    enum { FRAME_NONE, FRAME_LENGTH, FRAME_CHUNKED, FRAME_CLOSE } framing;
    char *body; /* as far as it goes; freed by model_free() */
    size_t size;
    char etag[MODEL_VALUE_MAX]; /* the last one, as it stands there */
    char modified[MODEL_VALUE_MAX];
    char range[MODEL_VALUE_MAX]; /* Content-Range */
} model;

/* Read one response (interim ones before it included) from the bytes that a
 * server has sent. `ended`: the connection was closed in order behind them. */
void model_read(model *out, const char *bytes, size_t size, bool ended);
void model_free(model *model);

#endif
