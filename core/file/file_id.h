/* SPDX-License-Identifier: MIT */
/* The identity of a file, by which it is recognized at its path. */
#ifndef NYMBL_FILE_FILE_ID_H
#define NYMBL_FILE_FILE_ID_H

#include <stdbool.h>
#include <sys/types.h>

/* The identity of a file. */
typedef struct nymbl__file_id {
    dev_t device;
    ino_t inode;
} nymbl__file_id;

/* Whether a path still leads to the file. A program that cleans up /tmp may
 * have removed the file, and another process may have created its own at the
 * path. */
bool nymbl__file_id_matches(const nymbl__file_id *id, const char *path);
/* Get the identity of the file at a path, or of an open file. */
void nymbl__file_id_get(nymbl__file_id *id, const char *path);
void nymbl__file_id_get_fd(nymbl__file_id *id, int fd);

#endif
