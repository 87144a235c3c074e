/* SPDX-License-Identifier: MIT */
/* Detection of document types by their first bytes: the type of an upload, and
 * whether a download is the document or a gateway's substitute for it. */
#include "exchange/sniff.h"

#include "base/ascii.h"
#include "base/error.h"

#include <string.h>

/* Compare a media type without its parameters (RFC 9110, section 8.3.1). */
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

const char *nymbl__sniff_type_mismatch(const char *expected_type,
                                       const char *response_type)
{
    if (*expected_type == '\0')
        return NULL;
    if (type_is_json(response_type) && !type_is_json(expected_type))
        return nymbl__reason_type_mismatch;
    if (type_is_html(response_type) && !type_is_html(expected_type))
        return nymbl__reason_type_mismatch;
    return NULL;
}

static bool begins(const char *bytes, size_t size, const char *with)
{
    size_t length = strlen(with);

    return size >= length && memcmp(bytes, with, length) == 0;
}

/* The beginning of each accepted type's signature in base64. API Gateway sends
 * binary content in base64 if it is configured to treat it as text (AWS,
 * "payload encodings workflow"). */
static const struct {
    const char *type;
    const char *begins;
} base64_signatures[] = {
    {"application/pdf", "JVBERi"}, /* %PDF */
    {"image/png", "iVBORw0KGgo"},  {"image/jpeg", "/9j/"},
    {"image/tiff", "SUkqA"}, /* II*\0 */
    {"image/tiff", "SUkrA"}, /* II+\0, BigTIFF */
    {"image/tiff", "TU0AK"}, /* MM\0* and MM\0+ */
    {NYMBL__DOCX, "UEsDB"},  /* PK\3\4 */
};

static bool type_is_accepted(const char *type)
{
    for (size_t i = 0;
         i < sizeof(base64_signatures) / sizeof(base64_signatures[0]); i++) {
        if (type_is(type, base64_signatures[i].type))
            return true;
    }
    return false;
}

static bool is_base64(const char *type, const char *bytes, size_t size)
{
    if (size > 0 && *bytes == '"') { /* it may be sent as a JSON string */
        bytes++;
        size--;
    }
    for (size_t i = 0;
         i < sizeof(base64_signatures) / sizeof(base64_signatures[0]); i++) {
        if (type_is(type, base64_signatures[i].type) &&
            begins(bytes, size, base64_signatures[i].begins))
            return true;
    }
    return false;
}

/* Skip a byte order mark and white space. */
static const char *text_skip_blanks(const char *bytes, size_t *size)
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

/* Skip an opening brace or bracket, and the white space after it, which may be
 * long. */
static size_t text_skip_opening(const char *text, size_t size)
{
    size_t at = size > 0 && (*text == '{' || *text == '[') ? 1 : 0;

    while (at > 0 && at < size && memchr(" \t\r\n", text[at], 4) != NULL)
        at++;
    return at;
}

/* Whether text begins like a gateway's substitute for a document: HTML or XML
 * (a login page, an object store's error), JSON, or a data: URL (RFC 2397). No
 * document of an accepted type begins like that. */
static bool is_substitute(const char *text, size_t size)
{
    size_t at = text_skip_opening(text, size);

    if (size >= 5 && nymbl__ascii_begins(text, "data:", 5))
        return true;
    if (size > 1 && *text == '<')
        return memchr("!?/", text[1], 3) != NULL ||
               (text[1] >= 'a' && text[1] <= 'z') ||
               (text[1] >= 'A' && text[1] <= 'Z');
    if (at == 0 || at == size)
        return false;
    return *text == '{' ? text[at] == '"' || text[at] == '}'
                        : memchr("\"[]{-0123456789tfn", text[at], 18) != NULL;
}

/* Whether text begins like an error body of the service or of API Gateway (AWS,
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

/* ---- uploads ---- */

/* The accepted type whose signature the bytes begin with; NYMBL__ZIP for any
 * ZIP file; or "". */
static const char *signature_at_start(const char *bytes, size_t size)
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

/* PDF readers accept the signature anywhere in the first 1,024 bytes (ISO
 * 32000-1, annex H, note 13). */
static bool has_pdf_signature(const char *bytes, size_t size)
{
    return memmem(bytes, size, "%PDF-", 5) != NULL;
}

static const char *signature_type(const char *bytes, size_t size)
{
    const char *type = signature_at_start(bytes, size);

    return *type == '\0' && has_pdf_signature(bytes, size) ? "application/pdf"
                                                           : type;
}

const char *nymbl__sniff_detect_type(const nymbl__view *view)
{
    char bytes[NYMBL__SNIFF_MAX];
    size_t size = view->size < (int64_t)sizeof(bytes) ? (size_t)view->size
                                                      : sizeof(bytes);
    const char *type;

    size = view->read(view->payload, 0, bytes, size);
    type = signature_type(bytes, size);
    if (strcmp(type, NYMBL__ZIP) == 0)
        return nymbl__zip_type(view);
    if (*type == '\0' && size < sizeof(bytes) && !view->complete)
        return NULL; /* the bytes that follow may decide */
    return type;
}

bool nymbl__sniff_may_be_type(const nymbl__view *view, const char *type)
{
    const char *detected = nymbl__sniff_detect_type(view);

    if (detected == NULL ||
        (strcmp(detected, NYMBL__ZIP) == 0 && type_is(type, NYMBL__DOCX)))
        return true;
    return *detected != '\0' && type_is(type, detected);
}

/* ---- downloads ---- */

static size_t input_read(void *payload, int64_t at, void *buf, size_t cap)
{
    const nymbl__sniff_input *input = *(const nymbl__sniff_input **)payload;
    size_t left = input->size - (size_t)at;

    if (cap > left)
        cap = left;
    memcpy(buf, input->bytes + at, cap);
    return cap;
}

