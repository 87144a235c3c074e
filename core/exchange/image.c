/* SPDX-License-Identifier: MIT */
/* Loaded ELF objects and the bindings of their references to functions. */
#include "exchange/image.h"

#ifdef __GLIBC__

#include <gnu/libc-version.h>
#include <link.h>
#include <string.h>

#if __ELF_NATIVE_CLASS == 64
#define SYMBOL_OF(info) ELF64_R_SYM(info)
#else
#define SYMBOL_OF(info) ELF32_R_SYM(info)
#endif

/* The end of the readable segment that contains an address, or 0. */
static uintptr_t segment_end(const nymbl__image *image, uintptr_t at)
{
    const ElfW(Phdr) *headers = image->headers;

    for (size_t i = 0; i < image->header_count; i++) {
        uintptr_t start = image->base + headers[i].p_vaddr;

        if (headers[i].p_type == PT_LOAD && (headers[i].p_flags & PF_R) != 0 &&
            at - start < headers[i].p_memsz)
            return start + headers[i].p_memsz;
    }
    return 0;
}

/* Whether memory is within a readable segment of the object. The object's own
 * tables are not trusted, so every address is checked before it is read. */
static bool is_readable(const nymbl__image *image, uintptr_t at, size_t size)
{
    uintptr_t end = segment_end(image, at);

    return end != 0 && size <= end - at;
}

bool nymbl__image_contains(const nymbl__image *image, uintptr_t at)
{
    return at - image->begin < image->size;
}

/* The payload of image_visit(). */
typedef struct search {
    nymbl__image *out;
    uintptr_t at; /* the address that the object contains */
} search;

/* dl_iterate_phdr's callback. Returns 1, which ends the iteration, if the
 * object is the one that is searched for. */
static int image_visit(struct dl_phdr_info *info, size_t size, void *payload)
{
    search *search = payload;
    nymbl__image image = {.base = info->dlpi_addr,
                          .headers = info->dlpi_phdr,
                          .header_count = info->dlpi_phnum,
                          .begin = UINTPTR_MAX};
    uintptr_t end = 0;

    (void)size;
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        uintptr_t start = image.base + header->p_vaddr;

        if (header->p_type != PT_LOAD)
            continue;
        if (start < image.begin)
            image.begin = start;
        if (start + header->p_memsz > end)
            end = start + header->p_memsz;
    }
    image.size = end > image.begin ? end - image.begin : 0;
    if (!nymbl__image_contains(&image, search->at))
        return 0;
    *search->out = image;
    return 1;
}

bool nymbl__image_find(nymbl__image *out, const void *address)
{
    search search = {out, (uintptr_t)address};

    return dl_iterate_phdr(image_visit, &search) != 0;
}

bool nymbl__image_find_libc(nymbl__image *out)
{
    /* The address of this text is in the C library. The address of a function
     * might be an entry of the program's procedure linkage table. */
    return nymbl__image_find(out, gnu_get_libc_version());
}

/* An object, the tables that its relocations refer to, and the callback. */
typedef struct tables {
    const nymbl__image *image;
    uintptr_t symbols, strings;
    size_t symbol_max; /* upper limit of the number of symbols */
    size_t strings_size;
    const nymbl__image *excluded;
    size_t excluded_count;
    nymbl__image_import_cb *visit;
    void *payload;
} tables;

/* The address that an entry of the dynamic section contains, or 0 if it is not
 * readable. On some machines and with some C libraries the entry is relative to
 * the object's base. */
static uintptr_t address_of(const nymbl__image *image, uintptr_t at,
                            size_t size)
{
    if (at == 0)
        return 0;
    if (is_readable(image, at, size))
        return at;
    at += image->base;
    return is_readable(image, at, size) ? at : 0;
}

/* Visit the reference of a relocation if it is to a function. `slot` is an
 * address in the object. */
static void relocation_visit(const tables *tables, uintptr_t slot, size_t index)
{
    const nymbl__image *image = tables->image;
    uintptr_t bound;
    const char *name;
    ElfW(Sym) symbol;

    if (index >= tables->symbol_max)
        return;
    memcpy(&bound, (const void *)slot, sizeof(bound));
    memcpy(&symbol, (const void *)(tables->symbols + index * sizeof(symbol)),
           sizeof(symbol));
    /* Until the first call of a lazily bound function its slot contains the
     * address of lookup code in the object itself. */
    if (nymbl__image_contains(image, bound) &&
        (symbol.st_shndx == SHN_UNDEF ||
         bound != image->base + symbol.st_value))
        bound = 0;
    for (size_t i = 0; bound != 0 && i < tables->excluded_count; i++) {
        if (nymbl__image_contains(&tables->excluded[i], bound))
            return;
    }
    if (ELF32_ST_TYPE(symbol.st_info) != STT_FUNC &&
        ELF32_ST_TYPE(symbol.st_info) != STT_NOTYPE)
        return;
    if (symbol.st_name >= tables->strings_size)
        return;
    name = (const char *)tables->strings + symbol.st_name;
    if (memchr(name, '\0', tables->strings_size - symbol.st_name) != NULL)
        tables->visit(name, (void *)bound, tables->payload);
}

