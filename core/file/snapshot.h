/* SPDX-License-Identifier: MIT */
/* Detection of changes to a source file while it is sent. */
#ifndef NYMBL_FILE_SNAPSHOT_H
#define NYMBL_FILE_SNAPSHOT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/* The state of a regular file at the start of an upload. */
typedef struct nymbl__snapshot {
    int fd; /* borrowed; -1: not a regular file */
    struct stat status;
    uint64_t path_hash; /* hash of its path, or 0 */
} nymbl__snapshot;

/* Record the state of a file. Descriptors of other kinds are never outdated. */
void nymbl__snapshot_take(nymbl__snapshot *snapshot, int fd);
/* Whether the file may have been modified since: bytes that were read meanwhile
 * may then mix two versions of it. */
bool nymbl__snapshot_is_outdated(const nymbl__snapshot *snapshot);

#endif
