/* SPDX-License-Identifier: MIT */
/* Directories for a listener, which no other user can enter. */
#ifndef NYMBL_ENGINE_PRIVATE_DIR_H
#define NYMBL_ENGINE_PRIVATE_DIR_H

#include <stdbool.h>
#include <sys/types.h>

/* The identity of a file. */
typedef struct nymbl__file_id {
    dev_t device;
    ino_t inode;
} nymbl__file_id;

/* Whether a path still names that file. A program that cleans up /tmp may have
 * removed it, and another process may have created its own under the same name.
 */
bool nymbl__file_id_matches(const nymbl__file_id *id, const char *path);
void nymbl__file_id_get(nymbl__file_id *id, const char *path);

/* Create a directory. *lock becomes the descriptor that holds its lock, or -1
 * if directories cannot be locked. False with errno. */
bool nymbl__private_dir_create(char path[32], int *lock);
/* Remove the directory if it still has this identity, then end the lock. */
void nymbl__private_dir_remove(char path[32], int *lock,
                               const nymbl__file_id *id);

#endif
