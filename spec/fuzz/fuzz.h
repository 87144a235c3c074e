/* SPDX-License-Identifier: MIT */
/* What a fuzz target offers to whoever runs it: libFuzzer, or driver.c. */
#ifndef NYMBL_FUZZ_H
#define NYMBL_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Try one input. Aborts if an invariant is broken. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Print what the inputs so far have reached. False if some part of the target
 * was never reached, so that a replay would prove nothing about it. */
bool fuzz_report(void);

#endif
