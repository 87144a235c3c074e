/* SPDX-License-Identifier: MIT */
/* A file that appears under its name as a whole, flushed, or not at all. */
#include "file/save.h"

#include "base/descriptor.h"
#include "base/error.h"
#include "file/tempfile.h"
#include "file/partial.h"
#include "file/target.h"
#include "file/filesystem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct nymbl__save {
    nymbl__target place;
    nymbl__tempfile draft;
    nymbl__partial part;
    bool resumes;   /* `part` is used in place of `draft` */
    int fd;         /* of the one that is used */
    int64_t length; /* bytes that it must have */
    unsigned mode;
    bool overwrite;
};

/* The struct and what it holds. Files that have a name keep it. */
static void save_free(nymbl__save *save)
{
    if (save->draft.fd >= 0)
        close(save->draft.fd);
    nymbl__partial_free(&save->part);
    nymbl__target_free(&save->place);
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
        return nymbl__fail(err, NYMBL_NO_MEMORY, NULL);
    save->draft.fd = save->part.fd = -1;
    save->place.directory = save->place.from = -1;
    save->mode = mode != 0 ? mode : 0600;
    save->overwrite = overwrite;
    kind = nymbl__target_resolve(&save->place, path, overwrite, &reason);
    if (kind == NYMBL_OK)
        nymbl__tempfiles_sweep(save->place.directory);
    if (kind == NYMBL_OK && resource != NULL) {
        kind = nymbl__partial_open(&save->part, save->place.directory,
                                   save->place.name, resource);
        save->resumes = kind == NYMBL_OK;
        save->fd = save->part.fd;
        save->length = save->part.size;
    }
    if (kind >= 0 && !save->resumes) {
        kind =
            nymbl__tempfile_open(&save->draft, save->place.directory, &reason);
        save->fd = save->draft.fd;
    }
    if (kind < 0) {
        nymbl__save_discard(save);
        return nymbl__fail(err, kind, reason);
    }
    *out = save;
    return NYMBL_OK;
}

int64_t nymbl__save_offset(const nymbl__save *save)
{
    return save->part.size;
}

const char *nymbl__save_validator(const nymbl__save *save)
{
    return save->part.validator;
}

void nymbl__save_step_back(nymbl__save *save)
{
    nymbl__partial_step_back(&save->part);
    save->length = save->part.size;
}

size_t nymbl__save_peek(const nymbl__save *save, void *buf, size_t cap)
{
    ssize_t got = pread(save->fd, buf, cap, 0);

    return got > 0 ? (size_t)got : 0;
}

nymbl_kind nymbl__save_restart(nymbl__save *save, const char *validator,
                               const char **reason)
{
    if (!save->resumes)
        return NYMBL_OK;
    save->length = 0;
    if (nymbl__partial_restart(&save->part, validator)) {
        save->fd = save->part.fd;
        return NYMBL_OK;
    }
    *reason = nymbl__errno_reason(errno);
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
        if (wrote == 0) /* no file does that, and it would be for ever */
            errno = ENOSPC;
        if (wrote <= 0) {
            *reason = nymbl__errno_reason(errno);
            return NYMBL_IO;
        }
        at += wrote;
        size -= (size_t)wrote;
        save->length += wrote;
    }
    return NYMBL_OK;
}

/* Whether the file has the bytes that were written, and no others: somebody may
 * have found another way to it, such as a descriptor's number. */
static bool length_is(const nymbl__save *save, int64_t length)
{
    struct stat status;

    return fstat(save->fd, &status) == 0 && status.st_size == length;
}

/* Release; what can be gone on from stays. */
static void save_keep(nymbl__save *save, bool whole)
{
    int64_t length = save->length;

    /* not even the byte may have come that was asked for again */
    if (length < save->part.there)
        length = save->part.there;
    if (save->resumes && length > 0 && length_is(save, length) &&
        nymbl__partial_keep(&save->part, length, whole))
        save_free(save);
    else
        nymbl__save_discard(save);
}

/* ---- steps of a commit: 0, or -1 with errno ---- */

static int rename_into_place(nymbl__save *save)
{
    int directory = save->place.directory;
    const char *name = save->place.name;

    if (save->resumes)
        return nymbl__partial_publish(&save->part, name, save->overwrite);
    return nymbl__tempfile_publish(&save->draft, directory, name,
                                   save->overwrite);
}

nymbl_kind nymbl__save_commit(nymbl__save *save, const char **reason)
{
    nymbl_kind kind = NYMBL_OK;
    bool failed = nymbl__file_set_mode(save->fd, save->mode) < 0 ||
                  nymbl__file_flush(save->fd) < 0;

    if (failed) {
        kind = NYMBL_IO;
        *reason = nymbl__errno_reason(errno);
    } else if (!length_is(save, save->length)) {
        kind = NYMBL_IO;
        *reason = "changed";
    } else if (!nymbl__target_is_unmoved(&save->place, reason)) {
        kind = NYMBL_IO;
    } else if (rename_into_place(save) < 0) {
        *reason = nymbl__errno_reason(errno);
        save_keep(save, true);
        return NYMBL_IO;
    }
    if (kind < 0) {
        nymbl__save_discard(save);
        return kind;
    }
    /* The name must reach the disk too. A folder that cannot be flushed is no
     * reason to fail: the file stands. */
    nymbl__directory_flush(save->place.directory);
    /* what was kept of an earlier download to this name is of no use now */
    if (!save->resumes)
        nymbl__partial_discard(save->place.directory, save->place.name);
    save_free(save);
    return NYMBL_OK;
}

void nymbl__save_keep_partial(nymbl__save *save)
{
    if (save != NULL)
        save_keep(save, false);
}

void nymbl__save_discard(nymbl__save *save)
{
    if (save == NULL)
        return;
    nymbl__tempfile_discard(&save->draft, save->place.directory);
    if (save->resumes)
        nymbl__partial_remove(&save->part);
    save_free(save);
}
