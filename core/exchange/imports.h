/* SPDX-License-Identifier: MIT */
/* Loaded ELF objects. On Linux with glibc; elsewhere nothing is found. */
#ifndef NYMBL_EXCHANGE_IMPORTS_H
#define NYMBL_EXCHANGE_IMPORTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An object in memory: the program or a shared library. */
typedef struct nymbl__image {
    uintptr_t base;
    const void *headers; /* ElfW(Phdr), as many as header_count */
    size_t header_count;
    uintptr_t begin, size; /* from its first segment to the end of its last */
} nymbl__image;

/* Find the object that an address belongs to. */
bool nymbl__image_find(nymbl__image *out, const void *address);
/* Find the C library. */
bool nymbl__image_libc(nymbl__image *out);
bool nymbl__image_holds(const nymbl__image *image, uintptr_t at);
/* Receive a function that an object refers to, and the address that the
 * dynamic linker has bound the reference to, or NULL if it has not yet. */
typedef void nymbl__import_visit(const char *name, void *bound, void *payload);
/* Visit each reference of an object to a function that another object may
 * define, once or more, except those that are bound to `passed_over` objects.
 */
void nymbl__imports_each(const nymbl__image *image,
                         const nymbl__image *passed_over, size_t count,
                         nymbl__import_visit *visit, void *payload);

#endif
