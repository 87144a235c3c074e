/* SPDX-License-Identifier: MIT */
/* Atomic files: a file appears under its name complete and flushed, or not at
 * all. */
#include "file/save.h"

#include "base/error.h"
#include "base/fd.h"
#include "file/fs.h"
#include "file/partial.h"
#include "file/target.h"
#include "file/tempfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct nymbl__save {
    nymbl__target target;
    nymbl__tempfile tempfile;
    nymbl__partial partial;
    bool uses_partial; /* `partial` is used instead of `tempfile` */
    int fd;            /* the descriptor of whichever is used */
    int64_t length;    /* the length that the file must have now */
    unsigned mode;
    bool overwrite;
};

/* Release the struct and close its files. Files that have a name keep it. */
static void save_free(nymbl__save *save)
{
    if (save->tempfile.fd >= 0)
        close(save->tempfile.fd);
    nymbl__partial_free(&save->partial);
    nymbl__target_free(&save->target);
    free(save);
}

nymbl_kind nymbl__save_open(nymbl__save **out, const char *path, unsigned mode,
                            bool overwrite, const char *resource,
                            nymbl_error *err)
{
    const char *reason = NULL;
    nymbl__save *save = calloc(1, sizeof(*save));
    nymbl_kind kind;

    *out = NULL;
    if (save == NULL)
        return nymbl__error_set(err, NYMBL_NO_MEMORY, NULL);
    save->tempfile.fd = save->partial.fd = -1;
    save->target.dir_fd = save->target.base_fd = -1;
    save->mode = mode != 0 ? mode : 0600;
    save->overwrite = overwrite;
    kind = nymbl__target_resolve(&save->target, path, overwrite, &reason);
    if (kind == NYMBL_OK)
        nymbl__tempfile_sweep(save->target.dir_fd);
    if (kind == NYMBL_OK && resource != NULL) {
        kind = nymbl__partial_open(&save->partial, save->target.dir_fd,
                                   save->target.name, resource);
        save->uses_partial = kind == NYMBL_OK;
        save->fd = save->partial.fd;
        save->length = save->partial.offset;
    }
    if (kind >= 0 && !save->uses_partial) {
        kind =
            nymbl__tempfile_open(&save->tempfile, save->target.dir_fd, &reason);
        save->fd = save->tempfile.fd;
    }
    if (kind < 0) {
        nymbl__save_discard(save);
        return nymbl__error_set(err, kind, reason);
    }
    *out = save;
    return NYMBL_OK;
}

int64_t nymbl__save_offset(const nymbl__save *save)
{
    return save->partial.offset;
}

const char *nymbl__save_validator(const nymbl__save *save)
{
    return save->partial.validator;
}

void nymbl__save_step_back(nymbl__save *save)
{
    nymbl__partial_step_back(&save->partial);
    save->length = save->partial.offset;
}

size_t nymbl__save_peek(const nymbl__save *save, void *buf, size_t cap)
{
    ssize_t got = pread(save->fd, buf, cap, 0);

    return got > 0 ? (size_t)got : 0;
}

nymbl_kind nymbl__save_restart(nymbl__save *save, const char *validator,
                               const char **reason)
{
    if (!save->uses_partial)
        return NYMBL_OK;
    save->length = 0;
    if (nymbl__partial_restart(&save->partial, validator)) {
        save->fd = save->partial.fd;
        return NYMBL_OK;
    }
    *reason = nymbl_reason_from_errno(errno);
    return NYMBL_IO;
}

nymbl_kind nymbl__save_write(nymbl__save *save, const void *data, size_t size,
                             const char **reason)
{
    const char *at = data;

    while (size > 0) {
        ssize_t wrote = write(save->fd, at, size);

        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote == 0) /* against POSIX; a retry might never end */
            errno = ENOSPC;
        if (wrote <= 0) {
            *reason = nymbl_reason_from_errno(errno);
            return NYMBL_IO;
        }
        at += wrote;
        size -= (size_t)wrote;
        save->length += wrote;
    }
    return NYMBL_OK;
}

/* Whether the file has exactly the bytes that were written. Another part of the
 * program may have written to its descriptor. */
static bool has_length(const nymbl__save *save, int64_t length)
{
    struct stat status;

    return fstat(save->fd, &status) == 0 && status.st_size == length;
}

/* Keep the partial file if it can be resumed, else remove the file. Release the
 * struct. */
static void save_keep_or_discard(nymbl__save *save, bool complete)
{
    int64_t length = save->length;

    /* The byte that nymbl__save_step_back() requested again may not have
     * arrived, but the file still has it. */
    if (length < save->partial.intact_size)
        length = save->partial.intact_size;
    if (save->uses_partial && length > 0 && has_length(save, length) &&
        nymbl__partial_keep(&save->partial, length, complete))
        save_free(save);
    else
        nymbl__save_discard(save);
}

static int rename_into_place(nymbl__save *save)
{
    int dir_fd = save->target.dir_fd;
    const char *name = save->target.name;

    if (save->uses_partial)
        return nymbl__partial_publish(&save->partial, name, save->overwrite);
    return nymbl__tempfile_publish(&save->tempfile, dir_fd, name,
                                   save->overwrite);
}

nymbl_kind nymbl__save_commit(nymbl__save *save, const char **reason)
{
    nymbl_kind kind = NYMBL_OK;
    bool failed = nymbl__fs_set_mode(save->fd, save->mode) < 0 ||
                  nymbl__fs_flush(save->fd) < 0;

    if (failed) {
        kind = NYMBL_IO;
        *reason = nymbl_reason_from_errno(errno);
    } else if (!has_length(save, save->length)) {
        kind = NYMBL_IO;
        *reason = nymbl__reason_changed;
    } else if (!nymbl__target_is_unmoved(&save->target, reason)) {
        kind = NYMBL_IO;
    } else if (rename_into_place(save) < 0) {
        *reason = nymbl_reason_from_errno(errno);
        save_keep_or_discard(save, true);
        return NYMBL_IO;
    }
    if (kind < 0) {
        nymbl__save_discard(save);
        return kind;
    }
    /* Flush the new name too. The file is complete even if this fails, so the
     * result is ignored. */
    nymbl__fs_flush_dir(save->target.dir_fd);
    /* A partial file of an earlier download to this path is obsolete. */
    if (!save->uses_partial)
        nymbl__partial_remove_unused(save->target.dir_fd, save->target.name);
    save_free(save);
    return NYMBL_OK;
}

void nymbl__save_keep_partial(nymbl__save *save)
{
    if (save != NULL)
        save_keep_or_discard(save, false);
}

void nymbl__save_discard(nymbl__save *save)
{
    if (save == NULL)
        return;
    nymbl__tempfile_discard(&save->tempfile, save->target.dir_fd);
    if (save->uses_partial)
        nymbl__partial_remove(&save->partial);
    save_free(save);
}
