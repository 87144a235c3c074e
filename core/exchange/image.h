/* SPDX-License-Identifier: MIT */
/* Loaded ELF objects and their references to functions. Implemented for glibc;
 * elsewhere nothing is found. */
#ifndef NYMBL_EXCHANGE_IMAGE_H
#define NYMBL_EXCHANGE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An object in memory: the program or a shared library. */
typedef struct nymbl__image {
    uintptr_t base;      /* added to the addresses in its tables */
    const void *headers; /* array of header_count ElfW(Phdr) */
    size_t header_count;
    uintptr_t begin, size; /* from the first segment to the end of the last */
} nymbl__image;

/* Find the object that contains an address. */
bool nymbl__image_find(nymbl__image *out, const void *address);
/* Find the C library. */
bool nymbl__image_find_libc(nymbl__image *out);
bool nymbl__image_contains(const nymbl__image *image, uintptr_t at);
/* Callback for a function that an object refers to. `bound` is the address that
 * the dynamic linker bound the reference to, or NULL if it has not yet. */
typedef void nymbl__image_import_cb(const char *name, void *bound,
                                    void *payload);
/* Visit each reference of an object to a function that another object may
 * define, except references that are bound to functions of the `excluded`
 * objects. A reference may be visited more than once. */
void nymbl__image_visit_imports(const nymbl__image *image,
                                const nymbl__image *excluded, size_t count,
                                nymbl__image_import_cb *visit, void *payload);

#endif
