/* SPDX-License-Identifier: MIT */
/* Detection of Word documents among ZIP files. */
#ifndef NYMBL_EXCHANGE_ZIP_H
#define NYMBL_EXCHANGE_ZIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NYMBL__DOCX                                                            \
    "application/vnd.openxmlformats-officedocument."                           \
    "wordprocessingml.document"

/* Random access to the bytes of a document that are available. */
typedef struct nymbl__view {
    /* Copy up to `cap` bytes from a position. Returns fewer only at the end. */
    size_t (*read)(void *payload, int64_t at, void *buf, size_t cap);
    void *payload;
    int64_t size;  /* number of bytes that are available */
    bool complete; /* no more bytes follow */
} nymbl__view;

/* The result if more of a ZIP file is needed to determine its type. */
#define NYMBL__ZIP "application/zip"

/* The type of a ZIP file: NYMBL__DOCX, NYMBL__ZIP, or "" for any other. */
const char *nymbl__zip_type(const nymbl__view *view);

#endif
