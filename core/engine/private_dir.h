/* SPDX-License-Identifier: MIT */
/* Directories for a listener, which no other user can enter. */
#ifndef NYMBL_ENGINE_PRIVATE_DIR_H
#define NYMBL_ENGINE_PRIVATE_DIR_H

#include <stdbool.h>
#include <sys/types.h>

/* The name of the listener in its directory. */
#define NYMBL__PRIVATE_DIR_SOCKET "notify"

/* The identity of a file. */
typedef struct nymbl__file_id {
    dev_t device;
    ino_t inode;
} nymbl__file_id;

/* Whether a path still leads to the file. A program that cleans up /tmp may
 * have removed the file, and another process may have created its own at the
 * path. */
bool nymbl__file_id_matches(const nymbl__file_id *id, const char *path);
/* Get the identity of the file at a path. */
void nymbl__file_id_get(nymbl__file_id *id, const char *path);

/* Create and lock a directory. *lock becomes the descriptor of the lock, or -1
 * if directories cannot be locked. Returns false, with errno, on failure. */
bool nymbl__private_dir_create(char path[32], int *lock);
/* Remove the directory if it still has this identity, then unlock it. */
void nymbl__private_dir_remove(char path[32], int *lock,
                               const nymbl__file_id *id);

#endif
