/* SPDX-License-Identifier: MIT */
/* Telling a document from what a gateway may send in its place. */
#include "internal.h"

#include <string.h>
#include <strings.h>

/* A media type without its parameters (RFC 9110, section 8.3.1). */
static bool type_is(const char *type, const char *name)
{
    size_t length = strcspn(type, "; \t");

    return length == strlen(name) && strncasecmp(type, name, length) == 0;
}

static bool type_is_json(const char *type)
{
    size_t length = strcspn(type, "; \t");

    return type_is(type, "application/json") ||
           (length > 5 && strncasecmp(type + length - 5, "+json", 5) == 0);
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
        return "type";
    if (type_is_html(given) && !type_is_html(known))
        return "type";
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
    {"image/png", "iVBORw0KGgo"},
    {"image/jpeg", "/9j/"},
    {"image/tiff", "SUkqA"}, /* II*\0 */
    {"image/tiff", "TU0AK"}, /* MM\0* */
    {"application/vnd.openxmlformats-officedocument."
     "wordprocessingml.document",
     "UEsDB"}, /* PK\3\4 */
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
    if (*bytes == '"' && size > 0) { /* a JSON string of it */
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

/* A page of HTML or XML for one of the accepted types, none of which begins so:
 * a proxy's sign-in page, or the error of an object storage (Amazon S3, "Error
 * responses"). */
static bool is_markup(const char *type, const char *bytes, size_t size)
{
    static const char *const beginnings[] = {"<!doctype", "<html", "<?xml"};

    if (!type_is_accepted(type))
        return false;
    if (begins(bytes, size, "\xef\xbb\xbf")) { /* a byte order mark */
        bytes += 3;
        size -= 3;
    }
    while (size > 0 && memchr(" \t\r\n", *bytes, 4) != NULL) {
        bytes++;
        size--;
    }
    for (size_t i = 0; i < sizeof(beginnings) / sizeof(beginnings[0]); i++) {
        size_t length = strlen(beginnings[i]);

        if (size >= length && strncasecmp(bytes, beginnings[i], length) == 0)
            return true;
    }
    return false;
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

const char *nymbl__sniff_bytes(const char *known, const char *given,
                               const char *bytes, size_t size)
{
    const char *type = *known != '\0' ? known : given;

    if (size == 0)
        return NULL;
    if (is_base64(type, bytes, size))
        return "base64";
    if (is_markup(type, bytes, size))
        return "type";
    if (!type_is_json(known) && is_error_json(bytes, size) &&
        (*known != '\0' || type_is_json(given) || *given == '\0'))
        return "type";
    return NULL;
}