/* The accepted type whose signature the bytes begin with, or "". A ZIP file is
 * assumed to be a NYMBL__DOCX unless its first bytes disprove that. */
static const char *signature_find(const nymbl__sniff_input *input)
{
    const char *type = signature_at_start(input->bytes, input->size);
    nymbl__view view = {.read = input_read,
                        .payload = &input,
                        .size = (int64_t)input->size,
                        .complete =
                            input->complete && input->size < NYMBL__SNIFF_MAX};

    if (strcmp(type, NYMBL__ZIP) == 0)
        type = nymbl__zip_type(&view);
    return type == NULL || strcmp(type, NYMBL__ZIP) == 0 ? NYMBL__DOCX : type;
}

/* Set the reason and return NYMBL_CORRUPT. */
static nymbl_kind mismatch_report(const char **reason, const char *mismatch)
{
    *reason = mismatch;
    return NYMBL_CORRUPT;
}

/* Check bytes that begin with the signature of an accepted type. `label`: the
 * reason if the head contradicts the document, or NULL. The signature outweighs
 * the head only if the length of the content is known too. */
static nymbl_kind signature_check(const nymbl__sniff_input *input,
                                  const char *type, const char *label,
                                  const char **reason)
{
    bool is_expected =
        *input->expected_type == '\0' || type_is(input->expected_type, type);

    if (label != NULL && !(is_expected && input->has_length))
        return mismatch_report(reason, label);
    /* if the type is not the expected one, only a matching size can prove that
     * this is the document */
    if (!is_expected && type_is_accepted(input->expected_type) &&
        !input->has_size)
        return mismatch_report(reason, nymbl__reason_type_mismatch);
    return NYMBL_OK;
}

/* The reason if bytes without a signature are not the document, or NULL. */
static const char *text_mismatch(const nymbl__sniff_input *input,
                                 const char *text, size_t size,
                                 bool is_proof_needed)
{
    const char *type = *input->expected_type != '\0' ? input->expected_type
                                                     : input->response_type;

    if (is_base64(type, text, size))
        return nymbl__reason_base64;
    if (type_is_accepted(type) || is_proof_needed)
        return is_substitute(text, size) ? nymbl__reason_type_mismatch : NULL;
    if (!type_is_json(input->expected_type) && is_error_json(text, size) &&
        (*input->expected_type != '\0' || type_is_json(input->response_type) ||
         *input->response_type == '\0'))
        return nymbl__reason_type_mismatch;
    return NULL;
}

nymbl_kind nymbl__sniff_check(const nymbl__sniff_input *input,
                              const char **reason)
{
    const char *label = input->encoded
                            ? nymbl__reason_content_encoding
                            : nymbl__sniff_type_mismatch(input->expected_type,
                                                         input->response_type);
    const char *signature = signature_find(input);
    bool may_follow = input->size < NYMBL__SNIFF_MAX && !input->complete;
    bool may_be_pdf = *input->expected_type == '\0' ||
                      type_is(input->expected_type, "application/pdf");
    size_t size = input->size;
    const char *text, *mismatch;
    bool is_proof_needed;

    /* the answer must not depend on how the bytes are divided */
    if (may_follow && begins(input->bytes, input->size, "PK\3\4"))
        return NYMBL_AGAIN;
    if (*signature != '\0')
        return signature_check(input, signature, label, reason);
    if (input->encoded && !(may_follow && input->size < NYMBL__SIGNATURE_MAX))
        return mismatch_report(reason, label);
    text = text_skip_blanks(input->bytes, &size);
    if (may_follow && size - text_skip_opening(text, size) < NYMBL__TEXT_MIN)
        return NYMBL_AGAIN;
    /* neither the head nor the metadata proves that this is the document, so
     * its content must */
    is_proof_needed =
        label != NULL ||
        (!input->has_size && !type_is_accepted(input->response_type) &&
         (*input->expected_type == '\0' ||
          type_is_accepted(input->expected_type)));
    mismatch = text_mismatch(input, text, size, is_proof_needed);
    if (mismatch != NULL)
        return mismatch_report(reason, mismatch);
    if (!is_proof_needed)
        return NYMBL_OK;
    if (may_be_pdf && has_pdf_signature(input->bytes, input->size))
        return label == NULL || input->has_length
                   ? NYMBL_OK
                   : mismatch_report(reason, label);
    if (may_be_pdf && may_follow)
        return NYMBL_AGAIN;
    for (size_t i = 0;
         i < sizeof(base64_signatures) / sizeof(base64_signatures[0]); i++) {
        if (*input->expected_type == '\0' &&
            is_base64(base64_signatures[i].type, text, size))
            return mismatch_report(reason, nymbl__reason_base64);
    }
    return mismatch_report(reason, nymbl__reason_type_mismatch);
}

bool nymbl__sniff_head_suffices(const nymbl__sniff_input *input)
{
    return !input->encoded &&
           nymbl__sniff_type_mismatch(input->expected_type,
                                      input->response_type) == NULL &&
           (input->has_size || *input->expected_type != '\0' ||
            type_is_accepted(input->response_type));
}

nymbl_kind nymbl__sniff_check_head(const nymbl__sniff_input *input,
                                   const char **reason)
{
    if (nymbl__sniff_head_suffices(input))
        return NYMBL_OK;
    return mismatch_report(reason, input->encoded
                                       ? nymbl__reason_content_encoding
                                       : nymbl__reason_type_mismatch);
}

bool nymbl__sniff_is_json(const char *bytes, size_t size)
{
    const char *text = text_skip_blanks(bytes, &size);

    return size > 0 && (*text == '{' || *text == '[');
}
