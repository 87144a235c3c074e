/* SPDX-License-Identifier: MIT */
/* What bytes are: the type of a document that is to be sent, and what a gateway
 * may send in the place of one. */
#include "exchange/sniff.h"

#include "base/ascii.h"

#include <string.h>

/* A media type without its parameters (RFC 9110, section 8.3.1). */
static bool type_is(const char *type, const char *name)
{
    size_t length = strcspn(type, "; \t");

    return length == strlen(name) && nymbl__ascii_begins(type, name, length);
}

static bool type_is_json(const char *type)
{
    size_t length = strcspn(type, "; \t");

    return type_is(type, "application/json") ||
           (length > 5 && nymbl__ascii_begins(type + length - 5, "+json", 5));
}

static bool type_is_html(const char *type)
{
    return type_is(type, "text/html") || type_is(type, "application/xhtml+xml");
}

const char *nymbl__sniff_type(const char *known, const char *given)
{
    if (*known == '\0')
        return NULL;
    if (type_is_json(given) && !type_is_json(known))
        return "type_mismatch";
    if (type_is_html(given) && !type_is_html(known))
        return "type_mismatch";
    return NULL;
}

static bool begins(const char *bytes, size_t size, const char *with)
{
    size_t length = strlen(with);

    return size >= length && memcmp(bytes, with, length) == 0;
}

/* The first characters of each accepted type's signature in base64: what an
 * API gateway makes of bytes when it takes them for text (AWS, "payload
 * encodings workflow"). */
static const struct {
    const char *type;
    const char *begins;
} encoded[] = {
    {"application/pdf", "JVBERi"}, /* %PDF */
    {"image/png", "iVBORw0KGgo"},  {"image/jpeg", "/9j/"},
    {"image/tiff", "SUkqA"}, /* II*\0 */
    {"image/tiff", "SUkrA"}, /* II+\0, BigTIFF */
    {"image/tiff", "TU0AK"}, /* MM\0* and MM\0+ */
    {NYMBL__DOCX, "UEsDB"},  /* PK\3\4 */
};

static bool type_is_accepted(const char *type)
{
    for (size_t i = 0; i < sizeof(encoded) / sizeof(encoded[0]); i++) {
        if (type_is(type, encoded[i].type))
            return true;
    }
    return false;
}

static bool is_base64(const char *type, const char *bytes, size_t size)
{
    if (size > 0 && *bytes == '"') { /* a JSON string of it */
        bytes++;
        size--;
    }
    for (size_t i = 0; i < sizeof(encoded) / sizeof(encoded[0]); i++) {
        if (type_is(type, encoded[i].type) &&
            begins(bytes, size, encoded[i].begins))
            return true;
    }
    return false;
}

/* Bytes without a byte order mark and white space at their beginning. */
static const char *text_begin(const char *bytes, size_t *size)
{
    if (begins(bytes, *size, "\xef\xbb\xbf")) {
        bytes += 3;
        *size -= 3;
    }
    while (*size > 0 && memchr(" \t\r\n", *bytes, 4) != NULL) {
        bytes++;
        *size -= 1;
    }
    return bytes;
}

/* Whether text begins as what a gateway sends in the place of a document: HTML
 * or XML (a sign-in page; the error of an object storage), JSON, or a data: URL
 * (RFC 2397). No accepted type begins so. */
static bool is_substitute(const char *text, size_t size)
{
    const char *rest = text + 1;
    size_t left = size - 1;

    if (size == 0)
        return false;
    if (*text == '<')
        return left > 0 && (memchr("!?/", *rest, 3) != NULL ||
                            (*rest >= 'a' && *rest <= 'z') ||
                            (*rest >= 'A' && *rest <= 'Z'));
    if (size >= 5 && nymbl__ascii_begins(text, "data:", 5))
        return true;
    if (*text != '{' && *text != '[')
        return false;
    while (left > 0 && memchr(" \t\r\n", *rest, 4) != NULL) {
        rest++;
        left--;
    }
    if (left == 0)
        return false;
    return *text == '{' ? *rest == '"' || *rest == '}'
                        : memchr("\"[]{-0123456789tfn", *rest, 18) != NULL;
}

