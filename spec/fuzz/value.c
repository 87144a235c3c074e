/* SPDX-License-Identifier: MIT */
/* Values of header fields: numbers, lengths, ranges, status lines, entity-tags
 * and dates. Each is compared with the grammar in its RFC, as a regular
 * expression. The first byte selects the parser. */
#include "exchange/value.h"
#include "base/validator.h"
#include "exchange/content_range.h"
#include "fuzz.h"

#include <inttypes.h>
#include <regex.h>

#define DIGITS "[0-9]{1,18}"
#define TIME "[0-9]{2}:[0-9]{2}:[0-9]{2}"

enum { NUMBER, LENGTH, RANGE, STATUS, TAG, DATE, PARSERS };

static const struct {
    const char *name;
    const char *grammar;
} parsers[PARSERS] = {
    [NUMBER] = {"number", "^[0-9]+$"},
    [LENGTH] = {"length", "^[0-9]+([ \t]*,[ \t]*[0-9]+)*$"},
    [RANGE] = {"range", "^[Bb][Yy][Tt][Ee][Ss] ([0-9]+-[0-9]+/([0-9]+|\\*)|"
                        "\\*/.*)$"},
    [STATUS] = {"status", "^HTTP/1\\.[0-9] +[1-9][0-9][0-9]([ \r\n]|$)"},
    [TAG] = {"tag", "^\"[!#-~\x80-\xff]*\"$"},
    [DATE] = {"date",
              "^([A-Za-z]{3}, [0-9]{2} [A-Za-z]{3} [0-9]{4} " TIME " GMT|"
              "[A-Za-z]{6,}, [0-9]{2}-[A-Za-z]{3}-[0-9]{2} " TIME " GMT|"
              "[A-Za-z]{3} [A-Za-z]{3} [0-9 ][0-9] " TIME " [0-9]{4})$"},
};

static unsigned good[PARSERS], bad[PARSERS];

static bool fits(int parser, const char *text)
{
    static regex_t compiled[PARSERS];
    static bool ready[PARSERS];

    if (!ready[parser])
        require(regcomp(&compiled[parser], parsers[parser].grammar,
                        REG_EXTENDED | REG_NOSUB) == 0,
                "grammar");
    ready[parser] = true;
    return regexec(&compiled[parser], text, 0, NULL, 0) == 0;
}

/* Whether every number in a text is equal to one value, and fits. */
static bool all_are(const char *text, int64_t value)
{
    char digits[24];
    size_t length = (size_t)snprintf(digits, sizeof(digits), "%" PRId64, value);

    while (*(text += strcspn(text, "0123456789")) != '\0') {
        size_t all = strspn(text, "0123456789"), zeros = strspn(text, "0");
        const char *start = text + (zeros < all ? zeros : all - 1);

        if ((size_t)(text + all - start) != length ||
            memcmp(start, digits, length) != 0)
            return false;
        text += all;
    }
    return true;
}

static bool range_try(const char *text)
{
    int64_t start, last, total, again[3];
    char formatted[100], size[24] = "*";

    nymbl__content_range_parse(text, &start, &last, &total);
    if (start < 0) {
        require(start == -1 && last == -1 && total >= -1, "no range");
        return total >= 0;
    }
    require(last >= start - 1 && (total < 0 || last < total), "range");
    require(nymbl__content_range_size(start, last) >= 0, "size of a range");
    if (total >= 0)
        snprintf(size, sizeof(size), "%" PRId64, total);
    snprintf(formatted, sizeof(formatted), "bytes %" PRId64 "-%" PRId64 "/%s",
             start, last, size);
    if (last < 0)
        return true; /* 0--1: an empty range at the beginning has no form */
    nymbl__content_range_parse(formatted, &again[0], &again[1], &again[2]);
    require(again[0] == start && again[1] == last && again[2] == total,
            "a range that was formatted");
    return true;
}

static bool value_try(int parser, const char *text)
{
    int64_t value;
    int status;

    switch (parser) {
    case NUMBER:
        value = nymbl__value_parse_number(text);
        require(value < 0 || value == INT64_MAX || all_are(text, value),
                "number");
        return value >= 0;
    case LENGTH:
        value = nymbl__value_parse_length(text);
        require(value < 0 || value == INT64_MAX || all_are(text, value),
                "length");
        require((value < 0) || fits(LENGTH, text), "grammar");
        return value >= 0;
    case RANGE:
        return range_try(text);
    case STATUS:
        status = nymbl__value_parse_status(text, strlen(text));
        require(status == 0 || (status >= 100 && status <= 999), "status");
        return status != 0;
    case TAG:
        return nymbl__validator_is_strong_tag(text);
    default:
        return nymbl__validator_is_date(text);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int parser;
    char *text;
    bool accepted;

    if (size == 0)
        return 0;
    parser = (data[0] + PARSERS - '0' % PARSERS) % PARSERS;
    text = text_of(data + 1, size - 1);
    accepted = value_try(parser, text);
    if (accepted)
        require(fits(parser, text), parsers[parser].grammar);
    /* the grammar says less than these two parsers: numbers must agree */
    if (!accepted && parser != LENGTH && parser != RANGE)
        require(!fits(parser, text), parsers[parser].grammar);
    (accepted ? good : bad)[parser]++;
    free(text);
    return 0;
}

bool fuzz_report(void)
{
    bool all = true;

    for (int i = 0; i < PARSERS; i++) {
        printf("%s: %u accepted, %u rejected\n", parsers[i].name, good[i],
               bad[i]);
        all = all && good[i] > 0 && bad[i] > 0;
    }
    return all;
}
