/* SPDX-License-Identifier: MIT */
/* Path resolution: the path is followed once, component by component. The
 * result is a directory, which is kept open, and a file name in it. */
#include "file/target.h"

#include "base/ascii.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/secret.h"
#include "base/text.h"
#include "file/partial.h"
#include "file/tempfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/magic.h>
#include <sys/vfs.h>
#endif

#define LINKS_MAX 40 /* symbolic links that are followed, as by Linux */
#define DIR_PATH_MAX (1u << 20)

#ifdef O_PATH /* needs no read permission */
#define OPEN_DIR_FLAGS (O_PATH | O_DIRECTORY | O_CLOEXEC)
#else
#define OPEN_DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_CLOEXEC)
#endif

/* A path that is being resolved. */
typedef struct walk {
    int dir_fd;  /* the directory reached so far */
    int base_fd; /* the directory that `dir_path` is relative to, or -1 */
    nymbl__buffer dir_path; /* path of `dir_fd`, without symbolic links */
    char *rest;             /* the components that remain */
    int links;              /* symbolic links followed so far */
    const char *reason;
} walk;

static nymbl_kind walk_fail(walk *walk, const char *reason)
{
    walk->reason = reason;
    return NYMBL_IO;
}

/* Whether the entries of a directory represent descriptors or processes
 * (procfs, /dev/fd). Paths such as /dev/stdout and /proc/self/cwd lead through
 * such a directory. Its links cannot be resolved by name, and no file can be
 * created in it. */
static bool is_descriptor_dir(int dir_fd)
{
#ifdef __linux__
    struct statfs system;

    return fstatfs(dir_fd, &system) == 0 && system.f_type == PROC_SUPER_MAGIC;
#else
    static const char *const names[] = {"/dev/fd", "/dev"};
    struct stat status, named;

    for (int i = 0; i < 2; i++) {
        if (fstat(dir_fd, &status) == 0 && stat(names[i], &named) == 0 &&
            status.st_dev == named.st_dev && status.st_ino == named.st_ino)
            return true;
    }
    return false;
#endif
}

/* Continue in a directory. The walk becomes the owner of the descriptor; if
 * that is -1, it fails with the reason for errno. */
static nymbl_kind walk_open_dir(walk *walk, int dir_fd)
{
    if (dir_fd < 0)
        return walk_fail(walk, nymbl_reason_from_errno(errno));
    dir_fd = nymbl__fd_avoid_stdio(dir_fd);
    if (walk->dir_fd >= 0)
        close(walk->dir_fd);
    walk->dir_fd = dir_fd;
    if (dir_fd < 0)
        return walk_fail(walk, nymbl_reason_from_errno(errno));
    return is_descriptor_dir(dir_fd) ? walk_fail(walk, nymbl__reason_not_a_file)
                                     : NYMBL_OK;
}

/* Start at the root or at the current directory. */
static nymbl_kind walk_start(walk *walk, bool at_root)
{
    const char *start = at_root ? "/" : ".";
    nymbl_kind kind = walk_open_dir(walk, open(start, OPEN_DIR_FLAGS));

    nymbl__buffer_free(&walk->dir_path);
    if (walk->base_fd >= 0) /* a link has led from there to the root */
        close(walk->base_fd);
    walk->base_fd = -1;
    if (kind == NYMBL_OK && at_root)
        return nymbl__buffer_puts(&walk->dir_path, start);
    if (kind == NYMBL_OK) {
        walk->base_fd =
            nymbl__fd_avoid_stdio(openat(walk->dir_fd, ".", OPEN_DIR_FLAGS));
        if (walk->base_fd < 0)
            kind = walk_fail(walk, nymbl_reason_from_errno(errno));
    }
    return kind;
}

/* Whether a symbolic link may be followed, by the rule of Linux's
 * protected_symlinks (proc_sys_fs(5)), even if that is off: in a sticky,
 * world-writable directory such as /tmp, the owner of the link must be this
 * user or the directory's owner. */
static bool link_is_trusted(int dir_fd, const struct stat *link)
{
    struct stat status;

    if (link->st_uid == geteuid())
        return true;
    return fstat(dir_fd, &status) == 0 &&
           ((status.st_mode & (S_ISVTX | S_IWOTH)) != (S_ISVTX | S_IWOTH) ||
            status.st_uid == link->st_uid);
}

/* Replace a symbolic link's name by its content in the remaining path. `tail`:
 * the path after the name. */
