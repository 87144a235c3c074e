/* SPDX-License-Identifier: MIT */
/* A folder `live` on a disk that loses power before each system call: then
 * `cut` has, one after the other, all that the disk may have of it.
 *
 * Each name is the one of now or of the directory's last fsync(), but a file
 * that had a name and has one does not lose it. Each file has its bytes of now
 * or of its last fsync(), or a part of the new ones. All of these are
 * independent. A state that was tried before is not tried again. */
#ifndef NYMBL_POWER_H
#define NYMBL_POWER_H

#include "test.h"

extern struct power {
    char dir[64];        /* it has the folders */
    unsigned allowed;    /* what `check` allows: states are tried again if it
                            changes */
    long cuts, states;   /* how many were tried */
    const char *boot[2]; /* files with the boot id, before and after a cut */
} power;

/* Begin, with a plan (faults.h). `check` looks at `cut` after the machine has
 * started again; after it has returned false, nothing more is tried. */
void power_begin(const char *plan, bool (*check)(void));
void power_end(void);
/* A power cut now, when the last call has ended. */
void power_cut(void);
/* The path of a name in a folder; valid until the next call but one. */
const char *power_path(const char *folder, const char *name);
/* The bytes of a file, to be freed; NULL if there is none. */
char *power_read(const char *folder, const char *name, size_t *size);
/* The number of names in a folder. */
int power_names(const char *folder);

#endif
