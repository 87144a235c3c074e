/* SPDX-License-Identifier: MIT */
/* A response's meaning by RFC 9112, parsed by independent code. */
#ifndef NYMBL_FUZZ_MODEL_H
#define NYMBL_FUZZ_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODEL_VALUE_MAX 512

typedef struct model {
    enum {
        MODEL_INCOMPLETE, /* more bytes would have to follow */
        MODEL_COMPLETE,
        MODEL_INVALID /* or ambiguous */
    } state;
    const char *why; /* why it is incomplete */
    bool has_head;   /* the final response's head is complete */
    int status;
    enum { FRAME_NONE, FRAME_LENGTH, FRAME_CHUNKED, FRAME_CLOSE } framing;
    char *body; /* as far as it was received; freed by model_free() */
    size_t size;
    char etag[MODEL_VALUE_MAX]; /* the last one, unchanged */
    char modified[MODEL_VALUE_MAX];
    char range[MODEL_VALUE_MAX]; /* Content-Range */
} model;

/* Parse one response (after its interim ones) from the bytes that a server has
 * sent. `ended`: the connection was closed in order after them. */
void model_read(model *out, const char *bytes, size_t size, bool ended);
void model_free(model *model);

#endif
