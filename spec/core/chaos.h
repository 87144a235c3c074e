/* SPDX-License-Identifier: MIT */
/* Put before every source of the core: memory that runs out when a test wants
 * it, and that is looked at when it is given back. */
#ifndef NYMBL_CHAOS_H
#define NYMBL_CHAOS_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

void *chaos_malloc(size_t size);
void *chaos_calloc(size_t count, size_t size);
void *chaos_realloc(void *old, size_t size);
char *chaos_strdup(const char *text);
void chaos_free(void *memory);

/* Let the nth allocation from now on fail, and no other; 0: none. */
void chaos_arm(long nth);
/* Whether it was come to. */
bool chaos_struck(void);
/* Blocks that were given back with a secret in them. */
long chaos_secrets_left(void);

#ifndef NYMBL_CHAOS_ITSELF
#define malloc chaos_malloc
#define calloc chaos_calloc
#define realloc chaos_realloc
#define free chaos_free
#endif

#endif
