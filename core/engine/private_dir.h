/* SPDX-License-Identifier: MIT */
/* Folders for a listener, which nobody else can enter. */
#ifndef NYMBL_ENGINE_PRIVATE_DIR_H
#define NYMBL_ENGINE_PRIVATE_DIR_H

#include <stdbool.h>
#include <sys/types.h>

/* Which file it is. */
typedef struct nymbl__file_id {
    dev_t device;
    ino_t inode;
} nymbl__file_id;

/* Whether a path still is what was made there. Who cleans up a place for
 * temporary files may have removed it, and another process have made its own
 * of the same name. */
bool nymbl__file_id_matches(const nymbl__file_id *mark, const char *path);
void nymbl__file_id_get(nymbl__file_id *mark, const char *path);

/* Make a folder; *lock is a descriptor, or -1 if folders cannot be locked.
 * False with errno. */
bool nymbl__private_dir_create(char path[32], int *lock);
/* Remove it if it is still that of the mark, and then end the lock. */
void nymbl__private_dir_remove(char path[32], int *lock,
                               const nymbl__file_id *mark);

#endif
