/* SPDX-License-Identifier: MIT */
/* Where a file is to be: a path is followed once, name by name, to a directory
 * that is kept open and a name in it. */
#include "file/target.h"

#include "base/ascii.h"
#include "base/buffer.h"
#include "base/descriptor.h"
#include "base/error.h"
#include "file/tempfile.h"
#include "file/partial.h"

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

#define LINKS_MAX 40 /* as Linux has it */
#define FOLDER_MAX (1u << 20)

#ifdef O_PATH /* needs no right to read the directory */
#define DIRECTORY (O_PATH | O_DIRECTORY | O_CLOEXEC)
#else
#define DIRECTORY (O_RDONLY | O_DIRECTORY | O_CLOEXEC)
#endif

/* A path on its way. */
typedef struct walk {
    int directory;        /* where it has led so far */
    int from;             /* where a relative `folder` begins, or -1 */
    nymbl__buffer folder; /* the same as a path without links; "" is `from` */
    char *rest;           /* what is still to be followed */
    int links;
    const char *reason;
} walk;

static nymbl_kind walk_fail(walk *walk, const char *reason)
{
    walk->reason = reason;
    return NYMBL_IO;
}

/* Whether files may not be made in a directory because its names are those of
 * descriptors and processes: /dev/stdout, /dev/fd/1 and /proc/self/cwd lead
 * through one, and their links do not say where they lead. */
static bool is_magic(int directory)
{
#ifdef __linux__
    struct statfs system;

    return fstatfs(directory, &system) == 0 &&
           system.f_type == PROC_SUPER_MAGIC;
#else
    static const char *const names[] = {"/dev/fd", "/dev"};
    struct stat status, named;

    for (int i = 0; i < 2; i++) {
        if (fstat(directory, &status) == 0 && stat(names[i], &named) == 0 &&
            status.st_dev == named.st_dev && status.st_ino == named.st_ino)
            return true;
    }
    return false;
#endif
}

/* Go on in this directory, which is taken over; -1: as errno says. */
static nymbl_kind walk_enter(walk *walk, int directory)
{
    if (directory < 0)
        return walk_fail(walk, nymbl__errno_reason(errno));
    directory = nymbl__fd_high(directory);
    if (walk->directory >= 0)
        close(walk->directory);
    walk->directory = directory;
    if (directory < 0)
        return walk_fail(walk, nymbl__errno_reason(errno));
    return is_magic(directory) ? walk_fail(walk, "not_a_file") : NYMBL_OK;
}

/* Begin at the root or in the current directory. */
static nymbl_kind walk_begin(walk *walk, bool at_root)
{
    const char *from = at_root ? "/" : ".";
    nymbl_kind kind = walk_enter(walk, open(from, DIRECTORY));

    nymbl__buffer_free(&walk->folder);
    if (walk->from >= 0) /* a link has led to the root */
        close(walk->from);
    walk->from = -1;
    if (kind == NYMBL_OK && at_root)
        return nymbl__buffer_puts(&walk->folder, from);
    if (kind == NYMBL_OK) {
        walk->from = nymbl__fd_high(openat(walk->directory, ".", DIRECTORY));
        if (walk->from < 0)
            kind = walk_fail(walk, nymbl__errno_reason(errno));
    }
    return kind;
}

/* Whether a link may be followed, by the rule of Linux's protected_symlinks
 * (proc_sys_fs(5)): in a directory such as /tmp only links of our own, or of
 * the directory's owner. The rule is applied even if the kernel's is off. */
static bool link_is_trusted(int directory, const struct stat *link)
{
    struct stat status;

    if (link->st_uid == geteuid())
        return true;
    return fstat(directory, &status) == 0 &&
           ((status.st_mode & (S_ISVTX | S_IWOTH)) != (S_ISVTX | S_IWOTH) ||
            status.st_uid == link->st_uid);
}

/* Put what a link holds in the place of its name. `tail` is the rest after
 * it. */
