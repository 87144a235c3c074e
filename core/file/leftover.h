/* SPDX-License-Identifier: MIT */
/* Removal of files that killed processes left behind. */
#ifndef NYMBL_FILE_LEFTOVER_H
#define NYMBL_FILE_LEFTOVER_H

#include <stdbool.h>

/* Remove a file that a killed process left behind, if it belongs to this user
 * and no writer has locked it. Returns whether the name is free now. */
bool nymbl__leftover_remove(int dir_fd, const char *name);

#endif
