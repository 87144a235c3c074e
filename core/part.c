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

#define NOTE_MAX (NYMBL__URL_MAX + 1024)

static const char magic[] = "nymbl part 1\n";

/* `path` with an ending; NULL without memory. */
static char *path_with(const char *path, const char *ending)
{
    size_t length = strlen(path), more = strlen(ending) + 1;
    char *longer = malloc(length + more);

    if (longer == NULL)
        return NULL;
    memcpy(longer, path, length);
    memcpy(longer + length, ending, more);
    return longer;
}

/* A file of ours alone: no link to elsewhere, nobody else's, closed to others.
 * A folder may be shared; what somebody put there must not be spliced into a
 * document, nor written through. */
static int private_open(const char *path, int flags)
{
    struct stat status;
    int fd = nymbl__fd_high(
        open(path, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600));

    if (fd < 0)
        return -1;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
        status.st_uid == geteuid() && status.st_nlink == 1 &&
        (status.st_mode & 077) == 0)
        return fd;
    close(fd);
    return -1;
}

/* Two names of one thing may come back as one if they are cut: so a line each,
 * the URL whole. */
static bool note_matches(const char *note, const char *url, char *validator)
{
    size_t length = strlen(url);
    const char *at = note + sizeof(magic) - 1, *end;

    if (strncmp(note, magic, sizeof(magic) - 1) != 0 ||
        strncmp(at, url, length) != 0 || at[length] != '\n')
        return false;
    at += length + 1;
    end = strchr(at, '\n');
    if (end == NULL || end == at || end[1] != '\0' ||
        (size_t)(end - at) >= NYMBL__VALIDATOR_MAX)
        return false;
    memcpy(validator, at, (size_t)(end - at));
    validator[end - at] = '\0';
    return true;
}

/* The validator that the part of this URL was begun under. */
static bool note_read(const char *path, const char *url, char *validator)
{
    char *note = malloc(NOTE_MAX + 1);
    int fd = private_open(path, O_RDONLY);
    ssize_t size = -1;
    bool matches = false;

    if (fd >= 0 && note != NULL)
        size = read(fd, note, NOTE_MAX);
    if (size > 0) {
        note[size] = '\0';
        matches =
            strlen(note) == (size_t)size && note_matches(note, url, validator);
    }
    if (fd >= 0)
        close(fd);
    free(note);
    return matches;
}

/* Whether the file that is locked now still has the part's name: another
 * process may have finished it, and given it its own, before the lock was ours.
 */
static bool is_still_named(const nymbl__part *part, struct stat *status)
{
    struct stat named;

    return fstat(part->fd, status) == 0 && status->st_nlink == 1 &&
           lstat(part->path, &named) == 0 && named.st_dev == status->st_dev &&
           named.st_ino == status->st_ino;
}

nymbl_kind nymbl__part_open(nymbl__part *part, const char *target,
                            const char *url)
{
    struct stat status;

    part->fd = -1;
    part->path = path_with(target, ".nymbl-part");
    part->note = path_with(target, ".nymbl-note");
    if (nymbl__text_copy(&part->url, url) < 0 || part->path == NULL ||
        part->note == NULL) {
        nymbl__part_free(part);
        return NYMBL_NO_MEMORY;
    }
    part->fd = private_open(part->path, O_RDWR | O_CREAT);
    /* held to the end: two that write one part would mix their bytes */
    if (part->fd < 0 || flock(part->fd, LOCK_EX | LOCK_NB) < 0 ||
        !is_still_named(part, &status)) {
        nymbl__part_free(part);
        return NYMBL_DONE;
    }
    if (status.st_size > 0 && note_read(part->note, url, part->validator))
        part->size = (int64_t)status.st_size;
    if (lseek(part->fd, (off_t)part->size, SEEK_SET) < 0)
        part->size = 0;
    return NYMBL_OK;
}

static bool write_all(int fd, const char *text)
{
    size_t size = strlen(text);

    return write(fd, text, size) == (ssize_t)size;
}

bool nymbl__part_restart(nymbl__part *part, const char *validator)
{
    bool noted = false;
    int fd;

    /* the old note goes first: it must never stand beside other bytes */
    unlink(part->note);
    part->size = 0;
    part->validator[0] = '\0';
    if (ftruncate(part->fd, 0) < 0 || lseek(part->fd, 0, SEEK_SET) < 0)
        return false;
    if (validator == NULL)
        return true;
    fd = private_open(part->note, O_WRONLY | O_CREAT | O_EXCL);
    if (fd >= 0) {
        noted = write_all(fd, magic) && write_all(fd, part->url) &&
                write_all(fd, "\n") && write_all(fd, validator) &&
                write_all(fd, "\n");
        if (close(fd) < 0)
            noted = false;
    }
    if (!noted)
        unlink(part->note);
    part->noted = noted;
    return true;
}

void nymbl__part_free(nymbl__part *part)
{
    if (part->fd >= 0)
        close(part->fd);
    part->fd = -1;
    free(part->path);
    free(part->note);
    nymbl__secret_free(part->url);
    part->path = part->note = part->url = NULL;
}