/* Error bodies of the service and of gateways begin so (the guide; AWS,
 * "gateway responses"). */
static bool is_error_json(const char *bytes, size_t size)
{
    size_t i = 0;

    while (i < size && strchr(" \t\r\n", bytes[i]) != NULL && bytes[i] != 0)
        i++;
    if (i == size || bytes[i++] != '{')
        return false;
    while (i < size && strchr(" \t\r\n", bytes[i]) != NULL && bytes[i] != 0)
        i++;
    return begins(bytes + i, size - i, "\"error\"") ||
           begins(bytes + i, size - i, "\"message\"") ||
           begins(bytes + i, size - i, "\"Message\"");
}

/* ---- what is to be sent ---- */

/* The type whose signature bytes begin with, NYMBL__ZIP, or "". */
static const char *signature_start(const char *bytes, size_t size)
{
    static const struct {
        const char *bytes;
        size_t size;
        const char *type;
    } signatures[] = {
        {"%PDF-", 5, "application/pdf"},
        {"\x89PNG\r\n\x1a\n", 8, "image/png"},
        {"\xff\xd8\xff", 3, "image/jpeg"},
        {"II*\0", 4, "image/tiff"},
        {"MM\0*", 4, "image/tiff"},
        {"II+\0\10\0\0\0", 8, "image/tiff"}, /* BigTIFF: offsets of 8 bytes */
        {"MM\0+\0\10\0\0", 8, "image/tiff"},
        {"PK\3\4", 4, NYMBL__ZIP},
    };

    for (size_t i = 0; i < sizeof(signatures) / sizeof(signatures[0]); i++) {
        if (size >= signatures[i].size &&
            memcmp(bytes, signatures[i].bytes, signatures[i].size) == 0)
            return signatures[i].type;
    }
    return "";
}

/* ISO 32000-1, annex H, note 13: readers look for it in the first 1,024 bytes.
 */
static bool has_pdf(const char *bytes, size_t size)
{
    return memmem(bytes, size, "%PDF-", 5) != NULL;
}

static const char *signature_type(const char *bytes, size_t size)
{
    const char *type = signature_start(bytes, size);

    return *type == '\0' && has_pdf(bytes, size) ? "application/pdf" : type;
}

const char *nymbl__sniff_view(const nymbl__view *view)
{
    char bytes[NYMBL__SNIFF];
    size_t size = view->size < (int64_t)sizeof(bytes) ? (size_t)view->size
                                                      : sizeof(bytes);
    const char *type;

    size = view->read(view->payload, 0, bytes, size);
    type = signature_type(bytes, size);
    if (strcmp(type, NYMBL__ZIP) == 0)
        return nymbl__zip_type(view);
    if (*type == '\0' && size < sizeof(bytes) && !view->whole)
        return NULL; /* more may come */
    return type;
}

bool nymbl__sniff_is_type(const nymbl__view *view, const char *type)
{
    const char *seen = nymbl__sniff_view(view);

    if (seen == NULL ||
        (strcmp(seen, NYMBL__ZIP) == 0 && type_is(type, NYMBL__DOCX)))
        return true;
    return *seen != '\0' && type_is(type, seen);
}

/* ---- what has come ---- */

static size_t look_read(void *payload, int64_t at, void *buf, size_t cap)
{
    const nymbl__look *look = *(const nymbl__look **)payload;
    size_t left = look->size - (size_t)at;

    if (cap > left)
        cap = left;
    memcpy(buf, look->bytes + at, cap);
    return cap;
}

/* The accepted type whose signature the bytes begin with, or "". A ZIP file
 * that may still turn out to be a NYMBL__DOCX is taken for one. */
