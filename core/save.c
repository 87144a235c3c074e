/* SPDX-License-Identifier: MIT */
/* A file that appears under its name as a whole, flushed, or not at all. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINKS_MAX 40

struct nymbl__save {
    char *target;    /* where links lead */
    char *temporary; /* beside it */
    int fd;
    unsigned mode;
    bool overwrite;
    bool resumes; /* `part` is used in place of a temporary file */
    nymbl__part part;
};

/* Length of the part of a path before its last name, slash included. */
static size_t folder_length(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? 0 : (size_t)(slash - path) + 1;
}

/* Where a symbolic link leads, seen from its own folder. */
static nymbl_kind link_follow(char **path, const char **reason)
{
    char to[PATH_MAX];
    ssize_t length = readlink(*path, to, sizeof(to) - 1);
    size_t folder;
    char *next;

    if (length < 0) {
        *reason = nymbl__errno_reason(errno);
        return NYMBL_IO;
    }
    to[length] = '\0';
    folder = *to == '/' ? 0 : folder_length(*path);
    next = malloc(folder + (size_t)length + 1);
    if (next == NULL)
        return NYMBL_NO_MEMORY;
    memcpy(next, *path, folder);
    memcpy(next + folder, to, (size_t)length + 1);
    free(*path);
    *path = next;
    return NYMBL_OK;
}

/* Follow links to the file that would be written, and see that it may be. */
static nymbl_kind target_resolve(char **path, bool overwrite,
                                 const char **reason)
{
    struct stat status;

    for (int links = 0; lstat(*path, &status) == 0; links++) {
        nymbl_kind kind;

        if (!S_ISLNK(status.st_mode)) {
            if (!S_ISREG(status.st_mode))
                *reason = S_ISDIR(status.st_mode) ? "directory" : "not_a_file";
            else if (!overwrite)
                *reason = "exists";
            return *reason == NULL ? NYMBL_OK : NYMBL_IO;
        }
        if (links == LINKS_MAX) {
            *reason = nymbl__errno_reason(ELOOP);
            return NYMBL_IO;
        }
        kind = link_follow(path, reason);
        if (kind < 0)
            return kind;
    }
    if (errno == ENOENT)
        return NYMBL_OK;
    *reason = nymbl__errno_reason(errno);
    return NYMBL_IO;
}

static nymbl_kind temporary_open(nymbl__save *save, const char **reason)
{
    static const char name[] = ".nymbl-XXXXXX";
    size_t folder = folder_length(save->target);

    save->temporary = malloc(folder + sizeof(name));
    if (save->temporary == NULL)
        return NYMBL_NO_MEMORY;
    memcpy(save->temporary, save->target, folder);
    memcpy(save->temporary + folder, name, sizeof(name));
    save->fd = nymbl__fd_high(mkostemp(save->temporary, O_CLOEXEC));
    if (save->fd < 0) {
        *reason = nymbl__errno_reason(errno);
        free(save->temporary);
        save->temporary = NULL;
        return NYMBL_IO;
    }
    return NYMBL_OK;
}

/* The target behind links, which must be one that can be a file. */
static nymbl_kind target_find(char **target, const char *path, bool overwrite,
                              const char **reason)
{
    nymbl_kind kind = nymbl__text_copy(target, path);

    if (kind == NYMBL_OK)
        kind = target_resolve(target, overwrite, reason);
    if (kind == NYMBL_OK && (*target)[folder_length(*target)] == '\0') {
        kind = NYMBL_IO;
        *reason = *path == '\0' ? "not_found" : "directory";
    }
    return kind;
}

nymbl_kind nymbl_path_check(const char *path, bool no_overwrite,
                            nymbl_error *err)
{
    const char *reason = NULL;
    char *target = NULL;
    nymbl_kind kind = target_find(&target, path, !no_overwrite, &reason);

    if (kind == NYMBL_OK) {
        size_t length = folder_length(target);

        target[length] = '\0';
        if (access(length > 0 ? target : ".", W_OK | X_OK) < 0) {
            kind = NYMBL_IO;
            reason = nymbl__errno_reason(errno);
        }
    }
    free(target);
    return kind < 0 ? nymbl__fail(err, kind, reason) : NYMBL_OK;
}

