/* SPDX-License-Identifier: MIT */
/* Part files: what is kept of an interrupted download, and the note beside it
 * that says of which document, and under which validator, it is a part. */
#include "file/part.h"

#include "base/buffer.h"
#include "base/descriptor.h"
#include "exchange/head.h"
#include "file/draft.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOTE_MAX 1024

/* The note: this line; the bytes of the part that are on disk, as 20 digits;
 * the boot under which more may have been written, "-" if there are no more, or
 * "w" if that is the whole document; what it is a part of, as a hash; the
 * validator. Version 1 had the URL, and no
 * account; version 2 said nothing of the disk.
 *
 * After a power cut a file may have its length and not its bytes. So what was
 * written counts only while that boot lasts, and later only what was flushed
 * before the note said so. */
static const char magic[] = "nymbl part 3\n";

#define DIGITS 20
#define BOOT (NYMBL_BOOT_ID_SIZE - 1)
#define CLAIM_SIZE (DIGITS + 1 + BOOT + 1)

/* What the note says of the disk. */
typedef struct claim {
    int64_t length;
    char boot[BOOT + 1]; /* "": there are no more bytes */
    bool whole;
} claim;

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

static bool claim_read(const char *text, claim *claim)
{
    const char *boot = text + DIGITS + 1;

    claim->length = 0;
    for (int i = 0; i < DIGITS; i++) {
        if (text[i] < '0' || text[i] > '9' || claim->length > INT64_MAX / 20)
            return false;
        claim->length = claim->length * 10 + (text[i] - '0');
    }
    if (text[DIGITS] != '\n' || boot[BOOT] != '\n')
        return false;
    memcpy(claim->boot, boot, BOOT);
    claim->whole = *boot == 'w';
    claim->boot[*boot == '-' || claim->whole ? 0 : BOOT] = '\0';
    return true;
}

static void claim_write(char text[CLAIM_SIZE + 1], const claim *claim)
{
    memset(text, '-', CLAIM_SIZE);
    snprintf(text, CLAIM_SIZE + 1, "%020lld\n%s", (long long)claim->length,
             claim->boot);
    if (claim->boot[0] == '\0')
        text[DIGITS + 1] = claim->whole ? 'w' : '-';
    text[CLAIM_SIZE - 1] = '\n';
    text[CLAIM_SIZE] = '\0';
}

static bool note_matches(const char *note, const char *resource,
                         char *validator, claim *claim)
{
    size_t length = strlen(resource);
    const char *at = note + sizeof(magic) - 1, *end;

    if (strncmp(note, magic, sizeof(magic) - 1) != 0 ||
        strlen(at) < CLAIM_SIZE || !claim_read(at, claim))
        return false;
    at += CLAIM_SIZE;
    if (strncmp(at, resource, length) != 0 || at[length] != '\n')
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

/* The validator that the part of this resource was begun under, and what is
 * said of the disk. */
static bool note_read(const nymbl__part *part, char *validator, claim *claim)
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
           note_matches(note, part->resource, validator, claim);
}

/* All of a text, also if the system takes it in pieces. */
static bool write_all(int fd, const char *text, off_t at)
{
    size_t left = strlen(text);

    while (left > 0) {
        ssize_t wrote = pwrite(fd, text, left, at);

        if (wrote == 0 || (wrote < 0 && errno != EINTR))
            return false;
        if (wrote > 0) {
            text += wrote;
            at += wrote;
            left -= (size_t)wrote;
        }
    }
    return true;
}

/* Begin a note. False: there is none. */
static bool note_begin(nymbl__part *part, const char *validator)
{
    claim claim = {0};
    char line[CLAIM_SIZE + 1];
    size_t at = sizeof(magic) - 1 + CLAIM_SIZE, length = strlen(validator);
    bool noted;
    int fd;

    nymbl_boot_time(claim.boot);
    claim_write(line, &claim);
    fd = private_open(part->directory, part->note, O_WRONLY | O_CREAT | O_EXCL);
    if (fd < 0) {
        /* where all files are open to others it was made and cannot be used */
        if (errno == EACCES)
            nymbl__leftover_remove(part->directory, part->note);
        return false;
    }
    noted = write_all(fd, magic, 0) && write_all(fd, line, sizeof(magic) - 1) &&
            write_all(fd, part->resource, (off_t)at) &&
            write_all(fd, "\n", (off_t)(at += strlen(part->resource))) &&
            write_all(fd, validator, (off_t)(at + 1)) &&
            write_all(fd, "\n", (off_t)(at + 1 + length));
    if (close(fd) < 0)
        noted = false;
    if (!noted)
        unlinkat(part->directory, part->note, 0);
    return noted;
}