static nymbl_kind walk_follow_link(walk *walk, const char *name,
                                   const char *tail, const struct stat *link)
{
    char to[PATH_MAX];
    struct stat after;
    size_t more = strlen(tail) + 1;
    ssize_t length;
    char *rest;

    if (walk->links++ == LINKS_MAX)
        return walk_fail(walk, nymbl_reason_from_errno(ELOOP));
    if (!link_is_trusted(walk->dir_fd, link))
        return walk_fail(walk, nymbl_reason_from_errno(EACCES));
    length = readlinkat(walk->dir_fd, name, to, sizeof(to));
    if (length < 0 ||
        fstatat(walk->dir_fd, name, &after, AT_SYMLINK_NOFOLLOW) < 0)
        return walk_fail(walk, nymbl_reason_from_errno(errno));
    /* the content must be from the link that was checked */
    if (length == 0 || length == (ssize_t)sizeof(to) ||
        after.st_ino != link->st_ino || after.st_dev != link->st_dev)
        return walk_fail(walk, nymbl_reason_from_errno(ENOENT));
    rest = malloc((size_t)length + more);
    if (rest == NULL)
        return NYMBL_NO_MEMORY;
    memcpy(rest, to, (size_t)length);
    memcpy(rest + length, tail, more);
    nymbl__secret_free(walk->rest);
    walk->rest = rest;
    return *rest == '/' ? walk_start(walk, true) : NYMBL_OK;
}

static bool name_has_suffix(const char *name, const char *suffix)
{
    size_t length = strlen(name), suffix_length = strlen(suffix);

    return length >= suffix_length &&
           nymbl__ascii_equal(name + length - suffix_length, suffix);
}

/* Whether a name is reserved for temporary, partial or metadata files: a later
 * download could remove a document with such a name. The comparison ignores
 * case, because some file systems do. */
static bool name_is_reserved(const char *name)
{
    static const char prefix[] = NYMBL__TEMPFILE_PREFIX;

    return nymbl__ascii_begins(name, prefix, sizeof(prefix) - 1) ||
           name_has_suffix(name, NYMBL__PARTIAL_SUFFIX) ||
           name_has_suffix(name, NYMBL__META_SUFFIX);
}

/* The reason why an existing file cannot be replaced, or NULL. */
static const char *file_problem(int dir_fd, const char *name,
                                const struct stat *status, bool overwrite)
{
    struct stat dir_status;

    if (S_ISDIR(status->st_mode))
        return nymbl__reason_directory;
    if (!S_ISREG(status->st_mode))
        return nymbl__reason_not_a_file;
    if (!overwrite) {
        nymbl__partial_unlink_duplicate(dir_fd, name);
        return nymbl__reason_exists;
    }
    /* In a sticky directory only the owner of the file or directory may replace
     * the file. rename() would report that too, but only after the download. */
    if (geteuid() != 0 && status->st_uid != geteuid() &&
        fstat(dir_fd, &dir_status) == 0 &&
        (dir_status.st_mode & S_ISVTX) != 0 && dir_status.st_uid != geteuid())
        return nymbl__reason_permission;
#ifdef STATX_ATTR_MOUNT_ROOT
    {
        struct statx more = {0};

        if (statx(dir_fd, name, AT_SYMLINK_NOFOLLOW, 0, &more) == 0) {
            if (more.stx_attributes & STATX_ATTR_MOUNT_ROOT)
                return nymbl__reason_mount_point;
            if (more.stx_attributes &
                (STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND))
                return nymbl__reason_permission;
        }
    }
#else
    (void)name;
#endif
    return NULL;
}

/* Resolve one component. Returns NYMBL_DONE if it is the last one; `name` is
 * then the file's name. */
static nymbl_kind walk_step(walk *walk, char name[NAME_MAX + 1], bool overwrite)
{
    const char *start = walk->rest + strspn(walk->rest, "/");
    size_t length = strcspn(start, "/");
    const char *tail = start + length;
    bool is_last = *tail == '\0';
    bool is_dots = (length == 1 || length == 2) && strspn(start, ".") >= length;
    struct stat status;
    nymbl_kind kind;

    if (length > NAME_MAX)
        return walk_fail(walk, nymbl_reason_from_errno(ENAMETOOLONG));
    if (length == 0 || (is_dots && is_last))
        return walk_fail(walk, nymbl__reason_directory);
    memcpy(name, start, length);
    name[length] = '\0';
    if (is_last && name_is_reserved(name))
        return walk_fail(walk, nymbl__reason_reserved_name);
    if (fstatat(walk->dir_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno == ENOENT && is_last)
            return NYMBL_DONE;
        if (errno == ENOENT && tail[strspn(tail, "/")] == '\0')
            return walk_fail(walk, nymbl__reason_directory);
        return walk_fail(walk, nymbl_reason_from_errno(errno));
    }
    if (S_ISLNK(status.st_mode))
        return walk_follow_link(walk, name, tail, &status);
    if (is_last) {
        walk->reason = file_problem(walk->dir_fd, name, &status, overwrite);
        return walk->reason == NULL ? NYMBL_DONE : NYMBL_IO;
    }
    kind = walk_open_dir(
        walk, openat(walk->dir_fd, name, OPEN_DIR_FLAGS | O_NOFOLLOW));
    if (kind == NYMBL_OK)
        kind = nymbl__buffer_puts(&walk->dir_path, name);
    if (kind == NYMBL_OK)
        kind = nymbl__buffer_puts(&walk->dir_path, "/");
    memmove(walk->rest, tail, strlen(tail) + 1);
    return kind;
}

