/* SPDX-License-Identifier: MIT */
/* The type of a document, by its first bytes or its ZIP entries. The input is
 * the document, after one byte of flags. What was found in some of the bytes
 * must not change if more arrive. */
#include "exchange/sniff.h"
#include "fuzz.h"

/* More bytes that are read are a finding. */
#define READS_MAX (1u << 16)

static const char *const types[] = {
    "",          "application/pdf",  "image/png", "image/jpeg", "image/tiff",
    NYMBL__DOCX, "application/json", "text/html", "text/plain"};
#define TYPES (sizeof(types) / sizeof(types[0]))

/* The first five types, then ZIP and "undecided". */
enum { DOCX = 5, ZIP, UNDECIDED, FOUND };
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

/* An independent reader of ZIP files. It finds the same entries in all bytes
 * at once as the library does block by block. */
typedef struct zip {
    const uint8_t *data;
    size_t size;
    bool types, word, macros, other;
} zip;

static size_t zip_number(const zip *zip, size_t at, int bytes)
{
    size_t value = 0;

    while (bytes-- > 0)
        value = value << 8 | zip->data[at + (size_t)bytes];
    return value;
}

static bool zip_has(const zip *zip, size_t at, const char *signature, size_t of)
{
    return at + of <= zip->size && memcmp(zip->data + at, signature, 4) == 0;
}

/* An entry's name, of which 32 bytes count, up to a NUL. Returns false if they
 * are not there. */
static bool zip_name(zip *zip, size_t at, size_t length)
{
    static const char *const common[] = {"_rels/", "docProps/", "customXml/",
                                         "__MACOSX/", "word/"};
    size_t some = length < 32 ? length : 32;
    char name[33] = "";
    bool is_known;

    if (at + some > zip->size)
        return false;
    memcpy(name, zip->data + at, some);
    is_known = strcmp(name, "[Content_Types].xml") == 0;
    zip->types = zip->types || is_known;
    zip->macros = zip->macros || strcmp(name, "word/vbaProject.bin") == 0;
    zip->word = zip->word || strstr(name, "word/") == name;
    for (size_t i = 0; i < sizeof(common) / sizeof(common[0]); i++)
        is_known = is_known || strstr(name, common[i]) == name;
    zip->other = zip->other || !is_known;
    return true;
}

/* The directory of a complete file: the last one whose comment ends with it. */
static bool zip_directory(zip *zip)
{
    size_t end = zip->size, at;

    while (end > 0 && zip->size - end < 22 + 65535) {
        end--;
        if (zip_has(zip, end, "PK\5\6", 22) &&
            end + 22 + zip_number(zip, end + 20, 2) == zip->size)
            break;
        if (end == 0)
            return false;
    }
    if (!zip_has(zip, end, "PK\5\6", 22) || zip_number(zip, end + 4, 2) != 0 ||
        zip_number(zip, end + 12, 4) > end)
        return false;
    for (at = end - zip_number(zip, end + 12, 4); at < end;) {
        size_t length;

        if (!zip_has(zip, at, "PK\1\2", 46))
            return false;
        length = zip_number(zip, at + 28, 2);
        if (!zip_name(zip, at + 46, length))
            return false;
        at += 46 + length + zip_number(zip, at + 30, 2) +
              zip_number(zip, at + 32, 2);
    }
    return at == end;
}

/* The headers before the entries. Returns whether all of them are there. */
static bool zip_headers(zip *zip)
{
    size_t at = 0;

    while (zip_has(zip, at, "PK\3\4", 30)) {
        size_t length = zip_number(zip, at + 26, 2), content;
        bool is_later = (zip->data[at + 6] & 8) != 0;

        if (!zip_name(zip, at + 30, length))
            return false;
        content = zip_number(zip, at + 18, 4);
        at += 30 + length + zip_number(zip, at + 28, 2) + content;
        while (is_later && content == 0 && !zip_has(zip, at, "PK\3\4", 4) &&
               !zip_has(zip, at, "PK\1\2", 4)) {
            if (at++ >= zip->size)
                return false;
        }
    }
    return zip_has(zip, at, "PK\1\2", 4);
}

static int zip_type(const uint8_t *data, size_t size, bool complete)
{
    zip zip = {.data = data, .size = size};
    bool all = complete && zip_directory(&zip);

    if (!all) {
        zip.types = zip.word = zip.macros = zip.other = false;
        all = zip_headers(&zip);
    }
    if (zip.types && zip.word)
        return zip.macros ? 0 : DOCX;
    return all || (zip.other && !zip.word) ? 0 : ZIP;
}

static void upload_try(const uint8_t *data, size_t size)
{
    int all = detect(data, size, true), before = UNDECIDED;
    bool is_zip = size >= 4 && memcmp(data, "PK\3\4", 4) == 0;

    require(all != UNDECIDED, "undecided at the end");
    for (size_t step = 1, some = 0; some < size; some += step, step *= 2) {
        int now = detect(data, some, false);

        if (is_zip && some >= 4)
            require(now == zip_type(data, some, false), "type of a ZIP file");
        else
            require(before == UNDECIDED || now == before, "a type changed");
        before = now;
    }
    if (is_zip)
        require(all == zip_type(data, size, true), "type of a whole ZIP file");
    else
        require(before == UNDECIDED || before == all,
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
