/* SPDX-License-Identifier: MIT */
/* Included before every source of the core: allocations that fail on request,
 * and are checked for secrets when they are freed. */
#ifndef NYMBL_CHAOS_H
#define NYMBL_CHAOS_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

void *chaos_malloc(size_t size);
void *chaos_calloc(size_t count, size_t size);
void *chaos_realloc(void *old, size_t size);
char *chaos_strdup(const char *text);
void chaos_free(void *memory);

/* Let only the nth allocation from now on fail. */
void chaos_arm(long nth);
/* Let the nth allocation from now on fail, and all later ones. */
void chaos_arm_from(long nth);
/* Let no more allocations fail. */
void chaos_disarm(void);
/* Whether that allocation was reached. */
bool chaos_struck(void);
/* Whether the calling thread's allocations are those of the test itself, which
 * never fail. */
void chaos_pause(bool pause);
/* Let no copy of a text fail that libcurl makes; NULL for none. */
void chaos_spare(const char *text);
/* Count an allocation that is made elsewhere; true if it has to fail. */
bool chaos_strikes(void);
/* The number of blocks that were freed with a secret in them. */
long chaos_secrets_left(void);

/* Let libcurl use these functions, too, once it is initialized. */
void chaos_include_libcurl(void);
/* In place of curl_global_init(). */
CURLcode chaos_global_init(long flags);

#ifndef NYMBL_CHAOS_ITSELF
#define malloc chaos_malloc
#define calloc chaos_calloc
#define realloc chaos_realloc
#define free chaos_free
#define curl_global_init chaos_global_init
#endif

#endif
