/* SPDX-License-Identifier: MIT */
/* The interface of a fuzz target to its driver: libFuzzer, or driver.c. */
#ifndef NYMBL_FUZZ_H
#define NYMBL_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Try one input. Aborts if an invariant is broken. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Print what the inputs so far have reached. Returns false if a part of the
 * target was never reached: a replay would then not test that part. */
bool fuzz_report(void);

#endif
