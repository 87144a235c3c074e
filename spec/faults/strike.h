/* SPDX-License-Identifier: MIT */
/* Whether a call fails: shared by the functions that faults are injected in. */
#ifndef NYMBL_FAULTS_STRIKE_H
#define NYMBL_FAULTS_STRIKE_H

#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>

/* Count a call. Whether it fails, with errno. */
bool strikes(const char *call);
/* The same for a call that transfers bytes on a descriptor. If all calls fail
 * from some point on, wakeups still arrive: see faults.h. */
bool strikes_bytes(const char *call, int fd);
/* Whether a plan interrupts a call that may be interrupted, with errno. */
bool interrupts(void);
/* The number of bytes that are read or written. */
size_t cut(size_t size);
/* Until the next call with false, no call of this thread fails or is counted.
 */
void spare(bool spared);
/* After a successful fsync(). */
void synced(int fd);

/* Let `real` be the C library's function of that name. */
#define REAL(name)                                                             \
    do {                                                                       \
        static void *_Atomic symbol;                                           \
                                                                               \
        if (symbol == NULL)                                                    \
            symbol = dlsym(RTLD_NEXT, #name);                                  \
        *(void **)&real = symbol;                                              \
    } while (0)

/* A function that returns `failed` if it is struck. */
#define CALL(type, failed, name, parameters, arguments)                        \
    type name parameters                                                       \
    {                                                                          \
        type(*real) parameters;                                                \
                                                                               \
        REAL(name);                                                            \
        return strikes(#name) ? (failed) : real arguments;                     \
    }

/* A function that transfers bytes, between `fd` and `data`, at most `size`. */
#define TRANSFER(name, parameters, arguments)                                  \
    ssize_t name parameters                                                    \
    {                                                                          \
        ssize_t(*real) parameters;                                             \
                                                                               \
        REAL(name);                                                            \
        if (strikes_bytes(#name, fd) || interrupts())                          \
            return -1;                                                         \
        size = cut(size);                                                      \
        return real arguments;                                                 \
    }

#endif