static const char *signature_find(const nymbl__look *look)
{
    const char *type = signature_start(look->bytes, look->size);
    nymbl__view view = {.read = look_read,
                        .payload = &look,
                        .size = (int64_t)look->size,
                        .whole = look->all && look->size < NYMBL__SNIFF};

    if (strcmp(type, NYMBL__ZIP) == 0)
        type = nymbl__zip_type(&view);
    return type == NULL || strcmp(type, NYMBL__ZIP) == 0 ? NYMBL__DOCX : type;
}

static nymbl_kind corrupt(const char **reason, const char *why)
{
    *reason = why;
    return NYMBL_CORRUPT;
}

/* The bytes begin as an accepted type does. A label counts for less than that
 * if the end of the bytes is marked, too. */
static nymbl_kind signature_judge(const nymbl__look *look, const char *type,
                                  const char *label, const char **reason)
{
    bool fits = *look->known == '\0' || type_is(look->known, type);

    if (label != NULL && !(fits && look->has_length))
        return corrupt(reason, label);
    /* a file of another type under this one's name: its size would prove it */
    if (!fits && type_is_accepted(look->known) && !look->has_size)
        return corrupt(reason, "type_mismatch");
    return NYMBL_OK;
}

/* What is wrong with bytes that begin with no signature, or NULL. */
static const char *text_problem(const nymbl__look *look, const char *text,
                                size_t size, bool is_proof_needed)
{
    const char *type = *look->known != '\0' ? look->known : look->given;

    if (is_base64(type, text, size))
        return "base64";
    if (type_is_accepted(type) || is_proof_needed)
        return is_substitute(text, size) ? "type_mismatch" : NULL;
    if (!type_is_json(look->known) && is_error_json(text, size) &&
        (*look->known != '\0' || type_is_json(look->given) ||
         *look->given == '\0'))
        return "type_mismatch";
    return NULL;
}

nymbl_kind nymbl__sniff(const nymbl__look *look, const char **reason)
{
    const char *label = look->encoded
                            ? "content_encoding"
                            : nymbl__sniff_type(look->known, look->given);
    const char *signature = signature_find(look);
    bool may_come = look->size < NYMBL__SNIFF && !look->all;
    bool may_be_pdf =
        *look->known == '\0' || type_is(look->known, "application/pdf");
    size_t size = look->size;
    const char *text, *problem;
    bool is_proof_needed;

    if (*signature != '\0')
        return signature_judge(look, signature, label, reason);
    if (look->encoded && !(may_come && look->size < NYMBL__SIGNATURE_MAX))
        return corrupt(reason, label);
    text = text_begin(look->bytes, &size);
    if (may_come && size < NYMBL__TEXT_MIN)
        return NYMBL_AGAIN;
    /* nothing but the response itself says what it is */
    is_proof_needed = label != NULL ||
                      (!look->has_size && !type_is_accepted(look->given) &&
                       (*look->known == '\0' || type_is_accepted(look->known)));
    problem = text_problem(look, text, size, is_proof_needed);
    if (problem != NULL)
        return corrupt(reason, problem);
    if (!is_proof_needed)
        return NYMBL_OK;
    if (may_be_pdf && has_pdf(look->bytes, look->size))
        return label == NULL || look->has_length ? NYMBL_OK
                                                 : corrupt(reason, label);
    if (may_be_pdf && may_come)
        return NYMBL_AGAIN;
    for (size_t i = 0; i < sizeof(encoded) / sizeof(encoded[0]); i++) {
        if (*look->known == '\0' && is_base64(encoded[i].type, text, size))
            return corrupt(reason, "base64");
    }
    return corrupt(reason, "type_mismatch");
}

bool nymbl__sniff_is_clear(const nymbl__look *look)
{
    return !look->encoded &&
           nymbl__sniff_type(look->known, look->given) == NULL &&
           (look->has_size || *look->known != '\0' ||
            type_is_accepted(look->given));
}

bool nymbl__sniff_is_json(const char *bytes, size_t size)
{
    const char *text = text_begin(bytes, &size);

    return size > 0 && (*text == '{' || *text == '[');
}