nymbl_kind nymbl__target_resolve(nymbl__target *target, const char *path,
                                 bool overwrite, const char **reason)
{
    walk walk = {.dir_fd = -1, .base_fd = -1};
    char name[NAME_MAX + 1];
    nymbl_kind kind;

    *target = (nymbl__target){.dir_fd = -1, .base_fd = -1};
    nymbl__buffer_init(&walk.dir_path, DIR_PATH_MAX);
    if (*path == '\0' || strlen(path) >= PATH_MAX) {
        *reason =
            nymbl_reason_from_errno(*path == '\0' ? ENOENT : ENAMETOOLONG);
        return NYMBL_IO;
    }
    kind = nymbl__text_copy(&walk.rest, path);
    if (kind == NYMBL_OK)
        kind = walk_start(&walk, *path == '/');
    while (kind == NYMBL_OK)
        kind = walk_step(&walk, name, overwrite);
    if (kind == NYMBL_DONE)
        kind = nymbl__text_copy(&target->name, name);
    nymbl__secret_free(walk.rest);
    if (kind != NYMBL_OK) {
        if (walk.dir_fd >= 0)
            close(walk.dir_fd);
        if (walk.base_fd >= 0)
            close(walk.base_fd);
        nymbl__buffer_free(&walk.dir_path);
        *reason = walk.reason;
        if (kind == NYMBL_TOO_LARGE) { /* the directory's path is too long */
            *reason = nymbl_reason_from_errno(ENAMETOOLONG);
            kind = NYMBL_IO;
        }
        return kind;
    }
    target->dir_fd = walk.dir_fd;
    target->base_fd = walk.base_fd;
    target->dir_path = nymbl__buffer_take(&walk.dir_path);
    return NYMBL_OK;
}

/* The reason why a name cannot be that of a file in a directory, or NULL. */
static const char *name_problem(int dir_fd, const char *name, bool overwrite)
{
    struct stat status;
    bool is_dots = strcmp(name, ".") == 0 || strcmp(name, "..") == 0;

    if (*name == '\0' || is_dots || strchr(name, '/') != NULL)
        return nymbl__reason_directory;
    if (strlen(name) > NAME_MAX)
        return nymbl_reason_from_errno(ENAMETOOLONG);
    if (name_is_reserved(name))
        return nymbl__reason_reserved_name;
    if (fstatat(dir_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? NULL : nymbl_reason_from_errno(errno);
    if (S_ISLNK(status.st_mode))
        return nymbl__reason_symbolic_link;
    return file_problem(dir_fd, name, &status, overwrite);
}

nymbl_kind nymbl__target_resolve_at(nymbl__target *target, int dir_fd,
                                    const char *name, bool overwrite,
                                    const char **reason)
{
    *target = (nymbl__target){.dir_fd = -1, .base_fd = -1};
    *reason = name_problem(dir_fd, name, overwrite);
    if (*reason != NULL)
        return NYMBL_IO;
    target->dir_fd = nymbl__fd_avoid_stdio(openat(dir_fd, ".", OPEN_DIR_FLAGS));
    if (target->dir_fd >= 0)
        target->base_fd =
            nymbl__fd_avoid_stdio(openat(dir_fd, ".", OPEN_DIR_FLAGS));
    if (target->base_fd < 0) {
        *reason = nymbl_reason_from_errno(errno);
        return NYMBL_IO;
    }
    return nymbl__text_copy(&target->name, name);
}

bool nymbl__target_is_unmoved(const nymbl__target *target, const char **reason)
{
    struct stat opened, named;
    int base_fd = target->base_fd >= 0 ? target->base_fd : AT_FDCWD;

    if (fstatat(base_fd, target->dir_path != NULL ? target->dir_path : ".",
                &named, 0) < 0 ||
        fstat(target->dir_fd, &opened) < 0) {
        *reason = nymbl_reason_from_errno(errno);
        return false;
    }
    if (opened.st_dev == named.st_dev && opened.st_ino == named.st_ino)
        return true;
    *reason = nymbl_reason_from_errno(ENOENT);
    return false;
}

nymbl_kind nymbl_target_check(const char *path, bool no_overwrite,
                              nymbl_error *err)
{
    const char *reason = NULL;
    nymbl__target target;
    nymbl_kind kind =
        nymbl__target_resolve(&target, path, !no_overwrite, &reason);

    if (kind == NYMBL_OK &&
        faccessat(target.dir_fd, ".", W_OK | X_OK, AT_EACCESS) < 0) {
        kind = NYMBL_IO;
        reason = nymbl_reason_from_errno(errno);
    }
    if (kind == NYMBL_OK) {
        nymbl__tempfile_sweep_once(target.dir_fd);
        kind = nymbl__tempfile_check(target.dir_fd, &reason);
    }
    nymbl__target_free(&target);
    return kind < 0 ? nymbl__error_set(err, kind, reason) : NYMBL_OK;
}

void nymbl_remove_leftovers(int dir_fd)
{
    nymbl__tempfile_sweep(dir_fd);
}

void nymbl__target_free(nymbl__target *target)
{
    if (target->dir_fd >= 0)
        close(target->dir_fd);
    if (target->base_fd >= 0)
        close(target->base_fd);
    nymbl__secret_free(target->dir_path);
    nymbl__secret_free(target->name);
    *target = (nymbl__target){.dir_fd = -1, .base_fd = -1};
}
