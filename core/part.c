/* SPDX-License-Identifier: MIT */
/* Part files: what is kept of an interrupted download, and the note beside it
 * that says of which document, and under which validator, it is a part. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOTE_MAX 1024

/* Version 1 had the URL, and no account. */
static const char magic[] = "nymbl part 2\n";

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

/* A file of ours alone: no link to elsewhere, nobody else's, closed to others.
 * A folder may be shared; what somebody put there must not be spliced into a
 * document, nor written through. */
static int private_open(int directory, const char *name, int flags)
{
    struct stat status;
    int fd = nymbl__fd_high(openat(
        directory, name, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600));

    if (fd < 0)
        return -1;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
        status.st_uid == geteuid() && status.st_nlink == 1 &&
        (status.st_mode & 077) == 0)
        return fd;
    close(fd);
    errno = EACCES;
    return -1;
}

/* A line each: what it is a part of, as a hash, and the validator. */
static bool note_matches(const char *note, const char *resource,
                         char *validator)
{
    size_t length = strlen(resource);
    const char *at = note + sizeof(magic) - 1, *end;

    if (strncmp(note, magic, sizeof(magic) - 1) != 0 ||
        strncmp(at, resource, length) != 0 || at[length] != '\n')
        return false;
    at += length + 1;
    end = strchr(at, '\n');
    if (end == NULL || end == at || end[1] != '\0' ||
        (size_t)(end - at) >= NYMBL__VALIDATOR_MAX)
        return false;
    memcpy(validator, at, (size_t)(end - at));
    validator[end - at] = '\0';
    return nymbl__is_validator(validator);
}

/* The validator that the part of this resource was begun under. */
static bool note_read(const nymbl__part *part, char *validator)
{
    char note[NOTE_MAX + 1];
    int fd = private_open(part->directory, part->note, O_RDONLY);
    size_t size = 0;
    ssize_t got = -1;

    if (fd < 0)
        return false;
    do {
        got = read(fd, note + size, NOTE_MAX - size);
        if (got > 0)
            size += (size_t)got;
    } while (got > 0 || (got < 0 && errno == EINTR));
    close(fd);
    note[size] = '\0';
    return got == 0 && size < NOTE_MAX && strlen(note) == size &&
           note_matches(note, part->resource, validator);
}

/* Whether the file that is locked now still has the part's name: another
 * process may have finished it, and given it its own, before the lock was ours.
 */
static bool is_still_named(const nymbl__part *part, struct stat *status)
{
    return fstat(part->fd, status) == 0 && status->st_nlink == 1 &&
           nymbl__fd_has_name(part->fd, part->directory, part->name);
}

/* Lock it, to the end: two that write one part would mix their bytes. */
static bool part_lock(nymbl__part *part, struct stat *status)
{
    int locked;

    do
        locked = flock(part->fd, LOCK_EX | LOCK_NB);
    while (locked < 0 && errno == EINTR);
    return locked == 0 && is_still_named(part, status);
}

/* The names beside a target. False without memory. */
static bool part_names(nymbl__part *part, int directory, const char *target)
{
    *part = (nymbl__part){.fd = -1, .directory = directory};
    part->name = name_with(target, ".nymbl-part");
    part->note = name_with(target, ".nymbl-note");
    return part->name != NULL && part->note != NULL;
}

nymbl_kind nymbl__part_open(nymbl__part *part, int directory,
                            const char *target, const char *resource)
{
    struct stat status;

    if (!part_names(part, directory, target)) {
        nymbl__part_free(part);
        return NYMBL_NO_MEMORY;
    }
    memcpy(part->resource, resource, sizeof(part->resource));
    part->fd = private_open(directory, part->name, O_RDWR | O_CREAT);
    errno = 0;
    if (part->fd < 0 || !part_lock(part, &status)) {
        /* without locks no part is used, so a new one must not stay */
        if (part->fd >= 0 && nymbl__is_lacking(errno) &&
            is_still_named(part, &status) && status.st_size == 0)
            unlinkat(directory, part->name, 0);
        nymbl__part_free(part);
        return NYMBL_DONE;
    }
    if (status.st_size > 0 && note_read(part, part->validator))
        part->size = (int64_t)status.st_size;
    if (lseek(part->fd, (off_t)part->size, SEEK_SET) < 0)
        part->size = 0;
    return NYMBL_OK;
}

void nymbl__part_remove(const nymbl__part *part)
{
    unlinkat(part->directory, part->note, 0);
    if (part->fd >= 0 &&
        nymbl__fd_has_name(part->fd, part->directory, part->name))
        unlinkat(part->directory, part->name, 0);
}

/* Whether there is a note that could be read as one of ours. */
static bool note_is_there(const nymbl__part *part)
{
    int fd = private_open(part->directory, part->note, O_RDONLY);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

void nymbl__part_discard(int directory, const char *target)
{
    nymbl__part part;
    struct stat status;

    if (part_names(&part, directory, target)) {
        part.fd = private_open(directory, part.name, O_RDWR);
        if (part.fd >= 0 ? part_lock(&part, &status)
                         : errno == ENOENT && note_is_there(&part))
            nymbl__part_remove(&part);
    }
    nymbl__part_free(&part);
}

/* All of a text, also if the system takes it in pieces. */
static bool write_all(int fd, const char *text)
{
    size_t left = strlen(text);

    while (left > 0) {
        ssize_t wrote = write(fd, text, left);

        if (wrote == 0 || (wrote < 0 && errno != EINTR))
            return false;
        if (wrote > 0) {
            text += wrote;
            left -= (size_t)wrote;
        }
    }
    return true;
}

bool nymbl__part_restart(nymbl__part *part, const char *validator)
{
    bool noted = false;
    int fd;

    /* the old note goes first: it must never stand beside other bytes */
    if (unlinkat(part->directory, part->note, 0) < 0 && note_is_there(part))
        return false;
    part->size = 0;
    part->validator[0] = '\0';
    if (ftruncate(part->fd, 0) < 0 || lseek(part->fd, 0, SEEK_SET) < 0)
        return false;
    if (validator == NULL)
        return true;
    fd = private_open(part->directory, part->note, O_WRONLY | O_CREAT | O_EXCL);
    if (fd >= 0) {
        noted = write_all(fd, magic) && write_all(fd, part->resource) &&
                write_all(fd, "\n") && write_all(fd, validator) &&
                write_all(fd, "\n");
        if (close(fd) < 0)
            noted = false;
        if (!noted)
            unlinkat(part->directory, part->note, 0);
    }
    part->noted = noted;
    return true;
}

void nymbl__part_settle(int directory, const char *target)
{
    nymbl__part part;
    struct stat named, whole;

    if (part_names(&part, directory, target) &&
        fstatat(directory, part.name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
        fstatat(directory, target, &whole, AT_SYMLINK_NOFOLLOW) == 0 &&
        named.st_dev == whole.st_dev && named.st_ino == whole.st_ino)
        nymbl__leftover_remove(directory, part.name);
    nymbl__part_free(&part);
}

void nymbl__part_free(nymbl__part *part)
{
    if (part->fd >= 0)
        close(part->fd);
    part->fd = -1;
    nymbl__secret_free(part->name);
    nymbl__secret_free(part->note);
    part->name = part->note = NULL;
}
