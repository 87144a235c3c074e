/* SPDX-License-Identifier: MIT */
/* Detection of document types by their first bytes. */
#ifndef NYMBL_EXCHANGE_SNIFF_H
#define NYMBL_EXCHANGE_SNIFF_H

#include "exchange/zip.h"
#include "nymbl.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Number of first bytes that are inspected. PDF readers accept the signature
 * anywhere within them (ISO 32000-1, annex H, note 13). */
#define NYMBL__SNIFF_MAX 1024
#define NYMBL__SIGNATURE_MAX 8 /* longest signature of the other types */
#define NYMBL__TEXT_MIN 16     /* bytes that are enough to classify text */

/* The first bytes of a downloaded document, and what the metadata and the
 * response say about it. */
typedef struct nymbl__sniff_input {
    const char *expected_type; /* by the document's metadata, or "" */
    const char *response_type; /* by the response, or "" */
    bool has_size;   /* the document's size is known and will be compared */
    bool has_length; /* that size or the response's length is known */
    bool encoded;    /* the response has a Content-Encoding */
    const char *bytes;
    size_t size;   /* at most NYMBL__SNIFF_MAX */
    bool complete; /* no more bytes follow */
} nymbl__sniff_input;

/* The reason if the response's type contradicts the expected one, or NULL. */
const char *nymbl__sniff_type_mismatch(const char *expected_type,
                                       const char *response_type);
/* Check the first bytes of a download. Returns NYMBL_OK if they may belong to
 * the document, NYMBL_AGAIN if more bytes are needed, or NYMBL_CORRUPT with a
 * reason. */
nymbl_kind nymbl__sniff_check(const nymbl__sniff_input *input,
                              const char **reason);
/* Whether the head suffices to publish the response to the caller before its
 * first bytes are checked. */
bool nymbl__sniff_head_suffices(const nymbl__sniff_input *input);
/* Check a range that lacks the first bytes, by the head alone: it is
 * NYMBL_CORRUPT, with a reason, unless the head suffices. */
nymbl_kind nymbl__sniff_check_head(const nymbl__sniff_input *input,
                                   const char **reason);
/* Whether text begins like a JSON object or array. */
bool nymbl__sniff_is_json(const char *bytes, size_t size);

/* The accepted media type of the content; NYMBL__ZIP for a ZIP file of unknown
 * type; "" if the type is not accepted; NULL if too few bytes are available. */
const char *nymbl__sniff_detect_type(const nymbl__view *view);
/* Whether the content may have a media type, by the bytes that are available.
 */
bool nymbl__sniff_may_be_type(const nymbl__view *view, const char *type);

#endif
