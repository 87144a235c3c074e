/* SPDX-License-Identifier: MIT */
/* A small file that processes share: locked, and complete or empty.
 *
 * The file is overwritten, not replaced. Only nymbl_store_break_lock() replaces
 * it, so that late writes by the former lock holder go to an unlinked file. A
 * header of fixed size contains the length and the SHA-256 of the content. If
 * they do not match, because the file is no store or was not written
 * completely, the content is empty; bytes after the stated length are ignored.
 */
#include "nymbl.h"

#include "base/buffer.h"
#include "base/error.h"
#include "base/fnv1a.h"
#include "base/object_count.h"
#include "base/secret.h"
#include "base/sha256.h"
#include "base/text.h"
#include "file/atomic_file.h"
#include "file/file_id.h"
#include "file/fs.h"
#include "file/private_file.h"

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

#define HEADER_SIZE 88 /* "nymbl store 1 ", hash, " ", length, "\n" */
#define LENGTH_OFFSET (HEADER_SIZE - 9) /* 8 hexadecimal digits */
#define FILE_MAX (HEADER_SIZE + (size_t)NYMBL_STORE_MAX)

struct nymbl_store {
    int fd;
    char *path;
    nymbl__file_id id; /* of the file */
    nymbl__buffer content;
};

/* A number that changes when the file is replaced, locked or written. */
static uint64_t fingerprint_of(const struct stat *status)
{
    const uint64_t fields[] = {
        (uint64_t)status->st_dev, (uint64_t)status->st_ino,
        (uint64_t)status->st_mtim.tv_sec, (uint64_t)status->st_mtim.tv_nsec};

    return nymbl__fnv1a(NYMBL__FNV1A_INIT, fields, sizeof(fields));
}

/* Read the whole file, up to the buffer's limit. */
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
            *reason = nymbl_reason_from_errno(errno);
            kind = NYMBL_IO;
        }
    }
    nymbl__secret_wipe(block, sizeof(block));
    return kind;
}

/* Format the header for a content. */
static void header_format(char header[HEADER_SIZE + 1], const char *data,
                          size_t size)
{
    nymbl__sha256 hash;
    char text[65];

    nymbl__sha256_init(&hash);
    nymbl__sha256_add(&hash, data, size);
    nymbl__sha256_text(&hash, text);
    snprintf(header, HEADER_SIZE + 1, "nymbl store 1 %s %08" PRIx32 "\n", text,
             (uint32_t)size);
}

/* Extract the content from the bytes of the file. It remains empty if they do
 * not match the header. */
static nymbl_kind content_extract(nymbl__buffer *content,
                                  const nymbl__buffer *bytes)
{
    char header[HEADER_SIZE + 1];
    const char *data;
    size_t size;

    if (bytes->size < HEADER_SIZE || bytes->data[HEADER_SIZE - 1] != '\n')
        return NYMBL_OK;
    data = bytes->data + HEADER_SIZE;
    size = strtoul(bytes->data + LENGTH_OFFSET, NULL, 16);
    if (size > bytes->size - HEADER_SIZE)
        return NYMBL_OK;
    header_format(header, data, size);
    if (memcmp(header, bytes->data, HEADER_SIZE) != 0)
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
        kind = content_extract(&store->content, &bytes);
    nymbl__buffer_free(&bytes);
    return kind == NYMBL_TOO_LARGE ? NYMBL_OK : kind;
}

/* Lock the open file. Its modification time is set to now, so that waiting
 * processes can see how long it has been locked. */
