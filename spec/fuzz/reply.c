/* SPDX-License-Identifier: MIT */
/* Replies of a server on a line, whose ends nymbl__resp_length() finds. */
#include "base/resp.h"
#include "fuzz.h"

/* Of longer inputs only so many prefixes are tried. */
#define PREFIXES 512

static unsigned complete, unfinished, invalid, too_large;

/* The answer for bytes behind which there is no memory to read. */
static nymbl_kind answer(const uint8_t *data, size_t size, size_t *length)
{
    char *exact = malloc(size > 0 ? size : 1);
    nymbl_kind kind;

    require(exact != NULL, "memory");
    memcpy(exact, data, size);
    *length = 0;
    kind = nymbl__resp_length(exact, size, length);
    require(kind == NYMBL_OK || *length == 0, "length of no reply");
    free(exact);
    return kind;
}

/* However the bytes arrive, the answer is the same: first NYMBL_AGAIN, then the
 * final one. */
static void prefixes_check(const uint8_t *data, size_t size, nymbl_kind kind,
                           size_t length)
{
    size_t step = size / PREFIXES + 1;
    bool decided = false;

    for (size_t cut = 0; cut < size; cut += step) {
        size_t cut_length;
        nymbl_kind cut_kind = answer(data, cut, &cut_length);

        if (cut_kind == NYMBL_AGAIN) {
            require(!decided, "an answer that is taken back");
            require(kind != NYMBL_OK || cut < length, "a reply found too late");
            continue;
        }
        decided = true;
        require(cut_kind == kind && cut_length == length, "another answer");
    }
}

/* Check the reply at the beginning of the bytes. Returns its length, or 0. */
static size_t reply_check(const uint8_t *data, size_t size)
{
    size_t length, other;
    nymbl_kind kind = answer(data, size, &length);

    prefixes_check(data, size, kind, length);
    switch (kind) {
    case NYMBL_OK:
        complete++;
        require(length >= 3 && length <= size, "length");
        require(length <= NYMBL_REPLY_MAX, "a reply that is too long");
        require(strchr("+-:$*", *data) != NULL, "type");
        require(memcmp(data + length - 2, "\r\n", 2) == 0, "end");
        require(answer(data, length, &other) == NYMBL_OK && other == length,
                "the reply alone");
        require(answer(data, length - 1, &other) == NYMBL_AGAIN,
                "the reply without its last byte");
        return length;
    case NYMBL_AGAIN:
        unfinished++;
        require(size < NYMBL_REPLY_MAX, "a reply without end");
        return 0;
    case NYMBL_TOO_LARGE:
        too_large++;
        return 0;
    default:
        require(kind == NYMBL_PROTOCOL, "kind");
        invalid++;
        return 0;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t at = 0, length;

    do {
        length = reply_check(data + at, size - at);
        at += length;
    } while (length > 0);
    return 0;
}

bool fuzz_report(void)
{
    printf("%u complete, %u unfinished, %u invalid, %u too large\n", complete,
           unfinished, invalid, too_large);
    return complete > 0 && unfinished > 0 && invalid > 0 && too_large > 0;
}
