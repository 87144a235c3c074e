/* SPDX-License-Identifier: MIT */
/* Part files: what is kept of an interrupted download. */
#ifndef NYMBL_FILE_PARTIAL_H
#define NYMBL_FILE_PARTIAL_H

#include "base/validator.h"
#include "nymbl.h"

#define NYMBL__PART_END ".nymbl-part"
#define NYMBL__NOTE_END ".nymbl-note"

/* What is kept beside a file of an interrupted download. */
typedef struct nymbl__partial {
    int fd;
    int directory; /* borrowed */
    char *name;
    char *note;        /* name of the file that says what it is a part of */
    char resource[65]; /* nymbl__client_resource() */
    int64_t there;     /* bytes of it that are good, or 0 */
    int64_t size;      /* those that it goes on from */
    char validator[NYMBL__VALIDATOR_MAX]; /* "": it cannot be gone on from */
} nymbl__partial;

/* Open or begin a part. NYMBL_DONE: none can be kept here (a link, somebody
 * else's file, one that another process writes). */
nymbl_kind nymbl__partial_open(nymbl__partial *part, int directory,
                               const char *target, const char *resource);
/* Begin from the first byte, under a validator, or under none: then nothing is
 * kept. False where the old note cannot be removed or the file not emptied. */
bool nymbl__partial_restart(nymbl__partial *part, const char *validator);
/* Go back by a byte, so that there is one to ask for: a part may be the whole
 * document. */
void nymbl__partial_step_back(nymbl__partial *part);
/* Have it survive, with so many bytes, a power cut too. False if it cannot be
 * gone on from. */
bool nymbl__partial_keep(nymbl__partial *part, int64_t length, bool whole);
/* Give it its final name. 0, or -1 with errno: then it is kept. */
int nymbl__partial_publish(nymbl__partial *part, const char *target,
                           bool overwrite);
/* Remove the name that a kill has left of a part whose file has got the
 * target's name. */
void nymbl__partial_settle(int directory, const char *target);
/* Remove its files. */
void nymbl__partial_remove(const nymbl__partial *part);
/* Remove those of a target that nobody writes at the moment. */
void nymbl__partial_discard(int directory, const char *target);
/* Close and release; the files stay. */
void nymbl__partial_free(nymbl__partial *part);

#endif