/* Visit the relocations of a table from number `first` on. An ElfW(Rela) is an
 * ElfW(Rel) followed by an addend, which is not needed. */
static void relocations_visit(const tables *tables, uintptr_t dynamic_address,
                              size_t size, size_t first, bool has_addends)
{
    size_t step = has_addends ? sizeof(ElfW(Rela)) : sizeof(ElfW(Rel));
    uintptr_t at = address_of(tables->image, dynamic_address, size);
    uintptr_t slot, end = 0, begin = 0;
    ElfW(Rel) relocation;

    if (at == 0)
        return;
    for (size_t i = first; i < size / step; i++) {
        memcpy(&relocation, (const void *)(at + i * step), sizeof(relocation));
        if (SYMBOL_OF(relocation.r_info) == 0)
            continue; /* a relative relocation */
        slot = tables->image->base + relocation.r_offset;
        if (slot < begin || slot >= end) {
            begin = slot;
            end = segment_end(tables->image, slot);
        }
        if (end != 0 && end - slot >= sizeof(slot))
            relocation_visit(tables, slot, SYMBOL_OF(relocation.r_info));
    }
}

void nymbl__image_visit_imports(const nymbl__image *image,
                                const nymbl__image *excluded, size_t count,
                                nymbl__image_import_cb *visit, void *payload)
{
    const ElfW(Phdr) *headers = image->headers;
    /* the dynamic section by tag; DT_JMPREL is the highest that is needed */
    ElfW(Addr) entries[DT_JMPREL + 1] = {0};
    size_t relative = 0; /* number of leading relocations without a symbol */
    tables tables = {.image = image,
                     .excluded = excluded,
                     .excluded_count = count,
                     .visit = visit,
                     .payload = payload};

    for (size_t i = 0; i < image->header_count; i++) {
        uintptr_t at = image->base + headers[i].p_vaddr;
        ElfW(Dyn) entry;

        if (headers[i].p_type != PT_DYNAMIC ||
            !is_readable(image, at, headers[i].p_memsz))
            continue;
        for (size_t n = headers[i].p_memsz / sizeof(entry); n > 0; n--) {
            memcpy(&entry, (const void *)at, sizeof(entry));
            if (entry.d_tag == DT_NULL)
                break;
            if (entry.d_tag > 0 && entry.d_tag <= DT_JMPREL)
                entries[entry.d_tag] = entry.d_un.d_ptr;
            if (entry.d_tag == DT_RELACOUNT)
                relative = entry.d_un.d_val;
            at += sizeof(entry);
        }
    }
    tables.symbols = address_of(image, entries[DT_SYMTAB], sizeof(ElfW(Sym)));
    tables.strings_size = entries[DT_STRSZ];
    tables.strings = address_of(image, entries[DT_STRTAB], tables.strings_size);
    if (tables.symbols == 0 || tables.strings == 0 ||
        tables.strings_size == 0 || entries[DT_SYMENT] != sizeof(ElfW(Sym)))
        return;
    /* The size of the symbol table is not recorded; it ends with its segment at
     * the latest. */
    tables.symbol_max = (segment_end(image, tables.symbols) - tables.symbols) /
                        sizeof(ElfW(Sym));
    if (entries[DT_RELAENT] == sizeof(ElfW(Rela)))
        relocations_visit(&tables, entries[DT_RELA], entries[DT_RELASZ],
                          relative, true);
    if (entries[DT_RELENT] == sizeof(ElfW(Rel)))
        relocations_visit(&tables, entries[DT_REL], entries[DT_RELSZ], 0,
                          false);
    if (entries[DT_PLTREL] == DT_RELA || entries[DT_PLTREL] == DT_REL)
        relocations_visit(&tables, entries[DT_JMPREL], entries[DT_PLTRELSZ], 0,
                          entries[DT_PLTREL] == DT_RELA);
}

#else /* not supported */

bool nymbl__image_contains(const nymbl__image *image, uintptr_t at)
{
    (void)image;
    (void)at;
    return false;
}

bool nymbl__image_find(nymbl__image *out, const void *address)
{
    (void)out;
    (void)address;
    return false;
}

bool nymbl__image_find_libc(nymbl__image *out)
{
    (void)out;
    return false;
}

void nymbl__image_visit_imports(const nymbl__image *image,
                                const nymbl__image *excluded, size_t count,
                                nymbl__image_import_cb *visit, void *payload)
{
    (void)image;
    (void)excluded;
    (void)count;
    (void)visit;
    (void)payload;
}

#endif
