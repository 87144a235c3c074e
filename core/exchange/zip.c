/* SPDX-License-Identifier: MIT */
/* Detection of Word documents among ZIP files. */
#include "exchange/zip.h"

#include <string.h>

#define BLOCK_SIZE 4096    /* bytes that are searched at a time */
#define ENTRIES_MAX 4096   /* entries of a ZIP file that are inspected */
#define ENTRY_NAME_MAX 32  /* bytes of an entry's name that are compared */
#define SEARCH_MAX 1048576 /* bytes that are searched for a record */

static bool view_get(const nymbl__view *view, int64_t at, void *buf,
                     size_t size)
{
    return at >= 0 && at <= view->size && (int64_t)size <= view->size - at &&
           view->read(view->payload, at, buf, size) == size;
}

static unsigned get16(const unsigned char *at)
{
    return at[0] | (unsigned)at[1] << 8;
}

static uint32_t get32(const unsigned char *at)
{
    return get16(at) | (uint32_t)get16(at + 2) << 16;
}

/* The position of the next record whose signature is "PK" and one of two pairs
 * of bytes, or -1. */
static int64_t record_find(const nymbl__view *view, int64_t at, const char *one,
                           const char *other)
{
    unsigned char block[BLOCK_SIZE];
    int64_t end = view->size - at > SEARCH_MAX ? at + SEARCH_MAX : view->size;

    while (at + 4 <= end) {
        size_t size = end - at < BLOCK_SIZE ? (size_t)(end - at) : BLOCK_SIZE;

        if (!view_get(view, at, block, size))
            return -1;
        for (size_t i = 0; i + 4 <= size; i++) {
            if (block[i] == 'P' && block[i + 1] == 'K' &&
                (memcmp(block + i + 2, one, 2) == 0 ||
                 memcmp(block + i + 2, other, 2) == 0))
                return at + (int64_t)i;
        }
        at += (int64_t)size - 3;
    }
    return -1;
}

/* Which entries a ZIP file has. */
struct entries {
    bool types;  /* [Content_Types].xml, which all Office files have */
    bool word;   /* entries in word/ */
    bool macros; /* word/vbaProject.bin, which only .docm files have */
    bool other;  /* entries that Word files do not have */
};

/* Record an entry by its name at a position. Returns false if the name is not
 * available. */
static bool entry_record(struct entries *entries, const nymbl__view *view,
                         int64_t at, size_t length)
{
    static const char *const common[] = {"_rels/", "docProps/", "customXml/",
                                         "__MACOSX/"};
    char name[ENTRY_NAME_MAX + 1] = "";
    size_t size = length < ENTRY_NAME_MAX ? length : ENTRY_NAME_MAX;

    if (!view_get(view, at, name, size))
        return false;
    if (strcmp(name, "[Content_Types].xml") == 0) {
        entries->types = true;
        return true;
    }
    if (strncmp(name, "word/", 5) == 0) {
        entries->word = true;
        entries->macros =
            entries->macros || strcmp(name, "word/vbaProject.bin") == 0;
        return true;
    }
    for (size_t i = 0; i < sizeof(common) / sizeof(common[0]); i++) {
        if (strncmp(name, common[i], strlen(common[i])) == 0)
            return true;
    }
    entries->other = true;
    return true;
}

/* Read the central directory at the end of a complete ZIP file (APPNOTE.TXT,
 * 4.3.12 and 4.3.16). Returns false if the file has none, spans several disks
 * or is larger than 4 GB. */
static bool directory_read(const nymbl__view *view, struct entries *entries)
{
    int64_t at = view->size - 22 - 65535, end = -1;
    unsigned char record[46];

    if (!view->complete)
        return false;
    for (at = at > 0 ? at : 0; at >= 0; at++) {
        at = record_find(view, at, "\5\6", "\5\6");
        if (at < 0)
            break;
        if (view_get(view, at, record, 22) &&
            at + 22 + (int64_t)get16(record + 20) == view->size)
            end = at;
    }
    if (end < 0 || !view_get(view, end, record, 22) || get16(record + 4) != 0)
        return false;
    /* The directory directly precedes its end record. Its stated offset is
     * wrong if other bytes precede the ZIP file. */
    at = end - (int64_t)get32(record + 12);
    if (at < 0)
        return false;
    for (int i = 0; i < ENTRIES_MAX && at < end; i++) {
        if (!view_get(view, at, record, 46) ||
            memcmp(record, "PK\1\2", 4) != 0 ||
            !entry_record(entries, view, at + 46, get16(record + 28)))
            return false;
        at += 46 + (int64_t)get16(record + 28) + get16(record + 30) +
              get16(record + 32);
    }
    return at == end;
}

/* Read the local headers of the entries (APPNOTE.TXT, 4.3.7), as far as they
 * are available. Returns true if all were read. */
static bool headers_read(const nymbl__view *view, struct entries *entries)
{
    unsigned char record[30];
    int64_t at = 0;

    for (int i = 0; i < ENTRIES_MAX; i++) {
        uint32_t size;

        if (!view_get(view, at, record, 4))
            return false;
        if (memcmp(record, "PK\1\2", 4) == 0)
            return true; /* the central directory begins here */
        if (memcmp(record, "PK\3\4", 4) != 0 ||
            !view_get(view, at, record, 30) ||
            !entry_record(entries, view, at + 30, get16(record + 26)))
            return false;
        at += 30 + (int64_t)get16(record + 26) + get16(record + 28);
        size = get32(record + 18);
        if ((get16(record + 6) & 8) != 0 && size == 0) {
            /* the size is stated after the content, so search for the next
             * record */
            at = record_find(view, at, "\3\4", "\1\2");
            if (at < 0)
                return false;
        } else {
            at += (int64_t)size;
        }
    }
    return false;
}

const char *nymbl__zip_type(const nymbl__view *view)
{
    struct entries entries = {0};
    bool all = directory_read(view, &entries);

    if (!all) {
        entries = (struct entries){0};
        all = headers_read(view, &entries);
    }
    if (entries.types && entries.word)
        return entries.macros ? "" : NYMBL__DOCX;
    return all || (entries.other && !entries.word) ? "" : NYMBL__ZIP;
}
