/* SPDX-License-Identifier: MIT */
/* The token endpoint's response (RFC 6749, section 5.1): the only JSON that the
 * core reads. */
#include "nymbl.h"

#include "base/ascii.h"
#include "base/error.h"
#include "base/secret.h"

#include <string.h>

#define DEPTH_MAX 32               /* nested arrays and objects */
#define EXPONENT_MAX 400           /* a larger exponent changes no double */
#define LIFETIME_DEFAULT 300.0     /* seconds, as the service sends */
#define LIFETIME_MAX (24.0 * 3600) /* seconds */

/* The rest of a JSON text (RFC 8259). */
struct json {
    const char *at;
    const char *end;
    size_t values; /* number of values so far, see NYMBL_RESPONSE_MAX_VALUES */
};

/* A decoded string. If its size exceeds the capacity, `data` has only its
 * beginning. */
struct string {
    char *data;
    size_t capacity;
    size_t size;
};

/* The members of the response. If a name occurs twice, the second value counts,
 * as in most decoders. */
struct response {
    struct string token; /* access_token; empty if it is not a string */
    bool is_bearer;      /* token_type is "bearer" */
    double seconds;      /* expires_in, or 0 */
};

/* ---- JSON ---- */

static bool byte_is(const struct json *json, char first, char last)
{
    return json->at < json->end && *json->at >= first && *json->at <= last;
}

/* Read one byte if it is the next one. */
static bool byte_read(struct json *json, char byte)
{
    if (!byte_is(json, byte, byte))
        return false;
    json->at++;
    return true;
}

static void blanks_skip(struct json *json)
{
    while (json->at < json->end && memchr(" \t\r\n", *json->at, 4) != NULL)
        json->at++;
}

/* Skip white space, then read a structural character or a quote if it is the
 * next byte. */
static bool structural_read(struct json *json, char byte)
{
    blanks_skip(json);
    return byte_read(json, byte);
}

static bool word_read(struct json *json, const char *word)
{
    size_t size = strlen(word);

    if ((size_t)(json->end - json->at) < size ||
        memcmp(json->at, word, size) != 0)
        return false;
    json->at += size;
    return true;
}

/* Read a UTF-16 code unit: four hexadecimal digits. */
static bool unit_read(struct json *json, int *out)
{
    *out = 0;
    for (int i = 0; i < 4; i++) {
        static const char digits[] = "0123456789abcdef0123456789ABCDEF";
        const char *digit = json->at < json->end
                                ? memchr(digits, *json->at, sizeof(digits) - 1)
                                : NULL;

        if (digit == NULL)
            return false;
        *out = *out * 16 + (int)((digit - digits) % 16);
        json->at++;
    }
    return true;
}

/* Read an escape sequence after its backslash. A character that is not ASCII
 * becomes '\x80', because no valid value contains one. */
static bool escape_read(struct json *json, char *out)
{
    static const char names[] = "\"\\/bfnrt'"; /* \' as in JavaScript */
    static const char bytes[] = "\"\\/\b\f\n\r\t'";
    const char *name;
    int unit;

    if (byte_read(json, 'u')) {
        if (!unit_read(json, &unit))
            return false;
        *out = unit < 0x80 ? (char)unit : '\x80';
        return true;
    }
    if (json->at == json->end)
        return false;
    name = memchr(names, *json->at, sizeof(names) - 1);
    if (name == NULL)
        return false;
    *out = bytes[name - names];
    json->at++;
    return true;
}

/* Read a string after its opening quote. As with the decoder of the Lua module,
 * it may contain control characters, but no NUL. */
static bool string_read(struct json *json, struct string *out)
{
    out->size = 0;
    while (!byte_read(json, '"')) {
        char byte;

        if (json->at == json->end || *json->at == '\0')
            return false;
        byte = *json->at++;
        if (byte == '\\' && !escape_read(json, &byte))
            return false;
        if (out->size < out->capacity)
            out->data[out->size] = byte;
        out->size++;
    }
    return true;
}

static bool string_is(const struct string *string, const char *text)
{
    return string->size == strlen(text) &&
           memcmp(string->data, text, string->size) == 0;
}

/* Read the name of a member and its colon. */
static bool name_read(struct json *json, struct string *out)
{
    return structural_read(json, '"') && string_read(json, out) &&
           structural_read(json, ':');
}

/* Read a number. strtod() would depend on the locale. `out` may be NULL. */
static bool number_read(struct json *json, double *out)
{
    bool is_negative = byte_read(json, '-'), is_small = false;
    double value = 0.0, unit = 1.0;
    int exponent = 0;

    if (!byte_is(json, '0', '9'))
        return false;
    if (!byte_read(json, '0')) {
        while (byte_is(json, '0', '9'))
            value = value * 10.0 + (*json->at++ - '0');
    }
    if (byte_read(json, '.')) {
        if (!byte_is(json, '0', '9'))
            return false;
        while (byte_is(json, '0', '9')) {
            unit /= 10.0;
            value += unit * (*json->at++ - '0');
        }
    }
    if (byte_read(json, 'e') || byte_read(json, 'E')) {
        is_small = byte_read(json, '-');
        if (!is_small)
            byte_read(json, '+');
        if (!byte_is(json, '0', '9'))
            return false;
        while (byte_is(json, '0', '9')) {
            if (exponent < EXPONENT_MAX)
                exponent = exponent * 10 + (*json->at - '0');
            json->at++;
        }
    }
    if (out == NULL)
        return true;
    while (exponent-- > 0)
        value = is_small ? value / 10.0 : value * 10.0;
    *out = is_negative ? -value : value;
    return true;
}

