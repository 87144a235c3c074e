/* SPDX-License-Identifier: MIT */
/* Allocations that fail on request. */
#define NYMBL_CHAOS_ITSELF
#include "chaos.h"

#include <malloc.h>
#include <stdatomic.h>

static atomic_long countdown;
static atomic_bool continues, struck;
static atomic_long secrets;

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

bool chaos_struck(void)
{
    return struck;
}

long chaos_secrets_left(void)
{
    return secrets;
}

static bool strike(void)
{
    long left = countdown;

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

/* Fill the block, so that no code relies on zeros that happen to be there, and
 * no secret of an earlier block is found in it. */
void *chaos_malloc(size_t size)
{
    void *memory = strike() ? NULL : malloc(size);

    if (memory != NULL)
        memset(memory, 0xa5, size);
    return memory;
}

void *chaos_calloc(size_t count, size_t size)
{
    return strike() ? NULL : calloc(count, size);
}

void *chaos_realloc(void *old, size_t size)
{
    size_t before = old != NULL ? malloc_usable_size(old) : 0;
    char *memory = strike() ? NULL : realloc(old, size);

    if (memory != NULL && size > before)
        memset(memory + before, 0xa5, size - before);
    return memory;
}

char *chaos_strdup(const char *text)
{
    return strike() ? NULL : strdup(text);
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
