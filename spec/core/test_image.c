/* SPDX-License-Identifier: MIT */
/* References of loaded objects are found, and damaged tables cause no harm. */
#include "exchange/image.h"
#include "test.h"

#ifdef __GLIBC__

#include <curl/curl.h>
#include <link.h>
#include <stdlib.h>

static void see(const char *name, void *bound, void *payload)
{
    size_t *count = payload;

    (void)bound;
    CHECK(strlen(name) < 10000); /* read all of it */
    ++*count;
}

/* An address within libcurl. */
static const void *in_libcurl(void)
{
    return curl_version_info(CURLVERSION_NOW)->version;
}

static void references_of_libcurl_are_found(void)
{
    nymbl__image libcurl, libc;
    size_t all = 0, rest = 0;

    REQUIRE(nymbl__image_find(&libcurl, in_libcurl()));
    REQUIRE(nymbl__image_find_libc(&libc));
    CHECK(nymbl__image_contains(&libcurl, (uintptr_t)in_libcurl()));
    CHECK(!nymbl__image_contains(&libc, (uintptr_t)in_libcurl()));
    nymbl__image_visit_imports(&libcurl, NULL, 0, see, &all);
    CHECK(all > 100);
    nymbl__image_visit_imports(&libcurl, &libc, 1, see, &rest);
    CHECK(rest < all);
}

static void address_of_no_object_is_not_found(void)
{
    nymbl__image image;
    void *heap = malloc(1);

    CHECK(!nymbl__image_find(&image, NULL));
    CHECK(!nymbl__image_find(&image, heap));
    free(heap);
}

/* ---- a fake object, in its own memory ---- */

enum { SYMBOLS = 8, RELOCATIONS = 8, STRINGS = 64 };

typedef struct object {
    ElfW(Dyn) entries[16];
    ElfW(Sym) symbols[SYMBOLS];
    ElfW(Rela) relocations[RELOCATIONS];
    ElfW(Rela) calls[RELOCATIONS];
    uintptr_t slots[2 * RELOCATIONS];
    char strings[STRINGS];
} object;

static void relocations_make(ElfW(Rela) * out, size_t first)
{
    for (size_t i = 0; i < RELOCATIONS; i++) {
        out[i].r_offset =
            offsetof(object, slots) + (first + i) * sizeof(uintptr_t);
#if __ELF_NATIVE_CLASS == 64
        out[i].r_info = ELF64_R_INFO(i, 1);
#else
        out[i].r_info = ELF32_R_INFO(i, 1);
#endif
    }
}

static void object_make(object *object)
{
    const ElfW(Dyn) entries[] = {
        {DT_SYMTAB, {offsetof(struct object, symbols)}},
        {DT_SYMENT, {sizeof(ElfW(Sym))}},
        {DT_STRTAB, {offsetof(struct object, strings)}},
        {DT_STRSZ, {STRINGS}},
        {DT_RELA, {offsetof(struct object, relocations)}},
        {DT_RELASZ, {sizeof(object->relocations)}},
        {DT_RELAENT, {sizeof(ElfW(Rela))}},
        {DT_JMPREL, {offsetof(struct object, calls)}},
        {DT_PLTRELSZ, {sizeof(object->calls)}},
        {DT_PLTREL, {DT_RELA}},
        {DT_NULL, {0}},
    };

    memset(object, 0, sizeof(*object));
    memcpy(object->entries, entries, sizeof(entries));
    for (size_t i = 0; i < STRINGS; i += 8)
        memcpy(object->strings + i, "strlen", 7);
    for (size_t i = 0; i < SYMBOLS; i++) {
        object->symbols[i].st_name = (ElfW(Word))(i * 8);
        object->symbols[i].st_info = ELF32_ST_INFO(STB_GLOBAL, STT_FUNC);
    }
    relocations_make(object->relocations, 0);
    relocations_make(object->calls, RELOCATIONS);
}

static size_t object_visit(object *object)
{
    ElfW(Phdr) headers[2] = {
        {.p_type = PT_LOAD, .p_flags = PF_R, .p_memsz = sizeof(*object)},
        {.p_type = PT_DYNAMIC, .p_memsz = sizeof(object->entries)},
    };
    nymbl__image image = {.base = (uintptr_t)object,
                          .headers = headers,
                          .header_count = 2,
                          .begin = (uintptr_t)object,
                          .size = sizeof(*object)};
    size_t count = 0;

    nymbl__image_visit_imports(&image, NULL, 0, see, &count);
    return count;
}

/* Only the sanitizers detect every read beyond its end. */
static void damaged_tables_cause_no_harm(void)
{
    object *object = malloc(sizeof(*object));

    REQUIRE(object != NULL);
    object_make(object);
    CHECK_NUMBER((long long)object_visit(object), 2 * (RELOCATIONS - 1));
    srand(1);
    for (int i = 0; i < 20000; i++) {
        unsigned char *bytes = (unsigned char *)object;
        size_t entry = (size_t)rand() % 11;

        object_make(object);
        for (int n = rand() % 4; n >= 0; n--)
            bytes[(size_t)rand() % sizeof(*object)] = (unsigned char)rand();
        if (rand() % 4 == 0)
            object->entries[entry].d_un.d_val = (ElfW(Addr))rand()
                                                << (rand() % 60);
        if (rand() % 8 == 0)
            memset(object->strings, 'x', STRINGS);
        if (rand() % 8 == 0)
            object->entries[10].d_tag = DT_BIND_NOW; /* no terminator */
        object_visit(object);
    }
    free(object);
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(references_of_libcurl_are_found),
        TEST(address_of_no_object_is_not_found),
        TEST(damaged_tables_cause_no_harm),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}

#else

int main(void)
{
    return 0; /* all references may be missing */
}

#endif