/* Change what the note says of the disk, in place: a full disk must not cost
 * it. False: nothing can be gone on from. */
static bool note_claim(const nymbl__part *part, const claim *claim, bool flush)
{
    char line[CLAIM_SIZE + 1];
    int fd = private_open(part->directory, part->note, O_WRONLY);
    bool good;

    if (fd < 0)
        return false;
    claim_write(line, claim);
    /* in the first sector, which reaches the disk as a whole */
    good = write_all(fd, line, sizeof(magic) - 1) &&
           (!flush || nymbl__file_flush(fd) >= 0);
    if (close(fd) < 0)
        good = false;
    return good;
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
    part->name = name_with(target, NYMBL__PART_END);
    part->note = name_with(target, NYMBL__NOTE_END);
    return part->name != NULL && part->note != NULL;
}

/* Open the part that is there, or make one. One that is ours and that a kill
 * has left with another mode or a second name is replaced. */
static bool part_take(nymbl__part *part, struct stat *status)
{
    bool made = false;

    part->fd = private_open(part->directory, part->name, O_RDWR);
    if (part->fd < 0 && (errno == ENOENT ||
                         nymbl__leftover_remove(part->directory, part->name))) {
        part->fd = private_open(part->directory, part->name,
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
static int64_t claim_judge(const claim *claim, int64_t size)
{
    char boot[NYMBL_BOOT_ID_SIZE];

    if (claim->boot[0] == '\0')
        return size == claim->length ? size : 0;
    nymbl_boot_time(boot);
    if (size < claim->length)
        return 0;
    return strcmp(boot, claim->boot) == 0 ? size : claim->length;
}

void nymbl__part_back(nymbl__part *part)
{
    if (part->size > 0 && lseek(part->fd, (off_t)part->size - 1, SEEK_SET) >= 0)
        part->size--;
}

/* Find out what can be gone on from. */
static void part_look(nymbl__part *part, int64_t size)
{
    claim claim = {0};

    if (size > 0 && note_read(part, part->validator, &claim))
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
        nymbl__part_back(part);
    /* from now on there is more than was flushed; should a power cut undo this
     * line, what is there is longer than the note says, and is not trusted */
    claim.whole = false;
    nymbl_boot_time(claim.boot);
    if (claim.boot[0] != '\0')
        note_claim(part, &claim, false);
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
    if (!part_take(part, &status)) {
        nymbl__part_free(part);
        return NYMBL_DONE;
    }
    part_look(part, (int64_t)status.st_size);
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
        if (part.fd < 0 && errno != ENOENT)
            errno = nymbl__leftover_remove(directory, part.name) ? ENOENT : 0;
        if (part.fd >= 0 ? part_lock(&part, &status)
                         : errno == ENOENT && note_is_there(&part))
            nymbl__part_remove(&part);
    }
    nymbl__part_free(&part);
}

/* Empty the file, or have an empty one in its place. */
static bool part_empty(nymbl__part *part)
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

bool nymbl__part_restart(nymbl__part *part, const char *validator)
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
    if (validator != NULL && note_begin(part, validator))
        strcpy(part->validator, validator);
    return true;
}

bool nymbl__part_keep(nymbl__part *part, int64_t length, bool whole)
{
    claim claim = {.length = length, .whole = whole};
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
        nymbl_boot_time(claim.boot);
    }
    kept = note_claim(part, &claim, true);
    nymbl__directory_flush(part->directory);
    return kept;
}

int nymbl__part_publish(nymbl__part *part, const char *target, bool overwrite)
{
    int problem;

    /* first, so that a kill leaves no note that belongs to nothing */
    unlinkat(part->directory, part->note, 0);
    if (nymbl__file_rename(part->fd, part->directory, part->name, target,
                           overwrite) == 0)
        return 0;
    problem = errno;
    nymbl__file_set_mode(part->fd, 0600);
    if (!note_begin(part, part->validator))
        part->validator[0] = '\0';
    errno = problem;
    return -1;
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
