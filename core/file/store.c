/* SPDX-License-Identifier: MIT */
/* A small file that processes share: locked, and whole or empty.
 *
 * It is written in place, so that what a process that was stopped in its turn
 * still writes after somebody took the file's place goes to a file without a
 * name. A head of fixed size holds length and SHA-256 of what follows: a write
 * that was cut short anywhere, and anything else that is no store, reads as
 * empty; and bytes behind the length, left by a longer content, count as none.
 */
#include "nymbl.h"

#include "base/buffer.h"
#include "base/descriptor.h"
#include "base/error.h"
#include "base/sha256.h"
#include "file/save.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define HEAD_SIZE 88 /* "nymbl store 1 ", hash, " ", length, "\n" */
#define FILE_MAX (HEAD_SIZE + (size_t)NYMBL_STORE_MAX)

struct nymbl_store {
    int fd;
    char *path;
    nymbl__buffer content;
};

/* Why a file must not be used, or NULL: it decides how much is sent, and may
 * hold a token, so nobody else may have a hand in it. */
static const char *stat_problem(const struct stat *status)
{
    if (S_ISDIR(status->st_mode))
        return "directory";
    if (!S_ISREG(status->st_mode))
        return "not_a_file";
    if (status->st_uid != geteuid())
        return "wrong_owner";
    if ((status->st_mode & 022) != 0)
        return "insecure_permissions";
    /* a second name may be that of a file which is none of a store's */
    return status->st_nlink > 1 ? "hard_link" : NULL;
}

/* Open what is ours. Gives -1 and why not. */
static int file_open(const char *path, int flags, struct stat *status,
                     const char **reason)
{
    int fd = nymbl__fd_high(open(
        path, flags | O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
        0600));

    if (fd < 0) {
        *reason = errno == ELOOP ? "symbolic_link" : nymbl__errno_reason(errno);
        return -1;
    }
    *reason = fstat(fd, status) < 0 ? nymbl__errno_reason(errno)
                                    : stat_problem(status);
    if (*reason == NULL)
        return fd;
    close(fd);
    return -1;
}

static bool is_named(const struct stat *status, const char *path)
{
    struct stat named;

    return lstat(path, &named) == 0 && named.st_dev == status->st_dev &&
           named.st_ino == status->st_ino;
}

/* Another number whenever the file is another one, or was locked or written.
 * FNV-1a, as good as any. */
static uint64_t mark_of(const struct stat *status)
{
    const uint64_t parts[] = {
        (uint64_t)status->st_dev, (uint64_t)status->st_ino,
        (uint64_t)status->st_mtim.tv_sec, (uint64_t)status->st_mtim.tv_nsec};
    uint64_t mark = 14695981039346656037u;

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        mark = (mark ^ parts[i]) * 1099511628211u;
    return mark;
}

/* All bytes of a file, which has no more than may be. */
static nymbl_kind file_read(int fd, nymbl__buffer *bytes, const char **reason)
{
    char block[4096];
    nymbl_kind kind = NYMBL_OK;

    while (kind == NYMBL_OK) {
        ssize_t got = pread(fd, block, sizeof(block), (off_t)bytes->size);

        if (got == 0)
            break;
        if (got > 0) {
            kind = nymbl__buffer_append(bytes, block, (size_t)got);
        } else if (errno != EINTR) {
            *reason = nymbl__errno_reason(errno);
            kind = NYMBL_IO;
        }
    }
    nymbl__wipe(block, sizeof(block));
    return kind;
}

/* The head that belongs to a content. */
static void head_make(char head[HEAD_SIZE + 1], const char *data, size_t size)
{
    nymbl__sha256 hash;
    char text[65];

    nymbl__sha256_init(&hash);
    nymbl__sha256_add(&hash, data, size);
    nymbl__sha256_text(&hash, text);
    snprintf(head, HEAD_SIZE + 1, "nymbl store 1 %s %08" PRIx32 "\n", text,
             (uint32_t)size);
}

/* The content in the bytes of a file; empty where it is no whole one. */
static nymbl_kind content_find(nymbl__buffer *content,
                               const nymbl__buffer *bytes)
{
    char head[HEAD_SIZE + 1];
    const char *data;
    size_t size;

    if (bytes->size < HEAD_SIZE || bytes->data[HEAD_SIZE - 1] != '\n')
        return NYMBL_OK;
    data = bytes->data + HEAD_SIZE;
    size = strtoul(bytes->data + HEAD_SIZE - 9, NULL, 16);
    if (size > bytes->size - HEAD_SIZE)
        return NYMBL_OK;
    head_make(head, data, size);
    if (memcmp(head, bytes->data, HEAD_SIZE) != 0)
        return NYMBL_OK;
    return nymbl__buffer_append(content, data, size);
}

static nymbl_kind content_read(nymbl_store *store, const char **reason)
{
    nymbl__buffer bytes;
    nymbl_kind kind;

    nymbl__buffer_init(&bytes, FILE_MAX);
    kind = file_read(store->fd, &bytes, reason);
    if (kind == NYMBL_OK)
        kind = content_find(&store->content, &bytes);
    nymbl__buffer_free(&bytes);
    return kind == NYMBL_TOO_LARGE ? NYMBL_OK : kind;
}

/* Lock what is open. The time of the last change says to those who wait since
 * when the lock is held. */
