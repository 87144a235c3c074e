/* SPDX-License-Identifier: MIT */
/* Part files: what is kept of an interrupted download, and the note beside it
 * that says of which document, and under which validator, it is a part. */
#include "file/partial.h"

#include "base/buffer.h"
#include "base/descriptor.h"
#include "file/tempfile.h"
#include "file/filesystem.h"
#include "file/meta.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* `name` with an ending; NULL without memory. */
static char *name_with(const char *name, const char *ending)
{
    size_t length = strlen(name), more = strlen(ending) + 1;
    char *longer = malloc(length + more);

    if (longer == NULL)
        return NULL;
    memcpy(longer, name, length);
    memcpy(longer + length, ending, more);
    return longer;
}

/* Whether the file that is locked now still has the part's name: another
 * process may have finished it, and given it its own, before the lock was ours.
 */
static bool is_still_named(const nymbl__partial *part, struct stat *status)
{
    return fstat(part->fd, status) == 0 && status->st_nlink == 1 &&
           nymbl__fd_has_name(part->fd, part->directory, part->name);
}

/* Lock it, to the end: two that write one part would mix their bytes. */
static bool part_lock(nymbl__partial *part, struct stat *status)
{
    int locked;

    do
        locked = flock(part->fd, LOCK_EX | LOCK_NB);
    while (locked < 0 && errno == EINTR);
    return locked == 0 && is_still_named(part, status);
}

/* The names beside a target. False without memory. */
static bool part_names(nymbl__partial *part, int directory, const char *target)
{
    *part = (nymbl__partial){.fd = -1, .directory = directory};
    part->name = name_with(target, NYMBL__PART_END);
    part->note = name_with(target, NYMBL__NOTE_END);
    return part->name != NULL && part->note != NULL;
}

/* Open the part that is there, or make one. One that is ours and that a kill
 * has left with another mode or a second name is replaced. */
static bool part_take(nymbl__partial *part, struct stat *status)
{
    bool made = false;

    part->fd = nymbl__private_open(part->directory, part->name, O_RDWR);
    if (part->fd < 0 && (errno == ENOENT ||
                         nymbl__leftover_remove(part->directory, part->name))) {
        part->fd = nymbl__private_open(part->directory, part->name,
                                       O_RDWR | O_CREAT | O_EXCL);
        made = part->fd >= 0;
        if (part->fd < 0 && errno == EACCES) /* all files are open to others */
            nymbl__leftover_remove(part->directory, part->name);
    }
    if (part->fd < 0)
        return false;
    if (part_lock(part, status))
        return true;
    if (made && errno != EWOULDBLOCK &&
        nymbl__fd_has_name(part->fd, part->directory, part->name))
        unlinkat(part->directory, part->name, 0); /* no locks here */
    return false;
}

/* Bytes of a part that are those which were written, or 0. */
static int64_t claim_judge(const nymbl__partial_state *claim, int64_t size)
{
    char boot[NYMBL_BOOT_ID_SIZE];

    if (claim->boot[0] == '\0')
        return size == claim->length ? size : 0;
    nymbl_boot_clock(boot);
    if (size < claim->length)
        return 0;
    return strcmp(boot, claim->boot) == 0 ? size : claim->length;
}

void nymbl__partial_step_back(nymbl__partial *part)
{
    if (part->size > 0 && lseek(part->fd, (off_t)part->size - 1, SEEK_SET) >= 0)
        part->size--;
}

/* Find out what can be gone on from. */
static void part_look(nymbl__partial *part, int64_t size)
{
    nymbl__partial_state claim = {0};

    if (size > 0 && nymbl__meta_read(part->directory, part->note,
                                     part->resource, part->validator, &claim))
        part->there = claim_judge(&claim, size);
    if ((part->there < size && ftruncate(part->fd, (off_t)part->there) < 0) ||
        lseek(part->fd, (off_t)part->there, SEEK_SET) < 0)
        part->there = 0;
    part->size = part->there;
    if (part->size == 0) {
        part->validator[0] = '\0';
        return;
    }
    if (claim.whole)
        nymbl__partial_step_back(part);
    /* from now on there is more than was flushed; should a power cut undo this
     * line, what is there is longer than the note says, and is not trusted */
    claim.whole = false;
    nymbl_boot_clock(claim.boot);
    if (claim.boot[0] != '\0')
        nymbl__meta_update(part->directory, part->note, &claim, false);
}

