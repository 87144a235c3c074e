/* SPDX-License-Identifier: MIT */
/* Partial files: the bytes of an interrupted download, and beside them a
 * metadata file that names the document and its validator. */
#include "file/partial.h"

#include "base/fd.h"
#include "base/secret.h"
#include "file/fs.h"
#include "file/leftover.h"
#include "file/meta.h"
#include "file/private_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Returns `name` with a suffix, or NULL if memory runs out. */
static char *name_append(const char *name, const char *suffix)
{
    size_t length = strlen(name), more = strlen(suffix) + 1;
    char *longer = malloc(length + more);

    if (longer == NULL)
        return NULL;
    memcpy(longer, name, length);
    memcpy(longer + length, suffix, more);
    return longer;
}

/* Whether the locked file still has the partial file's name, and no other.
 * Before this process got the lock, another process may have completed and
 * renamed the file. */
static bool is_still_named(const nymbl__partial *partial, struct stat *status)
{
    return fstat(partial->fd, status) == 0 && status->st_nlink == 1 &&
           nymbl__fs_has_name(partial->fd, partial->dir_fd, partial->name);
}

/* Lock the file until it is closed: two writers would mix their bytes. */
static bool partial_lock(nymbl__partial *partial, struct stat *status)
{
    int locked;

    do
        locked = flock(partial->fd, LOCK_EX | LOCK_NB);
    while (locked < 0 && errno == EINTR);
    return locked == 0 && is_still_named(partial, status);
}

/* Fill in the names beside a target. Returns false if memory runs out. */
static bool partial_set_names(nymbl__partial *partial, int dir_fd,
                              const char *target)
{
    *partial = (nymbl__partial){.fd = -1, .dir_fd = dir_fd};
    partial->name = name_append(target, NYMBL__PARTIAL_SUFFIX);
    partial->meta_name = name_append(target, NYMBL__META_SUFFIX);
    return partial->name != NULL && partial->meta_name != NULL;
}

/* Open the existing partial file or create one. An existing file of this user
 * with an unusable mode or a second name, left behind by a killed process, is
 * replaced. */
static bool partial_acquire(nymbl__partial *partial, struct stat *status)
{
    bool created = false;

    partial->fd =
        nymbl__private_file_open(partial->dir_fd, partial->name, O_RDWR);
    if (partial->fd < 0 &&
        (errno == ENOENT ||
         nymbl__leftover_remove(partial->dir_fd, partial->name))) {
        partial->fd = nymbl__private_file_open(partial->dir_fd, partial->name,
                                               O_RDWR | O_CREAT | O_EXCL);
        created = partial->fd >= 0;
        /* A file system with fixed modes has created the file, but made it
         * accessible to others: it cannot be used. */
        if (partial->fd < 0 && errno == EACCES)
            nymbl__leftover_remove(partial->dir_fd, partial->name);
    }
    if (partial->fd < 0)
        return false;
    if (partial_lock(partial, status))
        return true;
    /* if the file system does not support locks, leave no empty file */
    if (created && errno != EWOULDBLOCK &&
        nymbl__fs_has_name(partial->fd, partial->dir_fd, partial->name))
        unlinkat(partial->dir_fd, partial->name, 0);
    return false;
}

/* Number of bytes that are known to be intact, or 0. */
static int64_t intact_length(const nymbl__meta_state *state, int64_t size)
{
    char boot[NYMBL_BOOT_ID_SIZE];

    if (state->boot[0] == '\0')
        return size == state->length ? size : 0;
    nymbl_boot_clock(boot);
    if (size < state->length)
        return 0;
    return strcmp(boot, state->boot) == 0 ? size : state->length;
}

void nymbl__partial_step_back(nymbl__partial *partial)
{
    if (partial->offset > 0 &&
        lseek(partial->fd, (off_t)partial->offset - 1, SEEK_SET) >= 0)
        partial->offset--;
}

/* Find the offset at which the download can continue. */
static void partial_inspect(nymbl__partial *partial, int64_t size)
{
    nymbl__meta_state state = {0};

    if (size > 0 &&
        nymbl__meta_read(partial->dir_fd, partial->meta_name, partial->resource,
                         partial->validator, &state))
        partial->intact_size = intact_length(&state, size);
    if ((partial->intact_size < size &&
         ftruncate(partial->fd, (off_t)partial->intact_size) < 0) ||
        lseek(partial->fd, (off_t)partial->intact_size, SEEK_SET) < 0)
        partial->intact_size = 0;
    partial->offset = partial->intact_size;
    if (partial->offset == 0) {
        partial->validator[0] = '\0';
        return;
    }
    if (state.complete)
        nymbl__partial_step_back(partial);
    /* From now on the file may contain bytes that were not flushed. If a power
     * failure undoes this update, the file is longer than its metadata says,
     * and is not trusted. */
    state.complete = false;
    nymbl_boot_clock(state.boot);
    if (state.boot[0] != '\0')
        nymbl__meta_update(partial->dir_fd, partial->meta_name, &state, false);
}

nymbl_kind nymbl__partial_open(nymbl__partial *partial, int dir_fd,
                               const char *target, const char *resource)
{
    struct stat status;

    if (!partial_set_names(partial, dir_fd, target)) {
        nymbl__partial_free(partial);
        return NYMBL_NO_MEMORY;
    }
    memcpy(partial->resource, resource, sizeof(partial->resource));
    if (!partial_acquire(partial, &status)) {
        nymbl__partial_free(partial);
        return NYMBL_DONE;
    }
    partial_inspect(partial, (int64_t)status.st_size);
    return NYMBL_OK;
}