static nymbl_kind file_lock(nymbl_store *store, const struct stat *status,
                            const char **reason)
{
    if (flock(store->fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK)
            return NYMBL_AGAIN;
        *reason = nymbl__errno_reason(errno);
        return NYMBL_IO;
    }
    if (!is_named(status, store->path))
        return NYMBL_AGAIN;
    if (((status->st_mode & 07777) == 0600 || fchmod(store->fd, 0600) == 0) &&
        futimens(store->fd, NULL) == 0)
        return NYMBL_OK;
    *reason = nymbl__errno_reason(errno);
    return NYMBL_IO;
}

nymbl_kind nymbl_store_open(nymbl_store **out, const char *path,
                            nymbl_store_holder *holder, nymbl_error *err)
{
    const char *reason = NULL;
    struct stat status;
    nymbl_store *store = calloc(1, sizeof(*store));
    nymbl_kind kind;

    *out = NULL;
    if (store == NULL)
        return nymbl__fail(err, NYMBL_NO_MEMORY, NULL);
    nymbl__object_count_add(1);
    nymbl__buffer_init(&store->content, NYMBL_STORE_MAX);
    store->fd = -1;
    kind = nymbl__text_copy(&store->path, path);
    if (kind == NYMBL_OK) {
        store->fd = file_open(path, O_CREAT, &status, &reason);
        kind = store->fd < 0 ? NYMBL_IO : file_lock(store, &status, &reason);
    }
    if (kind == NYMBL_AGAIN && holder != NULL) {
        holder->fingerprint = mark_of(&status);
        holder->since = (double)status.st_mtim.tv_sec;
    }
    if (kind == NYMBL_OK)
        kind = content_read(store, &reason);
    if (kind != NYMBL_OK) {
        nymbl_store_close(store);
        return kind < 0 ? nymbl__fail(err, kind, reason) : kind;
    }
    *out = store;
    return NYMBL_OK;
}

const char *nymbl_store_content(const nymbl_store *store, size_t *size)
{
    *size = store->content.size;
    return store->content.data;
}

static nymbl_kind file_write(int fd, const nymbl__buffer *bytes,
                             const char **reason)
{
    size_t done = 0;
    int code = 0;

    /* a full disk is to be told before a byte of the old content is gone */
    code = posix_fallocate(fd, 0, (off_t)bytes->size);
    if (code == EOPNOTSUPP || code == EINVAL || code == EINTR)
        code = 0;
    while (code == 0 && done < bytes->size) {
        ssize_t wrote =
            pwrite(fd, bytes->data + done, bytes->size - done, (off_t)done);

        if (wrote >= 0)
            done += (size_t)wrote;
        else if (errno != EINTR)
            code = errno;
    }
    if (code == 0 && ftruncate(fd, (off_t)bytes->size) < 0)
        code = errno;
    if (code == 0)
        return NYMBL_OK;
    *reason = nymbl__errno_reason(code);
    return NYMBL_IO;
}

nymbl_kind nymbl_store_write(nymbl_store *store, const void *data, size_t size,
                             nymbl_error *err)
{
    const char *reason = NULL;
    char head[HEAD_SIZE + 1];
    struct stat status;
    nymbl__buffer bytes;
    nymbl_kind kind = NYMBL_TOO_LARGE;

    nymbl__buffer_init(&bytes, FILE_MAX);
    if (size <= NYMBL_STORE_MAX) {
        head_make(head, data, size);
        kind = nymbl__buffer_append(&bytes, head, HEAD_SIZE);
    }
    if (kind == NYMBL_OK)
        kind = nymbl__buffer_append(&bytes, data, size);
    if (kind == NYMBL_OK)
        kind = file_write(store->fd, &bytes, &reason);
    nymbl__buffer_free(&bytes);
    if (kind < 0)
        return nymbl__fail(err, kind, reason);
    if (fstat(store->fd, &status) < 0 || !is_named(&status, store->path))
        return NYMBL_AGAIN;
    return NYMBL_OK;
}

void nymbl_store_close(nymbl_store *store)
{
    if (store == NULL)
        return;
    if (store->fd >= 0)
        close(store->fd); /* and with it the lock */
    nymbl__buffer_free(&store->content);
    free(store->path);
    free(store);
    nymbl__object_count_add(-1);
}

/* Whether somebody still holds the lock of a file that is open. */
static bool is_held(int fd)
{
    return flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

nymbl_kind nymbl_store_break_lock(const char *path, uint64_t mark,
                                  nymbl_error *err)
{
    const char *reason = NULL;
    struct stat status;
    nymbl__buffer bytes;
    nymbl__save *save = NULL;
    nymbl_kind kind;
    int fd = file_open(path, 0, &status, &reason);

    if (fd < 0)
        return nymbl__fail(err, NYMBL_IO, reason);
    nymbl__buffer_init(&bytes, FILE_MAX);
    kind = file_read(fd, &bytes, &reason);
    if (kind == NYMBL_TOO_LARGE) { /* no store's: the new file is empty */
        nymbl__buffer_free(&bytes);
        kind = NYMBL_OK;
    }
    if (kind == NYMBL_OK) {
        nymbl_error opened = {0};

        kind = nymbl__save_open(&save, path, 0600, true, NULL, &opened);
        reason = opened.reason;
    }
    if (kind == NYMBL_OK)
        kind = nymbl__save_write(save, bytes.data, bytes.size, &reason);
    /* a last look: it may have gone on, and what it wrote must stay */
    if (kind == NYMBL_OK && fstat(fd, &status) == 0 &&
        mark_of(&status) == mark && is_held(fd) && is_named(&status, path)) {
        kind = nymbl__save_commit(save, &reason);
        save = NULL;
    }
    nymbl__save_discard(save);
    nymbl__buffer_free(&bytes);
    close(fd);
    return kind < 0 ? nymbl__fail(err, kind, reason) : NYMBL_OK;
}