static nymbl_kind link_follow(walk *walk, const char *name, const char *tail,
                              const struct stat *link)
{
    char to[PATH_MAX];
    struct stat after;
    size_t more = strlen(tail) + 1;
    ssize_t length;
    char *rest;

    if (walk->links++ == LINKS_MAX)
        return walk_fail(walk, nymbl__errno_reason(ELOOP));
    if (!link_is_trusted(walk->directory, link))
        return walk_fail(walk, nymbl__errno_reason(EACCES));
    length = readlinkat(walk->directory, name, to, sizeof(to));
    if (length < 0 ||
        fstatat(walk->directory, name, &after, AT_SYMLINK_NOFOLLOW) < 0)
        return walk_fail(walk, nymbl__errno_reason(errno));
    /* what was read must be the content of the link that was looked at */
    if (length == 0 || length == (ssize_t)sizeof(to) ||
        after.st_ino != link->st_ino || after.st_dev != link->st_dev)
        return walk_fail(walk, nymbl__errno_reason(ENOENT));
    rest = malloc((size_t)length + more);
    if (rest == NULL)
        return NYMBL_NO_MEMORY;
    memcpy(rest, to, (size_t)length);
    memcpy(rest + length, tail, more);
    nymbl__secret_free(walk->rest);
    walk->rest = rest;
    return *rest == '/' ? walk_begin(walk, true) : NYMBL_OK;
}

static bool name_ends(const char *name, const char *end)
{
    size_t length = strlen(name), least = strlen(end);

    return length >= least && nymbl__ascii_equal(name + length - least, end);
}

/* Whether a name is one of those that files have before they are whole: a later
 * download would remove the document. Some file systems know no case. */
static bool name_is_ours(const char *name)
{
    static const char prefix[] = NYMBL__DRAFT_PREFIX;

    return nymbl__ascii_begins(name, prefix, sizeof(prefix) - 1) ||
           name_ends(name, NYMBL__PART_END) || name_ends(name, NYMBL__NOTE_END);
}

/* Why a file that exists cannot be replaced, or NULL. */
static const char *file_problem(int directory, const char *name,
                                const struct stat *status, bool overwrite)
{
    struct stat folder;

    if (S_ISDIR(status->st_mode))
        return "directory";
    if (!S_ISREG(status->st_mode))
        return "not_a_file";
    if (!overwrite) {
        nymbl__partial_settle(directory, name);
        return "exists";
    }
    /* rename() is refused so by the kernel, but only at the end */
    if (geteuid() != 0 && status->st_uid != geteuid() &&
        fstat(directory, &folder) == 0 && (folder.st_mode & S_ISVTX) != 0 &&
        folder.st_uid != geteuid())
        return "permission";
#ifdef STATX_ATTR_MOUNT_ROOT
    {
        struct statx more = {0};

        if (statx(directory, name, AT_SYMLINK_NOFOLLOW, 0, &more) == 0) {
            if (more.stx_attributes & STATX_ATTR_MOUNT_ROOT)
                return "mount_point";
            if (more.stx_attributes &
                (STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND))
                return "permission";
        }
    }
#else
    (void)name;
#endif
    return NULL;
}

/* Follow one name. NYMBL_DONE: it is the file's; `name` holds it. */
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
        return walk_fail(walk, nymbl__errno_reason(ENAMETOOLONG));
    if (length == 0 || (is_dots && is_last))
        return walk_fail(walk, "directory");
    memcpy(name, start, length);
    name[length] = '\0';
    if (is_last && name_is_ours(name))
        return walk_fail(walk, "reserved_name");
    if (fstatat(walk->directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno == ENOENT && is_last)
            return NYMBL_DONE;
        if (errno == ENOENT && tail[strspn(tail, "/")] == '\0')
            return walk_fail(walk, "directory");
        return walk_fail(walk, nymbl__errno_reason(errno));
    }
    if (S_ISLNK(status.st_mode))
        return link_follow(walk, name, tail, &status);
    if (is_last) {
        walk->reason = file_problem(walk->directory, name, &status, overwrite);
        return walk->reason == NULL ? NYMBL_DONE : NYMBL_IO;
    }
    kind =
        walk_enter(walk, openat(walk->directory, name, DIRECTORY | O_NOFOLLOW));
    if (kind == NYMBL_OK)
        kind = nymbl__buffer_puts(&walk->folder, name);
    if (kind == NYMBL_OK)
        kind = nymbl__buffer_puts(&walk->folder, "/");
    memmove(walk->rest, tail, strlen(tail) + 1);
    return kind;
}