static nymbl_kind file_lock(nymbl_store *store, const struct stat *status,
                            const char **reason)
{
    if (flock(store->fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK)
            return NYMBL_AGAIN;
        *reason = nymbl_reason_from_errno(errno);
        return NYMBL_IO;
    }
    if (!nymbl__fs_has_name(store->fd, AT_FDCWD, store->path))
        return NYMBL_AGAIN;
    if (((status->st_mode & 07777) == 0600 || fchmod(store->fd, 0600) == 0) &&
        futimens(store->fd, NULL) == 0)
        return NYMBL_OK;
    *reason = nymbl_reason_from_errno(errno);
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
        return nymbl__error_set(err, NYMBL_NO_MEMORY, NULL);
    nymbl__object_count_add(1);
    nymbl__buffer_init(&store->content, NYMBL_STORE_MAX);
    store->fd = -1;
    kind = nymbl__text_copy(&store->path, path);
    if (kind == NYMBL_OK) {
        store->fd = nymbl__private_file_open_path(path, O_RDWR | O_CREAT,
                                                  &status, &reason);
        kind = store->fd < 0 ? NYMBL_IO : file_lock(store, &status, &reason);
    }
    if (kind == NYMBL_AGAIN && holder != NULL) {
        holder->fingerprint = fingerprint_of(&status);
        holder->since = (double)status.st_mtim.tv_sec;
    }
    if (kind == NYMBL_OK) {
        store->id = (nymbl__file_id){status.st_dev, status.st_ino};
        kind = content_read(store, &reason);
    }
    if (kind != NYMBL_OK) {
        nymbl_store_close(store);
        return kind < 0 ? nymbl__error_set(err, kind, reason) : kind;
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

    /* detect a full disk before the old content is overwritten */
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
    if (code == 0) {
        /* the content is written, whatever remains behind it */
        (void)!ftruncate(fd, (off_t)bytes->size);
        return NYMBL_OK;
    }
    *reason = nymbl_reason_from_errno(code);
    return NYMBL_IO;
}

/* Whether the file was replaced or removed, so that the content is lost. If
 * that cannot be found out, it was not: a caller that repeated its change would
 * make it twice. */
static bool is_replaced(const nymbl_store *store)
{
    struct stat named;

    if (fstatat(AT_FDCWD, store->path, &named, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT || errno == ENOTDIR;
    return named.st_dev != store->id.device || named.st_ino != store->id.inode;
}

nymbl_kind nymbl_store_write(nymbl_store *store, const void *data, size_t size,
                             nymbl_error *err)
{
    const char *reason = NULL;
    char header[HEADER_SIZE + 1];
    nymbl__buffer bytes;
    nymbl_kind kind = NYMBL_TOO_LARGE;

    nymbl__buffer_init(&bytes, FILE_MAX);
    if (size <= NYMBL_STORE_MAX) {
        header_format(header, data, size);
        kind = nymbl__buffer_append(&bytes, header, HEADER_SIZE);
    }
    if (kind == NYMBL_OK)
        kind = nymbl__buffer_append(&bytes, data, size);
    if (kind == NYMBL_OK)
        kind = file_write(store->fd, &bytes, &reason);
    nymbl__buffer_free(&bytes);
    if (kind < 0)
        return nymbl__error_set(err, kind, reason);
    return is_replaced(store) ? NYMBL_AGAIN : NYMBL_OK;
}

void nymbl_store_close(nymbl_store *store)
{
    if (store == NULL)
        return;
    if (store->fd >= 0)
        close(store->fd); /* this also unlocks the file */
    nymbl__buffer_free(&store->content);
    free(store->path);
    free(store);
    nymbl__object_count_add(-1);
}

/* Whether another process has locked the file; if not, fd has locked it now. */
static bool is_locked_by_other(int fd)
{
    return flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

nymbl_kind nymbl_store_break_lock(const char *path, uint64_t fingerprint,
                                  nymbl_error *err)
{
    const char *reason = NULL;
    struct stat status;
    nymbl__buffer bytes;
    nymbl__atomic_file *file = NULL;
    nymbl_kind kind;
    int fd = nymbl__private_file_open_path(path, O_RDWR, &status, &reason);

    if (fd < 0)
        return nymbl__error_set(err, NYMBL_IO, reason);
    nymbl__buffer_init(&bytes, FILE_MAX);
    kind = file_read(fd, &bytes, &reason);
    if (kind == NYMBL_TOO_LARGE) { /* no store: replace it by an empty file */
        nymbl__buffer_free(&bytes);
        kind = NYMBL_OK;
    }
    if (kind == NYMBL_OK) {
        nymbl_error opened = {0};

        kind = nymbl__atomic_file_open(&file, path, 0600, true, NULL, &opened);
        reason = opened.reason;
    }
    if (kind == NYMBL_OK)
        kind = nymbl__atomic_file_write(file, bytes.data, bytes.size, &reason);
    /* If the lock holder has continued meanwhile, its writes must not be lost.
     */
    if (kind == NYMBL_OK && fstat(fd, &status) == 0 &&
        fingerprint_of(&status) == fingerprint && is_locked_by_other(fd) &&
        nymbl__fs_has_name(fd, AT_FDCWD, path)) {
        kind = nymbl__atomic_file_commit(file, &reason);
        file = NULL;
    }
    nymbl__atomic_file_discard(file);
    nymbl__buffer_free(&bytes);
    close(fd);
    return kind < 0 ? nymbl__error_set(err, kind, reason) : NYMBL_OK;
}
