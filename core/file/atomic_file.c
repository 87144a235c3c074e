/* SPDX-License-Identifier: MIT */
/* Atomic files: a file appears under its name complete and flushed, or not at
 * all. */
#include "file/atomic_file.h"

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

struct nymbl__atomic_file {
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
static void file_free(nymbl__atomic_file *file)
{
    if (file->tempfile.fd >= 0)
        close(file->tempfile.fd);
    nymbl__partial_free(&file->partial);
    nymbl__target_free(&file->target);
    free(file);
}

/* `dir_fd`: the directory of the name `path`; -1 if that is a path. */
static nymbl_kind file_open(nymbl__atomic_file **out, int dir_fd,
                            const char *path, unsigned mode, bool overwrite,
                            const char *resource, nymbl_error *err)
{
    const char *reason = NULL;
    nymbl__atomic_file *file = calloc(1, sizeof(*file));
    nymbl_kind kind;

    *out = NULL;
    if (file == NULL)
        return nymbl__error_set(err, NYMBL_NO_MEMORY, NULL);
    file->tempfile.fd = file->partial.fd = -1;
    file->target.dir_fd = file->target.base_fd = -1;
    file->mode = mode != 0 ? mode : 0600;
    file->overwrite = overwrite;
    kind = dir_fd < 0
               ? nymbl__target_resolve(&file->target, path, overwrite, &reason)
               : nymbl__target_resolve_at(&file->target, dir_fd, path,
                                          overwrite, &reason);
    if (kind == NYMBL_OK)
        nymbl__tempfile_sweep_once(file->target.dir_fd);
    if (kind == NYMBL_OK && resource != NULL) {
        kind = nymbl__partial_open(&file->partial, file->target.dir_fd,
                                   file->target.name, resource);
        file->uses_partial = kind == NYMBL_OK;
        file->fd = file->partial.fd;
        file->length = file->partial.offset;
    }
    if (kind >= 0 && !file->uses_partial) {
        kind =
            nymbl__tempfile_open(&file->tempfile, file->target.dir_fd, &reason);
        file->fd = file->tempfile.fd;
    }
    if (kind < 0) {
        nymbl__atomic_file_discard(file);
        return nymbl__error_set(err, kind, reason);
    }
    *out = file;
    return NYMBL_OK;
}

nymbl_kind nymbl__atomic_file_open(nymbl__atomic_file **out, const char *path,
                                   unsigned mode, bool overwrite,
                                   const char *resource, nymbl_error *err)
{
    return file_open(out, -1, path, mode, overwrite, resource, err);
}

nymbl_kind nymbl__atomic_file_open_at(nymbl__atomic_file **out, int dir_fd,
                                      const char *name, unsigned mode,
                                      bool overwrite, const char *resource,
                                      nymbl_error *err)
{
    return file_open(out, dir_fd, name, mode, overwrite, resource, err);
}

int64_t nymbl__atomic_file_offset(const nymbl__atomic_file *file)
{
    return file->partial.offset;
}

const char *nymbl__atomic_file_validator(const nymbl__atomic_file *file)
{
    return file->partial.validator;
}

void nymbl__atomic_file_step_back(nymbl__atomic_file *file)
{
    nymbl__partial_step_back(&file->partial);
    file->length = file->partial.offset;
}

size_t nymbl__atomic_file_peek(const nymbl__atomic_file *file, void *buf,
                               size_t cap)
{
    ssize_t got = pread(file->fd, buf, cap, 0);

    return got > 0 ? (size_t)got : 0;
}

nymbl_kind nymbl__atomic_file_read(const nymbl__atomic_file *file, int64_t at,
                                   void *buf, size_t size, size_t *got,
                                   const char **reason)
{
    ssize_t count;

    do
        count = pread(file->fd, buf, size, (off_t)at);
    while (count < 0 && errno == EINTR);
    if (count > 0) {
        *got = (size_t)count;
        return NYMBL_OK;
    }
    *got = 0;
    /* another program has made the file shorter */
    *reason =
        count == 0 ? nymbl__reason_changed : nymbl_reason_from_errno(errno);
    return NYMBL_IO;
}

nymbl_kind nymbl__atomic_file_restart(nymbl__atomic_file *file,
                                      const char *validator,
                                      const char **reason)
{
    if (!file->uses_partial)
        return NYMBL_OK;
    file->length = 0;
    if (nymbl__partial_restart(&file->partial, validator)) {
        file->fd = file->partial.fd;
        return NYMBL_OK;
    }
    *reason = nymbl_reason_from_errno(errno);
    return NYMBL_IO;
}

nymbl_kind nymbl__atomic_file_write(nymbl__atomic_file *file, const void *data,
                                    size_t size, const char **reason)
{
    const char *at = data;

    while (size > 0) {
        ssize_t wrote = write(file->fd, at, size);

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
        file->length += wrote;
    }
    return NYMBL_OK;
}

/* Whether the file has exactly the bytes that were written. Another part of the
 * program may have written to its descriptor. */
static bool has_length(const nymbl__atomic_file *file, int64_t length)
{
    struct stat status;

    return fstat(file->fd, &status) == 0 && status.st_size == length;
}

/* Keep the partial file if it can be resumed, else remove the file. Release the
 * struct. */
static void file_keep_or_discard(nymbl__atomic_file *file, bool complete)
{
    int64_t length = file->length;

    /* The byte that nymbl__atomic_file_step_back() requested again may not have
     * arrived, but the file still has it. */
    if (length < file->partial.intact_size)
        length = file->partial.intact_size;
    if (file->uses_partial && length > 0 && has_length(file, length) &&
        nymbl__partial_keep(&file->partial, length, complete))
        file_free(file);
    else
        nymbl__atomic_file_discard(file);
}

static int rename_into_place(nymbl__atomic_file *file)
{
    int dir_fd = file->target.dir_fd;
    const char *name = file->target.name;

    if (file->uses_partial)
        return nymbl__partial_publish(&file->partial, name, file->overwrite);
    return nymbl__tempfile_publish(&file->tempfile, dir_fd, name,
                                   file->overwrite);
}

nymbl_kind nymbl__atomic_file_commit(nymbl__atomic_file *file,
                                     const char **reason)
{
    nymbl_kind kind = NYMBL_OK;
    bool failed = nymbl__fs_set_mode(file->fd, file->mode) < 0 ||
                  nymbl__fs_flush(file->fd) < 0;

    if (failed) {
        kind = NYMBL_IO;
        *reason = nymbl_reason_from_errno(errno);
    } else if (!has_length(file, file->length)) {
        kind = NYMBL_IO;
        *reason = nymbl__reason_changed;
    } else if (!nymbl__target_is_unmoved(&file->target, reason)) {
        kind = NYMBL_IO;
    } else if (rename_into_place(file) < 0) {
        *reason = nymbl_reason_from_errno(errno);
        file_keep_or_discard(file, true);
        return NYMBL_IO;
    }
    if (kind < 0) {
        nymbl__atomic_file_discard(file);
        return kind;
    }
    /* Flush the new name too. The file is complete even if this fails, so the
     * result is ignored. */
    nymbl__fs_flush_dir(file->target.dir_fd);
    /* A partial file of an earlier download to this path is obsolete. */
    if (!file->uses_partial)
        nymbl__partial_remove_unused(file->target.dir_fd, file->target.name);
    file_free(file);
    return NYMBL_OK;
}

void nymbl__atomic_file_keep_partial(nymbl__atomic_file *file)
{
    if (file != NULL)
        file_keep_or_discard(file, false);
}

void nymbl__atomic_file_discard(nymbl__atomic_file *file)
{
    if (file == NULL)
        return;
    nymbl__tempfile_discard(&file->tempfile, file->target.dir_fd);
    if (file->uses_partial)
        nymbl__partial_remove(&file->partial);
    file_free(file);
}
