/* SPDX-License-Identifier: MIT */
/* Notes: what is said of a part of a document, in a file beside it. */
#include "file/meta.h"

#include "base/validator.h"
#include "file/tempfile.h"
#include "file/filesystem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
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

static bool claim_read(const char *text, nymbl__partial_state *claim)
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

static void claim_write(char text[CLAIM_SIZE + 1],
                        const nymbl__partial_state *claim)
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
                         char *validator, nymbl__partial_state *claim)
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

bool nymbl__meta_read(int directory, const char *name, const char *resource,
                      char *validator, nymbl__partial_state *claim)
{
    char note[NOTE_MAX + 1];
    int fd = nymbl__private_open(directory, name, O_RDONLY);
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
           note_matches(note, resource, validator, claim);
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

bool nymbl__meta_create(int directory, const char *name, const char *resource,
                        const char *validator)
{
    nymbl__partial_state claim = {0};
    char line[CLAIM_SIZE + 1];
    size_t at = sizeof(magic) - 1 + CLAIM_SIZE, length = strlen(validator);
    bool noted;
    int fd;

    nymbl_boot_clock(claim.boot);
    claim_write(line, &claim);
    fd = nymbl__private_open(directory, name, O_WRONLY | O_CREAT | O_EXCL);
    if (fd < 0) {
        /* where all files are open to others it was made and cannot be used */
        if (errno == EACCES)
            nymbl__leftover_remove(directory, name);
        return false;
    }
    noted = write_all(fd, magic, 0) && write_all(fd, line, sizeof(magic) - 1) &&
            write_all(fd, resource, (off_t)at) &&
            write_all(fd, "\n", (off_t)(at += strlen(resource))) &&
            write_all(fd, validator, (off_t)(at + 1)) &&
            write_all(fd, "\n", (off_t)(at + 1 + length));
    if (close(fd) < 0)
        noted = false;
    if (!noted)
        unlinkat(directory, name, 0);
    return noted;
}

bool nymbl__meta_update(int directory, const char *name,
                        const nymbl__partial_state *claim, bool flush)
{
    char line[CLAIM_SIZE + 1];
    int fd = nymbl__private_open(directory, name, O_WRONLY);
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
