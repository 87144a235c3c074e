/* SPDX-License-Identifier: MIT */
/* Included before every source when coverage is measured: child processes of
 * tests end by _exit(), which would lose their counts. */
#ifndef NYMBL_COVERAGE_H
#define NYMBL_COVERAGE_H

#include <unistd.h>

void __gcov_dump(void);
#define _exit(status) (__gcov_dump(), _exit(status))

#endif
