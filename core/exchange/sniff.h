/* SPDX-License-Identifier: MIT */
/* What bytes are. */
#ifndef NYMBL_EXCHANGE_SNIFF_H
#define NYMBL_EXCHANGE_SNIFF_H

#include "exchange/zip.h"
#include "nymbl.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* First bytes that are looked at; readers of PDF look for its signature in so
 * many (ISO 32000-1, annex H, note 13). */
#define NYMBL__SNIFF 1024
#define NYMBL__SIGNATURE_MAX 8 /* bytes of the longest other signature */
#define NYMBL__TEXT_MIN 16     /* bytes that tell what text is */

/* The first bytes of a document, and what is known of it. */
typedef struct nymbl__look {
    const char *known; /* the document's media type, or "" */
    const char *given; /* the response's, or "" */
    bool has_size;     /* the document's size is known, and will be compared */
    bool has_length;   /* so is the size, or the response's length */
    bool encoded;      /* the response has a Content-Encoding */
    const char *bytes;
    size_t size; /* NYMBL__SNIFF at most */
    bool all;    /* nothing comes behind them */
} nymbl__look;

/* Why the types contradict each other, or NULL. */
const char *nymbl__sniff_type(const char *known, const char *given);
/* NYMBL_OK if it may be the document, NYMBL_AGAIN if more bytes must be seen,
 * or NYMBL_CORRUPT with a reason. */
nymbl_kind nymbl__sniff(const nymbl__look *look, const char **reason);
/* Whether the head alone does not speak against the document; its bytes are
 * not looked at. */
bool nymbl__sniff_is_clear(const nymbl__look *look);
/* Whether text begins as a JSON object or array. */
bool nymbl__sniff_is_json(const char *bytes, size_t size);

/* The accepted type that the bytes are of, or NYMBL__ZIP; "" if they are of
 * none, NULL if too few of them can be seen. */
const char *nymbl__sniff_view(const nymbl__view *view);
/* Whether they may be of a media type, as far as can be seen. */
bool nymbl__sniff_is_type(const nymbl__view *view, const char *type);

#endif
