/* SPDX-License-Identifier: MIT */
/* Detection of changes to a source file while it is sent. */
#ifndef NYMBL_FILE_SNAPSHOT_H
#define NYMBL_FILE_SNAPSHOT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/* The state of a regular file at the start of an upload. */
typedef struct nymbl__snapshot {
    int fd; /* borrowed; -1 if it is not a regular file */
    struct stat status;
    uint64_t path_hash; /* a hash of the file's path, or 0 if it is unknown */
} nymbl__snapshot;

/* Record the state of a file. A snapshot of anything but a regular file is
 * never outdated. */
void nymbl__snapshot_take(nymbl__snapshot *snapshot, int fd);
/* Whether the file may have been modified since the snapshot was taken. Then
 * the bytes read from it may mix two versions. */
bool nymbl__snapshot_is_outdated(const nymbl__snapshot *snapshot);

#endif