void nymbl__partial_remove(const nymbl__partial *partial)
{
    unlinkat(partial->dir_fd, partial->meta_name, 0);
    if (partial->fd >= 0 &&
        nymbl__fs_has_name(partial->fd, partial->dir_fd, partial->name))
        unlinkat(partial->dir_fd, partial->name, 0);
}

/* Whether there is a metadata file of this user. */
static bool meta_exists(const nymbl__partial *partial)
{
    int fd =
        nymbl__private_file_open(partial->dir_fd, partial->meta_name, O_RDONLY);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

void nymbl__partial_remove_unused(int dir_fd, const char *target)
{
    nymbl__partial partial;
    struct stat status;
    bool is_unused;

    if (partial_set_names(&partial, dir_fd, target)) {
        partial.fd = nymbl__private_file_open(dir_fd, partial.name, O_RDWR);
        if (partial.fd >= 0)
            is_unused = partial_lock(&partial, &status);
        else /* there is no partial file, or not any more */
            is_unused = (errno == ENOENT ||
                         nymbl__leftover_remove(dir_fd, partial.name)) &&
                        meta_exists(&partial);
        if (is_unused)
            nymbl__partial_remove(&partial);
    }
    nymbl__partial_free(&partial);
}

/* Truncate the file, or replace it by an empty one. */
static bool partial_truncate(nymbl__partial *partial)
{
    struct stat status;

    if (fstat(partial->fd, &status) < 0)
        return false;
    if (status.st_size == 0 || ftruncate(partial->fd, 0) == 0)
        return lseek(partial->fd, 0, SEEK_SET) == 0;
    /* Flush the removal, too: the new metadata must not describe this file. */
    if (!nymbl__fs_is_unsupported(errno) ||
        unlinkat(partial->dir_fd, partial->name, 0) < 0 ||
        nymbl__fs_flush_dir(partial->dir_fd) < 0)
        return false;
    close(partial->fd);
    partial->fd = -1;
    if (partial_acquire(partial, &status))
        return status.st_size == 0;
    errno = EACCES;
    return false;
}

bool nymbl__partial_restart(nymbl__partial *partial, const char *validator)
{
    partial->offset = partial->intact_size = 0;
    partial->validator[0] = '\0';
    /* Remove the old metadata first, and flush its removal: it must never
     * describe other bytes. */
    if (unlinkat(partial->dir_fd, partial->meta_name, 0) < 0) {
        if (meta_exists(partial))
            return false;
    } else if (nymbl__fs_flush_dir(partial->dir_fd) < 0) {
        return false;
    }
    if (!partial_truncate(partial))
        return false;
    if (validator != NULL &&
        nymbl__meta_create(partial->dir_fd, partial->meta_name,
                           partial->resource, validator))
        strcpy(partial->validator, validator);
    return true;
}

bool nymbl__partial_keep(nymbl__partial *partial, int64_t length, bool complete)
{
    nymbl__meta_state state = {.length = length, .complete = complete};
    int flushed;
    bool kept;

    if (partial->validator[0] == '\0' ||
        !nymbl__fs_has_name(partial->fd, partial->dir_fd, partial->name))
        return false;
    flushed = nymbl__fs_flush(partial->fd);
    if (flushed < 0)
        return false;
    if (flushed > 0) { /* flushing is not supported */
        state.length = 0;
        nymbl_boot_clock(state.boot);
    }
    kept =
        nymbl__meta_update(partial->dir_fd, partial->meta_name, &state, true);
    nymbl__fs_flush_dir(partial->dir_fd);
    return kept;
}

int nymbl__partial_publish(nymbl__partial *partial, const char *target,
                           bool overwrite)
{
    int saved_errno;

    /* The metadata is removed first, so that a process killed in between leaves
     * none without its partial file. */
    unlinkat(partial->dir_fd, partial->meta_name, 0);
    if (nymbl__fs_rename(partial->fd, partial->dir_fd, partial->name, target,
                         overwrite) == 0)
        return 0;
    saved_errno = errno;
    nymbl__fs_set_mode(partial->fd, 0600);
    if (!nymbl__meta_create(partial->dir_fd, partial->meta_name,
                            partial->resource, partial->validator))
        partial->validator[0] = '\0';
    errno = saved_errno;
    return -1;
}

void nymbl__partial_unlink_duplicate(int dir_fd, const char *target)
{
    nymbl__partial partial;
    struct stat kept, final;

    if (partial_set_names(&partial, dir_fd, target) &&
        fstatat(dir_fd, partial.name, &kept, AT_SYMLINK_NOFOLLOW) == 0 &&
        fstatat(dir_fd, target, &final, AT_SYMLINK_NOFOLLOW) == 0 &&
        kept.st_dev == final.st_dev && kept.st_ino == final.st_ino)
        nymbl__leftover_remove(dir_fd, partial.name);
    nymbl__partial_free(&partial);
}

void nymbl__partial_free(nymbl__partial *partial)
{
    if (partial->fd >= 0)
        close(partial->fd);
    partial->fd = -1;
    nymbl__secret_free(partial->name);
    nymbl__secret_free(partial->meta_name);
    partial->name = partial->meta_name = NULL;
}
