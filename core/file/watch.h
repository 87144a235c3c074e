/* SPDX-License-Identifier: MIT */
/* A file that is sent must not change meanwhile. */
#ifndef NYMBL_FILE_WATCH_H
#define NYMBL_FILE_WATCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/* A regular file whose bytes are sent, as it was when that began. */
typedef struct nymbl__watch {
    int fd; /* borrowed; -1: nothing is watched */
    struct stat before;
    uint64_t name; /* a hash of its name, or 0 */
} nymbl__watch;

/* Does nothing if it is no regular file. */
void nymbl__watch_begin(nymbl__watch *watch, int fd);
/* Whether what was read meanwhile may be of two states of the file. */
bool nymbl__watch_has_changed(const nymbl__watch *watch);

#endif