/* Count a value. Returns false if there are too many. */
static bool value_count(struct json *json)
{
    json->values++;
    return json->values <= NYMBL_RESPONSE_MAX_VALUES;
}

static bool value_skip(struct json *json, int depth);

/* Skip the elements of an array or the members of an object, and its end. */
static bool elements_skip(struct json *json, char end, int depth)
{
    struct string name = {NULL, 0, 0};

    if (structural_read(json, end))
        return true;
    do {
        if (end == '}' && !name_read(json, &name))
            return false;
        if (!value_count(json) || !value_skip(json, depth))
            return false;
    } while (structural_read(json, ','));
    return structural_read(json, end);
}

/* Skip a value of any type. `depth`: number of arrays and objects around it. */
static bool value_skip(struct json *json, int depth)
{
    struct string string = {NULL, 0, 0};

    if (structural_read(json, '{'))
        return depth < DEPTH_MAX && elements_skip(json, '}', depth + 1);
    if (byte_read(json, '['))
        return depth < DEPTH_MAX && elements_skip(json, ']', depth + 1);
    if (byte_read(json, '"'))
        return string_read(json, &string);
    return word_read(json, "true") || word_read(json, "false") ||
           word_read(json, "null") || number_read(json, NULL);
}

/* ---- the response ---- */

/* Parse seconds; digits after a point are ignored. Returns 0 if the text is
 * anything else. */
static double seconds_parse(const struct string *string)
{
    double seconds = 0.0;
    size_t i = 0;

    if (string->size > string->capacity)
        return 0.0;
    while (i < string->size && string->data[i] >= '0' && string->data[i] <= '9')
        seconds = seconds * 10.0 + (string->data[i++] - '0');
    if (i > 0 && i < string->size && string->data[i] == '.')
        i++;
    while (i < string->size && string->data[i] >= '0' && string->data[i] <= '9')
        i++;
    return i == string->size ? seconds : 0.0;
}

/* Read expires_in. Services send a number or, against the standard, a string.
 */
static bool seconds_read(struct json *json, double *out)
{
    char text[32];
    struct string string = {text, sizeof(text), 0};
    bool is_read;

    *out = 0.0;
    if (structural_read(json, '"')) {
        is_read = string_read(json, &string);
        *out = is_read ? seconds_parse(&string) : 0.0;
        return is_read;
    }
    if (byte_is(json, '-', '-') || byte_is(json, '0', '9'))
        return number_read(json, out);
    return value_skip(json, 1);
}

/* Read token_type. A value that is not a string is ignored. */
static bool type_read(struct json *json, bool *is_bearer)
{
    char text[sizeof("bearer")] = "";
    struct string string = {text, sizeof(text) - 1, 0};

    *is_bearer = true;
    if (!structural_read(json, '"'))
        return value_skip(json, 1);
    if (!string_read(json, &string))
        return false;
    *is_bearer =
        string.size == sizeof(text) - 1 && nymbl__ascii_equal(text, "bearer");
    return true;
}

static bool member_read(struct json *json, struct response *out)
{
    char text[sizeof("access_token")];
    struct string name = {text, sizeof(text), 0};

    if (!name_read(json, &name) || !value_count(json))
        return false;
    if (string_is(&name, "access_token")) {
        out->token.size = 0;
        return structural_read(json, '"') ? string_read(json, &out->token)
                                          : value_skip(json, 1);
    }
    if (string_is(&name, "token_type"))
        return type_read(json, &out->is_bearer);
    if (string_is(&name, "expires_in"))
        return seconds_read(json, &out->seconds);
    return value_skip(json, 1);
}

static bool response_read(struct json *json, struct response *out)
{
    word_read(json, "\xef\xbb\xbf"); /* a byte order mark (RFC 8259, 8.1) */
    if (!structural_read(json, '{'))
        return false;
    if (!structural_read(json, '}')) {
        do {
            if (!member_read(json, out))
                return false;
        } while (structural_read(json, ','));
        if (!structural_read(json, '}'))
            return false;
    }
    blanks_skip(json);
    return json->at == json->end;
}

/* Whether a token may follow "Bearer ": it must be visible ASCII, which is
 * slightly more than RFC 6750, section 2.1, allows. */
static bool token_is_valid(const struct string *token)
{
    if (token->size == 0 || token->size > token->capacity)
        return false;
    for (size_t i = 0; i < token->size; i++) {
        if (token->data[i] < '!' || token->data[i] > '~')
            return false;
    }
    return true;
}

nymbl_kind nymbl_token_read(nymbl_token *out, const char *data, size_t size,
                            nymbl_error *err)
{
    struct json json = {data, data != NULL ? data + size : NULL, 1};
    struct response response = {.token = {out->value, NYMBL_TOKEN_MAX, 0},
                                .is_bearer = true};

    if (!response_read(&json, &response) || !response.is_bearer ||
        !token_is_valid(&response.token)) {
        nymbl_token_wipe(out);
        return nymbl__error_set(err, NYMBL_PROTOCOL,
                                json.values > NYMBL_RESPONSE_MAX_VALUES
                                    ? nymbl__reason_response_too_long
                                    : nymbl__reason_token_response);
    }
    out->value[response.token.size] = '\0';
    out->expires_in =
        response.seconds > 0.0 ? response.seconds : LIFETIME_DEFAULT;
    if (out->expires_in > LIFETIME_MAX)
        out->expires_in = LIFETIME_MAX;
    return NYMBL_OK;
}

void nymbl_token_wipe(nymbl_token *token)
{
    if (token != NULL)
        nymbl__secret_wipe(token, sizeof(*token));
}
