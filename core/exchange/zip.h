/* SPDX-License-Identifier: MIT */
/* ZIP files: whether one is a document of Word. */
#ifndef NYMBL_EXCHANGE_ZIP_H
#define NYMBL_EXCHANGE_ZIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NYMBL__DOCX                                                            \
    "application/vnd.openxmlformats-officedocument."                           \
    "wordprocessingml.document"

/* Bytes that can be looked at before they are sent. */
typedef struct nymbl__view {
    /* Copy bytes from a position on; fewer only at the end. */
    size_t (*read)(void *payload, int64_t at, void *buf, size_t cap);
    void *payload;
    int64_t size;
    bool whole; /* nothing comes behind them */
} nymbl__view;

/* A ZIP file of which more must be seen before it is known what it is. */
#define NYMBL__ZIP "application/zip"

/* NYMBL__DOCX, NYMBL__ZIP, or "" if it is another kind of file. */
const char *nymbl__zip_type(const nymbl__view *view);

#endif