nymbl_kind nymbl__target_resolve(nymbl__target *place, const char *path,
                                 bool overwrite, const char **reason)
{
    walk walk = {.directory = -1, .from = -1};
    char name[NAME_MAX + 1];
    nymbl_kind kind;

    *place = (nymbl__target){.directory = -1, .from = -1};
    nymbl__buffer_init(&walk.folder, FOLDER_MAX);
    if (*path == '\0' || strlen(path) >= PATH_MAX) {
        *reason = nymbl__errno_reason(*path == '\0' ? ENOENT : ENAMETOOLONG);
        return NYMBL_IO;
    }
    kind = nymbl__text_copy(&walk.rest, path);
    if (kind == NYMBL_OK)
        kind = walk_begin(&walk, *path == '/');
    while (kind == NYMBL_OK)
        kind = walk_step(&walk, name, overwrite);
    if (kind == NYMBL_DONE)
        kind = nymbl__text_copy(&place->name, name);
    nymbl__secret_free(walk.rest);
    if (kind != NYMBL_OK) {
        if (walk.directory >= 0)
            close(walk.directory);
        if (walk.from >= 0)
            close(walk.from);
        nymbl__buffer_free(&walk.folder);
        *reason = walk.reason;
        if (kind == NYMBL_TOO_LARGE) { /* the path of the directory */
            *reason = nymbl__errno_reason(ENAMETOOLONG);
            kind = NYMBL_IO;
        }
        return kind;
    }
    place->directory = walk.directory;
    place->from = walk.from;
    place->folder = nymbl__buffer_take(&walk.folder);
    return NYMBL_OK;
}

bool nymbl__target_is_unmoved(const nymbl__target *place, const char **reason)
{
    struct stat held, named;
    int from = place->from >= 0 ? place->from : AT_FDCWD;

    if (fstatat(from, place->folder != NULL ? place->folder : ".", &named, 0) <
            0 ||
        fstat(place->directory, &held) < 0) {
        *reason = nymbl__errno_reason(errno);
        return false;
    }
    if (held.st_dev == named.st_dev && held.st_ino == named.st_ino)
        return true;
    *reason = nymbl__errno_reason(ENOENT);
    return false;
}

nymbl_kind nymbl_path_check(const char *path, bool no_overwrite,
                            nymbl_error *err)
{
    const char *reason = NULL;
    nymbl__target place;
    nymbl_kind kind =
        nymbl__target_resolve(&place, path, !no_overwrite, &reason);

    if (kind == NYMBL_OK &&
        faccessat(place.directory, ".", W_OK | X_OK, AT_EACCESS) < 0) {
        kind = NYMBL_IO;
        reason = nymbl__errno_reason(errno);
    }
    if (kind == NYMBL_OK) {
        nymbl__tempfiles_sweep(place.directory);
        kind = nymbl__tempfile_try(place.directory, &reason);
    }
    nymbl__target_free(&place);
    return kind < 0 ? nymbl__fail(err, kind, reason) : NYMBL_OK;
}

void nymbl__target_free(nymbl__target *place)
{
    if (place->directory >= 0)
        close(place->directory);
    if (place->from >= 0)
        close(place->from);
    nymbl__secret_free(place->folder);
    nymbl__secret_free(place->name);
    *place = (nymbl__target){.directory = -1, .from = -1};
}
