/* SPDX-License-Identifier: MIT */
/* The type of a document, by its first bytes or its ZIP entries. The input is
 * the document, after one byte of flags. What was found in some of the bytes
 * must not change if more arrive. */
#include "exchange/sniff.h"
#include "fuzz.h"

#define READS_MAX                                                              \
    (1u << 16) /* bytes that are read more often are a finding                 \
                */

static const char *const types[] = {
    "",          "application/pdf",  "image/png", "image/jpeg", "image/tiff",
    NYMBL__DOCX, "application/json", "text/html", "text/plain"};
#define TYPES (sizeof(types) / sizeof(types[0]))

/* The first five types, then ZIP and "undecided". */
enum { ZIP = 6, UNDECIDED, FOUND };
static unsigned found[FOUND], good, corrupt, again;

typedef struct bytes {
    const uint8_t *data;
    size_t size;
    uint64_t read;
} bytes;

static size_t bytes_read(void *payload, int64_t at, void *buf, size_t cap)
{
    bytes *bytes = payload;

    require(at >= 0 && (size_t)at <= bytes->size, "read behind the end");
    if (cap > bytes->size - (size_t)at)
        cap = bytes->size - (size_t)at;
    memcpy(buf, bytes->data + at, cap);
    bytes->read += cap;
    return cap;
}

/* The index of a detected type. */
static int detect(const uint8_t *data, size_t size, bool complete)
{
    bytes bytes = {data, size, 0};
    nymbl__view view = {bytes_read, &bytes, (int64_t)size, complete};
    const char *type = nymbl__sniff_detect_type(&view);
    int index = ZIP;

    require(bytes.read <= READS_MAX + 3 * (uint64_t)size, "work");
    for (size_t i = 0; i < TYPES; i++) {
        bool may_be = nymbl__sniff_may_be_type(&view, types[i]);

        if (type != NULL && strcmp(type, types[i]) == 0) {
            index = (int)i;
            require(may_be == (i > 0), "a type may be what it is");
        } else if (may_be) {
            require(type == NULL || strcmp(type, NYMBL__ZIP) == 0,
                    "another type");
        }
    }
    if (type == NULL)
        return UNDECIDED;
    require(index < ZIP || strcmp(type, NYMBL__ZIP) == 0, "unknown type");
    return index;
}

static void upload_try(const uint8_t *data, size_t size)
{
    int all = detect(data, size, true), before = UNDECIDED;
    /* what a ZIP file is depends on its entries, which may contradict those of
     * the directory at its end */
    bool is_zip = size >= 4 && memcmp(data, "PK\3\4", 4) == 0;

    require(all != UNDECIDED, "undecided at the end");
    for (size_t step = 1, some = 0; some < size; some += step, step *= 2) {
        int now = detect(data, some, false);

        require(before == UNDECIDED || now == before || is_zip,
                "a type changed");
        before = now;
    }
    require(before == UNDECIDED || before == all || is_zip,
            "a type changed at the end");
    found[all]++;
}

static nymbl_kind check(nymbl__sniff_input *input, size_t size, bool complete,
                        const char **reason)
{
    nymbl_kind kind;

    *reason = NULL;
    input->size = size;
    input->complete = complete;
    kind = nymbl__sniff_check(input, reason);
    require(kind == NYMBL_OK || kind == NYMBL_AGAIN || kind == NYMBL_CORRUPT,
            "kind");
    require((kind == NYMBL_CORRUPT) == (*reason != NULL), "reason");
    require(!(complete || size == NYMBL__SNIFF_MAX) || kind != NYMBL_AGAIN,
            "undecided at the end");
    return kind;
}

static void download_try(uint8_t flags, const uint8_t *data, size_t size)
{
    size_t some = size < NYMBL__SNIFF_MAX ? size : NYMBL__SNIFF_MAX;
    char *exact = text_of(data, some);
    const char *reason, *reason_of_pieces;
    nymbl_kind kind = NYMBL_AGAIN;
    nymbl__sniff_input input = {.expected_type = types[flags % TYPES],
                                .response_type = types[flags / 9 % TYPES],
                                .has_size = flags & 1,
                                .has_length = flags & 3,
                                .encoded = (flags & 0x70) == 0x70,
                                .bytes = exact};

    /* the caller checks whenever bytes arrive, and stops at the first answer */
    for (size_t i = 1; i <= some && kind == NYMBL_AGAIN; i++)
        kind = check(&input, i, i == size, &reason_of_pieces);
    if (size == 0)
        kind = check(&input, 0, true, &reason_of_pieces);
    require(check(&input, some, some == size, &reason) == kind &&
                reason == reason_of_pieces,
            "bytes that arrive in pieces are judged differently");
    good += kind == NYMBL_OK;
    corrupt += kind == NYMBL_CORRUPT;
    again += kind == NYMBL_OK && input.encoded;
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    upload_try(data + 1, size - 1);
    download_try(data[0], data + 1, size - 1);
    return 0;
}

bool fuzz_report(void)
{
    bool all = good > 0 && corrupt > 0 && again > 0;

    for (int i = 0; i <= ZIP; i++) {
        printf("%s: %u\n", i < ZIP ? types[i] : NYMBL__ZIP, found[i]);
        all = all && found[i] > 0;
    }
    printf("downloads: %u good, %u corrupt, %u good despite their label\n",
           good, corrupt, again);
    return all;
}
