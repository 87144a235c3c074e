/* SPDX-License-Identifier: MIT */
/* Directories for a listener, which no other user can enter. */
#ifndef NYMBL_ENGINE_PRIVATE_DIR_H
#define NYMBL_ENGINE_PRIVATE_DIR_H

#include "file/file_id.h"

#include <stdbool.h>

/* The name of the listener in its directory. */
#define NYMBL__PRIVATE_DIR_SOCKET "notify"

/* Create and lock a directory. *lock becomes the descriptor of the lock, or -1
 * if directories cannot be locked. Returns false, with errno, on failure. */
bool nymbl__private_dir_create(char path[32], int *lock);
/* Remove the directory if it still has this identity, then unlock it. */
void nymbl__private_dir_remove(char path[32], int *lock,
                               const nymbl__file_id *id);

#endif
