/* SPDX-License-Identifier: MIT */
/* The file of a store: any bytes in it are a content that was written, or none;
 * and after an incomplete write it has the new content if all of that is there,
 * the old one if that is still there, and none otherwise.
 *
 * The input is the file, and for "W\n", two contents and how much of the second
 * reaches the disk (two bytes at the end). */
#include "file.h"
#include "fuzz.h"
#include "nymbl.h"

static unsigned with_content, empty, torn, kept;

/* The content of the file, to be freed. */
static char *content_of(size_t *size)
{
    nymbl_store *store;
    nymbl_error err;
    const char *content;
    char *copy;

    require(nymbl_store_open(&store, file_path("store"), NULL, &err) ==
                NYMBL_OK,
            "open");
    content = nymbl_store_content(store, size);
    copy = text_of((const uint8_t *)content, *size);
    nymbl_store_close(store);
    return copy;
}

static void content_write(const uint8_t *data, size_t size)
{
    nymbl_store *store;

    require(nymbl_store_open(&store, file_path("store"), NULL, NULL) ==
                NYMBL_OK,
            "open");
    require(nymbl_store_write(store, data, size, NULL) == NYMBL_OK, "write");
    nymbl_store_close(store);
}

static void require_content(const uint8_t *data, size_t size)
{
    size_t got;
    char *content = content_of(&got);

    require(got == size && memcmp(content, data, size) == 0,
            "what was written is read");
    free(content);
}

/* Whether a file begins with the whole of another one. */
static bool has_file(const char *mixed, size_t mixed_size, const char *file,
                     size_t size)
{
    return mixed_size >= size && memcmp(mixed, file, size) == 0;
}

/* Any bytes in the file. */
static void file_try(const uint8_t *data, size_t size)
{
    size_t got, all;
    char *content, *file;

    file_put("store", data, size);
    content = content_of(&got);
    file = file_get("store", &all);
    require(all == size && memcmp(file, data, size) == 0, "it was changed");
    free(file);
    if (got > 0) {
        with_content++;
        content_write((uint8_t *)content, got);
        file = file_get("store", &all);
        require(all <= size && memcmp(file, data, all) == 0,
                "a content that was not written");
        free(file);
    } else {
        empty++;
    }
    free(content);
    content_write(data, size);
    require_content(data, size);
}

/* The second content is written over the first, but only some of it arrives:
 * up to a position, or from a position on (blocks are written in any order). */
static void write_try(const uint8_t *data, size_t size)
{
    const uint8_t *end = size > 2 ? memchr(data, '\n', size - 2) : NULL;
    size_t first, second, old_size, new_size, cut;
    char *old_file, *new_file, *mixed;

    if (end == NULL)
        return;
    first = (size_t)(end - data);
    second = size - 2 - first - 1;
    file_put("store", "", 0);
    content_write(data, first);
    old_file = file_get("store", &old_size);
    content_write(end + 1, second);
    new_file = file_get("store", &new_size);
    cut = (data[size - 2] * 256u + data[size - 1]) % (new_size + 1);
    for (int way = 0; way < 4; way++) {
        size_t long_size = old_size > new_size ? old_size : new_size;
        size_t mixed_size = way & 1 ? new_size : long_size;
        bool is_front = way & 2;

        mixed = calloc(1, long_size + 1); /* a hole reads as zeros */
        require(mixed != NULL, "memory");
        memcpy(mixed, old_file, old_size);
        if (is_front)
            memcpy(mixed, new_file, cut);
        else
            memcpy(mixed + cut, new_file + cut, new_size - cut);
        file_put("store", mixed, mixed_size);
        if (has_file(mixed, mixed_size, new_file, new_size)) {
            require_content(end + 1, second);
            kept++;
        } else if (has_file(mixed, mixed_size, old_file, old_size)) {
            require_content(data, first);
            kept++;
        } else {
            require_content(data, 0);
            torn++;
        }
        free(mixed);
    }
    free(old_file);
    free(new_file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;

    if (!ready)
        files_open();
    ready = true;
    if (size >= 2 && memcmp(data, "W\n", 2) == 0)
        write_try(data + 2, size - 2);
    else
        file_try(data, size);
    require(nymbl_object_count() == 0, "objects are alive");
    return 0;
}

bool fuzz_report(void)
{
    printf("%u files with a content, %u without; %u incomplete writes read as "
           "none, %u as a whole one\n",
           with_content, empty, torn, kept);
    return with_content > 0 && empty > 0 && torn > 0 && kept > 0;
}