nymbl_kind nymbl__partial_open(nymbl__partial *part, int directory,
                               const char *target, const char *resource)
{
    struct stat status;

    if (!part_names(part, directory, target)) {
        nymbl__partial_free(part);
        return NYMBL_NO_MEMORY;
    }
    memcpy(part->resource, resource, sizeof(part->resource));
    if (!part_take(part, &status)) {
        nymbl__partial_free(part);
        return NYMBL_DONE;
    }
    part_look(part, (int64_t)status.st_size);
    return NYMBL_OK;
}

void nymbl__partial_remove(const nymbl__partial *part)
{
    unlinkat(part->directory, part->note, 0);
    if (part->fd >= 0 &&
        nymbl__fd_has_name(part->fd, part->directory, part->name))
        unlinkat(part->directory, part->name, 0);
}

/* Whether there is a note that could be read as one of ours. */
static bool note_is_there(const nymbl__partial *part)
{
    int fd = nymbl__private_open(part->directory, part->note, O_RDONLY);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

void nymbl__partial_discard(int directory, const char *target)
{
    nymbl__partial part;
    struct stat status;

    if (part_names(&part, directory, target)) {
        part.fd = nymbl__private_open(directory, part.name, O_RDWR);
        if (part.fd < 0 && errno != ENOENT)
            errno = nymbl__leftover_remove(directory, part.name) ? ENOENT : 0;
        if (part.fd >= 0 ? part_lock(&part, &status)
                         : errno == ENOENT && note_is_there(&part))
            nymbl__partial_remove(&part);
    }
    nymbl__partial_free(&part);
}

/* Empty the file, or have an empty one in its place. */
static bool part_empty(nymbl__partial *part)
{
    struct stat status;

    if (fstat(part->fd, &status) < 0)
        return false;
    if (status.st_size == 0 || ftruncate(part->fd, 0) == 0)
        return lseek(part->fd, 0, SEEK_SET) == 0;
    if (!nymbl__is_lacking(errno) ||
        unlinkat(part->directory, part->name, 0) < 0)
        return false;
    close(part->fd);
    part->fd = -1;
    if (part_take(part, &status))
        return status.st_size == 0;
    errno = EACCES;
    return false;
}

bool nymbl__partial_restart(nymbl__partial *part, const char *validator)
{
    part->size = part->there = 0;
    part->validator[0] = '\0';
    /* the old note goes first, on the disk too: it must never stand beside
     * other bytes */
    if (unlinkat(part->directory, part->note, 0) < 0) {
        if (note_is_there(part))
            return false;
    } else if (nymbl__directory_flush(part->directory) < 0) {
        return false;
    }
    if (!part_empty(part))
        return false;
    if (validator != NULL && nymbl__meta_create(part->directory, part->note,
                                                part->resource, validator))
        strcpy(part->validator, validator);
    return true;
}

bool nymbl__partial_keep(nymbl__partial *part, int64_t length, bool whole)
{
    nymbl__partial_state claim = {.length = length, .whole = whole};
    int flushed;
    bool kept;

    if (part->validator[0] == '\0' ||
        !nymbl__fd_has_name(part->fd, part->directory, part->name))
        return false;
    flushed = nymbl__file_flush(part->fd); /* before the note says so */
    if (flushed < 0)
        return false;
    if (flushed > 0) {
        claim.length = 0;
        nymbl_boot_clock(claim.boot);
    }
    kept = nymbl__meta_update(part->directory, part->note, &claim, true);
    nymbl__directory_flush(part->directory);
    return kept;
}

int nymbl__partial_publish(nymbl__partial *part, const char *target,
                           bool overwrite)
{
    int problem;

    /* first, so that a kill leaves no note that belongs to nothing */
    unlinkat(part->directory, part->note, 0);
    if (nymbl__file_rename(part->fd, part->directory, part->name, target,
                           overwrite) == 0)
        return 0;
    problem = errno;
    nymbl__file_set_mode(part->fd, 0600);
    if (!nymbl__meta_create(part->directory, part->note, part->resource,
                            part->validator))
        part->validator[0] = '\0';
    errno = problem;
    return -1;
}

void nymbl__partial_settle(int directory, const char *target)
{
    nymbl__partial part;
    struct stat named, whole;

    if (part_names(&part, directory, target) &&
        fstatat(directory, part.name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
        fstatat(directory, target, &whole, AT_SYMLINK_NOFOLLOW) == 0 &&
        named.st_dev == whole.st_dev && named.st_ino == whole.st_ino)
        nymbl__leftover_remove(directory, part.name);
    nymbl__partial_free(&part);
}

void nymbl__partial_free(nymbl__partial *part)
{
    if (part->fd >= 0)
        close(part->fd);
    part->fd = -1;
    nymbl__secret_free(part->name);
    nymbl__secret_free(part->note);
    part->name = part->note = NULL;
}
