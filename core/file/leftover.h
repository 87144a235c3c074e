/* SPDX-License-Identifier: MIT */
/* Removal of files that killed processes left behind. */
#ifndef NYMBL_FILE_LEFTOVER_H
#define NYMBL_FILE_LEFTOVER_H

#include <stdbool.h>

/* Remove a file that a killed process left behind: this user's, and not locked
 * by a writer. Returns whether no file of that name exists now. */
bool nymbl__leftover_remove(int dir_fd, const char *name);

#endif
