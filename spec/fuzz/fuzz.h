/* SPDX-License-Identifier: MIT */
/* The interface of a fuzz target to its driver: libFuzzer, or driver.c. */
#ifndef NYMBL_FUZZ_H
#define NYMBL_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Try one input. Aborts if an invariant is broken. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Print what the inputs so far have reached. Returns false if a part of the
 * target was never reached: a replay would then not test that part. */
bool fuzz_report(void);

/* Abort if an invariant is broken. */
static inline void require(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "BROKEN: %s\n", what);
        abort();
    }
}

/* A text of these bytes, to be freed. It has its own block, so that a sanitizer
 * detects overreads. */
static inline char *text_of(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);

    require(text != NULL, "memory");
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    return text;
}

/* Cut the next field off an input: the bytes before a separator, or all. */
static inline char *field_cut(const uint8_t **data, size_t *size, int separator)
{
    const uint8_t *end = *size > 0 ? memchr(*data, separator, *size) : NULL;
    size_t length = end != NULL ? (size_t)(end - *data) : *size;
    char *text = text_of(*data, length);

    *size -= end != NULL ? length + 1 : length;
    *data += end != NULL ? length + 1 : length;
    return text;
}

#endif
