/* SPDX-License-Identifier: MIT */
/* Metadata files: which document a partial file belongs to, and how much of it
 * is on disk. */
#include "file/meta.h"

#include "base/validator.h"
#include "file/fs.h"
#include "file/leftover.h"
#include "file/private_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define META_MAX 1024

/* The format has one field per line:
 *
 * 1. this text
 * 2. the number of flushed bytes, as 20 digits
 * 3. the boot id of the system when it began to write bytes that were not
 *    flushed; "-" if all bytes were flushed; "w" if they also are the whole
 *    document
 * 4. a hash of the resource
 * 5. the validator
 *
 * After a power failure a file may have its length but not its bytes. So
 * unflushed bytes count only while the boot id is still the current one. */
static const char magic[] = "nymbl meta 4\n";

#define LENGTH_DIGITS 20
#define BOOT_ID_LENGTH (NYMBL_BOOT_ID_SIZE - 1)
/* size of lines 2 and 3 */
#define STATE_SIZE (LENGTH_DIGITS + 1 + BOOT_ID_LENGTH + 1)

static bool state_parse(const char *text, nymbl__meta_state *state)
{
    const char *boot = text + LENGTH_DIGITS + 1;

    state->length = 0;
    for (int i = 0; i < LENGTH_DIGITS; i++) {
        if (text[i] < '0' || text[i] > '9' || state->length > INT64_MAX / 20)
            return false;
        state->length = state->length * 10 + (text[i] - '0');
    }
    if (text[LENGTH_DIGITS] != '\n' || boot[BOOT_ID_LENGTH] != '\n')
        return false;
    memcpy(state->boot, boot, BOOT_ID_LENGTH);
    state->complete = *boot == 'w';
    state->boot[*boot == '-' || state->complete ? 0 : BOOT_ID_LENGTH] = '\0';
    return true;
}

static void state_format(char text[STATE_SIZE + 1],
                         const nymbl__meta_state *state)
{
    memset(text, '-', STATE_SIZE);
    snprintf(text, STATE_SIZE + 1, "%020lld\n%s", (long long)state->length,
             state->boot);
    if (state->boot[0] == '\0')
        text[LENGTH_DIGITS + 1] = state->complete ? 'w' : '-';
    text[STATE_SIZE - 1] = '\n';
    text[STATE_SIZE] = '\0';
}

static bool meta_parse(const char *text, const char *resource, char *validator,
                       nymbl__meta_state *state)
{
    size_t length = strlen(resource);
    const char *at = text + sizeof(magic) - 1, *end;

    if (strncmp(text, magic, sizeof(magic) - 1) != 0 ||
        strlen(at) < STATE_SIZE || !state_parse(at, state))
        return false;
    at += STATE_SIZE;
    if (strncmp(at, resource, length) != 0 || at[length] != '\n')
        return false;
    at += length + 1;
    end = strchr(at, '\n');
    if (end == NULL || end == at || end[1] != '\0' ||
        (size_t)(end - at) >= NYMBL__VALIDATOR_MAX)
        return false;
    memcpy(validator, at, (size_t)(end - at));
    validator[end - at] = '\0';
    return nymbl__validator_is_valid(validator);
}

bool nymbl__meta_read(int dir_fd, const char *name, const char *resource,
                      char *validator, nymbl__meta_state *state)
{
    char text[META_MAX + 1];
    int fd = nymbl__private_file_open(dir_fd, name, O_RDONLY);
    size_t size = 0;
    ssize_t got = -1;

    if (fd < 0)
        return false;
    do {
        got = read(fd, text + size, META_MAX - size);
        if (got > 0)
            size += (size_t)got;
    } while (got > 0 || (got < 0 && errno == EINTR));
    close(fd);
    text[size] = '\0';
    return got == 0 && size < META_MAX && strlen(text) == size &&
           meta_parse(text, resource, validator, state);
}

/* Write all of a text, even if the system accepts it in pieces. */
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

bool nymbl__meta_create(int dir_fd, const char *name, const char *resource,
                        const char *validator)
{
    nymbl__meta_state state = {0};
    char line[STATE_SIZE + 1];
    size_t at = sizeof(magic) - 1 + STATE_SIZE, length = strlen(validator);
    bool written;
    int fd;

    nymbl_boot_clock(state.boot);
    state_format(line, &state);
    fd = nymbl__private_file_open(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL);
    if (fd < 0) {
        /* A file system with fixed modes has created the file, but made it
         * accessible to others: it cannot be used. */
        if (errno == EACCES)
            nymbl__leftover_remove(dir_fd, name);
        return false;
    }
    written = write_all(fd, magic, 0) &&
              write_all(fd, line, sizeof(magic) - 1) &&
              write_all(fd, resource, (off_t)at) &&
              write_all(fd, "\n", (off_t)(at += strlen(resource))) &&
              write_all(fd, validator, (off_t)(at + 1)) &&
              write_all(fd, "\n", (off_t)(at + 1 + length));
    if (close(fd) < 0)
        written = false;
    if (!written)
        unlinkat(dir_fd, name, 0);
    return written;
}

bool nymbl__meta_update(int dir_fd, const char *name,
                        const nymbl__meta_state *state, bool flush)
{
    char line[STATE_SIZE + 1];
    int fd = nymbl__private_file_open(dir_fd, name, O_WRONLY);
    bool good;

    if (fd < 0)
        return false;
    state_format(line, state);
    /* The state is within the first sector of the file, and a sector is written
     * atomically. */
    good = write_all(fd, line, sizeof(magic) - 1) &&
           (!flush || nymbl__fs_flush(fd) >= 0);
    if (close(fd) < 0)
        good = false;
    return good;
}
