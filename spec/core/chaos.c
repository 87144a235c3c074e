/* SPDX-License-Identifier: MIT */
/* Allocations that fail on request. */
#define NYMBL_CHAOS_ITSELF
#include "chaos.h"

#include <malloc.h>
#include <stdatomic.h>

static atomic_long countdown;
static atomic_bool continues, struck;
static atomic_long secrets;
static const char *_Atomic spared;
static bool includes_libcurl;
static _Thread_local bool paused;

static void arm(long nth, bool all)
{
    continues = all;
    struck = false;
    countdown = nth;
}

void chaos_arm(long nth)
{
    arm(nth, false);
}

void chaos_arm_from(long nth)
{
    arm(nth, true);
}

void chaos_disarm(void)
{
    countdown = 0;
}

bool chaos_struck(void)
{
    return struck;
}

long chaos_secrets_left(void)
{
    return secrets;
}

void chaos_pause(bool pause)
{
    paused = pause;
}

void chaos_spare(const char *text)
{
    spared = text;
}

bool chaos_strikes(void)
{
    long left = countdown;

    if (paused)
        return false;
    while (left > 1 &&
           !atomic_compare_exchange_weak(&countdown, &left, left - 1))
        ;
    if (left != 1)
        return false;
    struck = true;
    if (!continues)
        countdown = 0;
    return true;
}

/* Fill what a block has beyond its first bytes, up to its last one, which may
 * have been asked for or not: so no code relies on zeros that happen to be
 * there, and no secret is found in it that was in an earlier block. */
static void fill(char *memory, size_t first)
{
    size_t size = memory != NULL ? malloc_usable_size(memory) : 0;

    if (first < size)
        memset(memory + first, 0xa5, size - first);
}

void *chaos_malloc(size_t size)
{
    void *memory = chaos_strikes() ? NULL : malloc(size);

    fill(memory, 0);
    return memory;
}

void *chaos_calloc(size_t count, size_t size)
{
    void *memory = chaos_strikes() ? NULL : calloc(count, size);

    fill(memory, count * size);
    return memory;
}

void *chaos_realloc(void *old, size_t size)
{
    size_t before = old != NULL ? malloc_usable_size(old) : 0;
    char *memory = chaos_strikes() ? NULL : realloc(old, size);

    fill(memory, before);
    return memory;
}

char *chaos_strdup(const char *text)
{
    const char *never = spared;
    bool strikes =
        (never == NULL || strcmp(text, never) != 0) && chaos_strikes();
    char *memory = strikes ? NULL : strdup(text);

    fill(memory, strlen(text) + 1);
    return memory;
}

void chaos_free(void *memory)
{
    static const char *const patterns[] = {"key-of-test",     "token-of-test",
                                           "secret-of-test",  "bytes-of-test",
                                           "patient-of-test", "signed-of-test"};

    if (memory == NULL)
        return;
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
        if (memmem(memory, malloc_usable_size(memory), patterns[i],
                   strlen(patterns[i])) != NULL)
            secrets++;
    }
    free(memory);
}

void chaos_include_libcurl(void)
{
    includes_libcurl = true;
}

CURLcode chaos_global_init(long flags)
{
    if (!includes_libcurl)
        return curl_global_init(flags);
    return curl_global_init_mem(flags, chaos_malloc, chaos_free, chaos_realloc,
                                chaos_strdup, chaos_calloc);
}
