/* SPDX-License-Identifier: MIT */
/* Included before every source of the core: allocations that fail on request,
 * and are checked for secrets when they are freed. */
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

/* Let only the nth allocation from now on fail; 0 for none. */
void chaos_arm(long nth);
/* Let the nth allocation from now on fail, and all later ones. */
void chaos_arm_from(long nth);
/* Whether that allocation was reached. */
bool chaos_struck(void);
/* The number of blocks that were freed with a secret in them. */
long chaos_secrets_left(void);

#ifndef NYMBL_CHAOS_ITSELF
#define malloc chaos_malloc
#define calloc chaos_calloc
#define realloc chaos_realloc
#define free chaos_free
#endif

#endif