/* The struct and what it holds, no file. */
static void save_free(nymbl__save *save)
{
    if (save->fd >= 0 && !save->resumes)
        close(save->fd);
    nymbl__part_free(&save->part);
    free(save->temporary);
    free(save->target);
    free(save);
}

nymbl_kind nymbl__save_open(nymbl__save **out, const char *path, unsigned mode,
                            bool overwrite, const char *resume_url,
                            nymbl_error *err)
{
    const char *reason = NULL;
    nymbl__save *save = calloc(1, sizeof(*save));
    nymbl_kind kind;

    *out = NULL;
    if (save == NULL)
        return nymbl__fail(err, NYMBL_NO_MEMORY, NULL);
    save->fd = save->part.fd = -1;
    save->mode = mode != 0 ? mode : 0600;
    save->overwrite = overwrite;
    kind = target_find(&save->target, path, overwrite, &reason);
    if (kind == NYMBL_OK && resume_url != NULL) {
        kind = nymbl__part_open(&save->part, save->target, resume_url);
        save->resumes = kind == NYMBL_OK;
        save->fd = save->part.fd;
    }
    if (kind >= 0 && !save->resumes)
        kind = temporary_open(save, &reason);
    if (kind < 0) {
        nymbl__save_abandon(save);
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

nymbl_kind nymbl__save_restart(nymbl__save *save, const char *validator,
                               const char **reason)
{
    if (!save->resumes || nymbl__part_restart(&save->part, validator))
        return NYMBL_OK;
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
        if (wrote < 0) {
            *reason = nymbl__errno_reason(errno);
            return NYMBL_IO;
        }
        at += wrote;
        size -= (size_t)wrote;
    }
    return NYMBL_OK;
}

/* The name itself must reach the disk too. A folder that cannot be opened or
 * flushed (some network file systems) is no reason to fail: the file stands. */
static void folder_flush(const char *path)
{
    size_t length = folder_length(path);
    char *folder = malloc(length + 2);
    int fd;

    if (folder == NULL)
        return;
    memcpy(folder, path, length);
    memcpy(folder + length, ".", 2);
    fd = nymbl__fd_high(open(folder, O_RDONLY | O_CLOEXEC | O_DIRECTORY));
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(folder);
}

/* link() fails where the name is taken, rename() does not. File systems
 * without links get the weaker test. */
static int name_give(const nymbl__save *save)
{
    const char *from = save->resumes ? save->part.path : save->temporary;
    struct stat status;

    if (save->overwrite)
        return rename(from, save->target);
    if (link(from, save->target) == 0) {
        unlink(from);
        return 0;
    }
    if (errno != EPERM && errno != ENOTSUP && errno != ENOSYS &&
        errno != EMLINK)
        return -1;
    if (lstat(save->target, &status) == 0) {
        errno = EEXIST;
        return -1;
    }
    return rename(from, save->target);
}

nymbl_kind nymbl__save_commit(nymbl__save *save, const char **reason)
{
    int failed = fchmod(save->fd, (mode_t)save->mode);

    if (failed == 0)
        failed = fsync(save->fd);
    if (failed == 0 && !save->resumes) { /* a part stays locked till the end */
        failed = close(save->fd);
        save->fd = -1;
    }
    if (failed == 0)
        failed = name_give(save);
    if (failed != 0) {
        *reason = nymbl__errno_reason(errno);
        nymbl__save_abandon(save);
        return NYMBL_IO;
    }
    folder_flush(save->target);
    if (save->resumes)
        unlink(save->part.note);
    free(save->temporary);
    save->temporary = NULL;
    save_free(save);
    return NYMBL_OK;
}

void nymbl__save_suspend(nymbl__save *save)
{
    struct stat status;

    if (save == NULL)
        return;
    if (save->resumes && (save->part.noted || save->part.size > 0) &&
        fstat(save->fd, &status) == 0 && status.st_size > 0)
        save_free(save);
    else
        nymbl__save_abandon(save);
}

void nymbl__save_abandon(nymbl__save *save)
{
    if (save == NULL)
        return;
    if (save->temporary != NULL)
        unlink(save->temporary);
    if (save->resumes) {
        unlink(save->part.note);
        unlink(save->part.path);
    }
    save_free(save);
}
