/* SPDX-License-Identifier: MIT */
/* Files, and files below a directory without following links. No function
 * waits: a lock that another process holds is reported, only regular files are
 * read and written, and flushing a file and reading a directory are jobs of the
 * core.
 *
 * A failure is nil and a table of error fields of kind "io". */
#include "descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define DESCRIPTOR_T "nymbl.descriptor"

#define MAX_READ_BYTES 1048576
#define MAX_OFFSET 9007199254740992.0 /* 2^53 */

/* An open file or directory. */
typedef struct descriptor_ud {
    block_tag tag;
    int fd;          /* -1 once closed */
    pid_t locked_by; /* the process that has locked it, or 0 */
} descriptor_ud;

/* ---- failures ---- */

static int reason_push(lua_State *L, const char *reason)
{
    nymbl_error err = {.kind = NYMBL_IO, .reason = reason};

    return failure_push(L, &err);
}

static int errno_push(lua_State *L)
{
    return reason_push(L, nymbl_reason_from_errno(errno));
}

/* The result of a system call. */
static int result_push(lua_State *L, int result)
{
    if (result < 0)
        return errno_push(L);
    lua_pushboolean(L, 1);
    return 1;
}

/* ---- descriptors ---- */

/* A closed descriptor: it exists before the file is opened, so that a failed
 * allocation leaks no open file. */
static descriptor_ud *descriptor_new(lua_State *L)
{
    descriptor_ud *self = block_new(L, BLOCK_DESCRIPTOR, sizeof(*self));

    self->fd = -1;
    self->locked_by = 0;
    luaL_setmetatable(L, DESCRIPTOR_T);
    return self;
}

static void descriptor_shut(descriptor_ud *self)
{
    if (self->fd < 0)
        return;
    /* close() alone would leave the lock to the duplicate of a job. A forked
     * child has its parent's lock. */
    if (self->locked_by == getpid())
        flock(self->fd, LOCK_UN);
    close(self->fd);
    self->fd = -1;
}

int descriptor_check(lua_State *L, int index)
{
    descriptor_ud *self =
        block_check(L, index, BLOCK_DESCRIPTOR, sizeof(*self), DESCRIPTOR_T);

    if (self->fd < 0)
        luaL_argerror(L, index, "closed descriptor");
    return self->fd;
}

/* The name of an entry: one component, so that it cannot lead elsewhere. */
static const char *name_check(lua_State *L, int index)
{
    const char *name = text_check(L, index);

    luaL_argcheck(L,
                  *name != '\0' && strchr(name, '/') == NULL &&
                      strcmp(name, ".") != 0 && strcmp(name, "..") != 0,
                  index, "not a file name");
    return name;
}

/* Open without waiting, and clear of stdin, stdout and stderr. */
static int open_at(int dir_fd, const char *path, int flags)
{
    int fd, high;

    do
        fd = openat(dir_fd, path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
                    0600);
    while (fd < 0 && errno == EINTR);
    if (fd < 0 || fd > STDERR_FILENO)
        return fd;
    high = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    close(fd);
    return high;
}

static bool is_link(int dir_fd, const char *name)
{
    struct stat status;

    return fstatat(dir_fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
           S_ISLNK(status.st_mode);
}

/* Push the failure of an open() that does not follow a link. The errno for a
 * link is ELOOP, with O_DIRECTORY also ENOTDIR. */
static int open_failure_push(lua_State *L, int dir_fd, const char *name)
{
    int code = errno;

    if ((code == ELOOP || code == ENOTDIR) && is_link(dir_fd, name))
        return reason_push(L, "symbolic_link");
    return reason_push(L, nymbl_reason_from_errno(code));
}

static int directory_push(lua_State *L, int dir_fd, const char *path, int flags)
{
    descriptor_ud *self = descriptor_new(L);

    self->fd = open_at(dir_fd, path, O_RDONLY | O_DIRECTORY | flags);
    return self->fd < 0 ? open_failure_push(L, dir_fd, path) : 1;
}

static int file_push(lua_State *L, int dir_fd, const char *path, int mode)
{
    static const char *const modes[] = {"read", "append", "create", NULL};
    static const int flags[] = {O_RDONLY, O_RDWR | O_APPEND | O_CREAT,
                                O_RDWR | O_APPEND | O_CREAT | O_EXCL};
    int chosen = flags[luaL_checkoption(L, mode, NULL, modes)];
    descriptor_ud *self = descriptor_new(L);
    struct stat status;
    const char *reason;

    self->fd = open_at(dir_fd, path, chosen | O_NOFOLLOW);
    if (self->fd < 0)
        return open_failure_push(L, dir_fd, path);
    if (fstat(self->fd, &status) < 0) {
        reason = nymbl_reason_from_errno(errno);
    } else if (S_ISREG(status.st_mode)) {
        if (chosen != O_RDONLY && (status.st_mode & 077) != 0)
            fchmod(self->fd, 0600); /* fails if it is another user's */
        return 1;
    } else {
        reason = S_ISDIR(status.st_mode) ? "directory" : "not_a_file";
    }
    descriptor_shut(self);
    return reason_push(L, reason);
}

/* Push true if the directory was created, false if it existed. */
static int make_directory_push(lua_State *L, int dir_fd, const char *path,
                               int flags)
{
    struct stat status;
    int result = mkdirat(dir_fd, path, 0700);

    if (result < 0 && errno != EEXIST)
        return errno_push(L);
    if (result < 0) {
        if (fstatat(dir_fd, path, &status, flags) < 0)
            return errno_push(L);
        if (S_ISLNK(status.st_mode))
            return reason_push(L, "symbolic_link");
        if (!S_ISDIR(status.st_mode))
            return reason_push(L, "not_a_directory");
    }
    lua_pushboolean(L, result == 0);
    return 1;
}

static const char *kind_name(mode_t mode)
{
    return S_ISREG(mode)   ? "file"
           : S_ISDIR(mode) ? "directory"
           : S_ISLNK(mode) ? "link"
                           : "other";
}

/* Push a table: `kind` ("file", "directory", "link", "other"), `size`, `mode`
 * (permission bits), `owner` (user id), `links`, `modified` (seconds since
 * 1970), `identity`, a string that no other file has at the same time, and
 * `version`, which changes with the content. */
static int status_push(lua_State *L, const struct stat *status)
{
    unsigned long long identity[] = {status->st_dev, status->st_ino};

    lua_createtable(L, 0, 8);
    lua_pushstring(L, kind_name(status->st_mode));
    lua_setfield(L, -2, "kind");
    push_size(L, status->st_size);
    lua_setfield(L, -2, "size");
    push_size(L, status->st_mode & 07777);
    lua_setfield(L, -2, "mode");
    push_size(L, status->st_uid);
    lua_setfield(L, -2, "owner");
    push_size(L, status->st_nlink);
    lua_setfield(L, -2, "links");
    lua_pushnumber(L, (double)status->st_mtim.tv_sec +
                          (double)status->st_mtim.tv_nsec / 1e9);
    lua_setfield(L, -2, "modified");
    lua_pushlstring(L, (const char *)identity, sizeof(identity));
    lua_setfield(L, -2, "identity");
    version_push(L, status);
    lua_setfield(L, -2, "version");
    return 1;
}

/* descriptor:open_directory(name): a descriptor. A link is not followed. */
static int descriptor_open_directory(lua_State *L)
{
    return directory_push(L, descriptor_check(L, 1), name_check(L, 2),
                          O_NOFOLLOW);
}

/* descriptor:open_file(name, mode): a descriptor of a regular file. The mode is
 * "read"; "append", which creates a missing file; or "create", which fails if
 * there is one. What is written has mode 0600, unless it is another user's. A
 * link is not followed. */
static int descriptor_open_file(lua_State *L)
{
    return file_push(L, descriptor_check(L, 1), name_check(L, 2), 3);
}

/* descriptor:make_directory(name): true if it was created, with mode 0700;
 * false if it existed. */
static int descriptor_make_directory(lua_State *L)
{
    return make_directory_push(L, descriptor_check(L, 1), name_check(L, 2),
                               AT_SYMLINK_NOFOLLOW);
}

/* descriptor:stat(name or nil): the status of an entry, which may be a link; or
 * of the descriptor's own file */
static int descriptor_stat(lua_State *L)
{
    int fd = descriptor_check(L, 1);
    struct stat status;
    int result = lua_isnoneornil(L, 2) ? fstat(fd, &status)
                                       : fstatat(fd, name_check(L, 2), &status,
                                                 AT_SYMLINK_NOFOLLOW);

    return result < 0 ? errno_push(L) : status_push(L, &status);
}

/* descriptor:rename(from, to): true; an existing file `to` is replaced */
static int descriptor_rename(lua_State *L)
{
    int fd = descriptor_check(L, 1);

    return result_push(L, renameat(fd, name_check(L, 2), fd, name_check(L, 3)));
}

/* descriptor:unlink(name): true; it removes a link, not the link's target */
static int descriptor_unlink(lua_State *L)
{
    return result_push(L,
                       unlinkat(descriptor_check(L, 1), name_check(L, 2), 0));
}

/* descriptor:read(size, offset): at most so many bytes, nil at the end. Without
 * an offset, from the current position. */
static int descriptor_read(lua_State *L)
{
    int fd = descriptor_check(L, 1);
    lua_Number size = luaL_checknumber(L, 2);
    lua_Number offset = luaL_optnumber(L, 3, -1);
    ssize_t got;
    char *buffer;

    luaL_argcheck(L, size >= 1 && size <= MAX_READ_BYTES, 2, "out of range");
    luaL_argcheck(L, offset >= -1 && offset <= MAX_OFFSET, 3, "out of range");
    buffer = lua_newuserdata(L, (size_t)size);
    do
        got = offset < 0 ? read(fd, buffer, (size_t)size)
                         : pread(fd, buffer, (size_t)size, (off_t)offset);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno_push(L);
    if (got == 0)
        lua_pushnil(L);
    else
        lua_pushlstring(L, buffer, (size_t)got);
    return 1;
}

/* descriptor:write(bytes): true, at the end of a file opened in the mode
 * "append" or "create". After a failure, some of the bytes may be there. */
static int descriptor_write(lua_State *L)
{
    int fd = descriptor_check(L, 1);
    size_t size;
    const char *bytes = luaL_checklstring(L, 2, &size);

    while (size > 0) {
        ssize_t put = write(fd, bytes, size);

        if (put < 0 && errno != EINTR)
            return errno_push(L);
        bytes += put > 0 ? put : 0;
        size -= put > 0 ? (size_t)put : 0;
    }
    return result_push(L, 0);
}

/* descriptor:truncate(size): true */
static int descriptor_truncate(lua_State *L)
{
    int fd = descriptor_check(L, 1);
    lua_Number size = luaL_checknumber(L, 2);

    luaL_argcheck(L, size >= 0 && size <= MAX_OFFSET, 2, "out of range");
    return result_push(L, ftruncate(fd, (off_t)size));
}

/* descriptor:lock(): true; false if another process holds the lock. The lock
 * ends with the descriptor, however the process ends. */
static int descriptor_lock(lua_State *L)
{
    int fd = descriptor_check(L, 1), result;

    do
        result = flock(fd, LOCK_EX | LOCK_NB);
    while (result < 0 && errno == EINTR);
    if (result < 0 && errno == EWOULDBLOCK) {
        lua_pushboolean(L, 0);
        return 1;
    }
    if (result == 0)
        ((descriptor_ud *)lua_touserdata(L, 1))->locked_by = getpid();
    return result_push(L, result);
}

/* descriptor:remove_leftovers(): remove the incomplete files that killed
 * processes have left in the directory; true */
static int descriptor_remove_leftovers(lua_State *L)
{
    nymbl_remove_leftovers(descriptor_check(L, 1));
    return result_push(L, 0);
}

/* The collector may bring a block of another type. */
static int descriptor_collect(lua_State *L)
{
    descriptor_ud *self =
        block_test(L, 1, BLOCK_DESCRIPTOR, sizeof(descriptor_ud));

    if (self != NULL)
        descriptor_shut(self);
    return 0;
}

/* descriptor:close(); a second close is harmless */
static int descriptor_close(lua_State *L)
{
    block_check(L, 1, BLOCK_DESCRIPTOR, sizeof(descriptor_ud), DESCRIPTOR_T);
    return descriptor_collect(L);
}

/* ---- paths ---- */

/* core.system.open_directory(path): a descriptor; links are followed */
int system_open_directory(lua_State *L)
{
    return directory_push(L, AT_FDCWD, text_check(L, 1), 0);
}

/* core.system.open_file(path, mode): as descriptor:open_file(); links in the
 * path are followed, but its last component must not be one */
int system_open_file(lua_State *L)
{
    return file_push(L, AT_FDCWD, text_check(L, 1), 2);
}

/* core.system.make_directory(path): as descriptor:make_directory(); an existing
 * link to a directory counts as one */
int system_make_directory(lua_State *L)
{
    return make_directory_push(L, AT_FDCWD, text_check(L, 1), 0);
}

/* core.system.lstat(path): the status of a file, directory or link */
int system_lstat(lua_State *L)
{
    struct stat status;

    return lstat(text_check(L, 1), &status) < 0 ? errno_push(L)
                                                : status_push(L, &status);
}

/* core.system.realpath(path): the absolute path without links */
int system_realpath(lua_State *L)
{
    char resolved[PATH_MAX];

    if (realpath(text_check(L, 1), resolved) == NULL)
        return errno_push(L);
    lua_pushstring(L, resolved);
    return 1;
}

/* core.system.user(): the effective user id */
int system_user(lua_State *L)
{
    push_size(L, geteuid());
    return 1;
}

void descriptor_class(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"open_directory", descriptor_open_directory},
        {"open_file", descriptor_open_file},
        {"make_directory", descriptor_make_directory},
        {"stat", descriptor_stat},
        {"rename", descriptor_rename},
        {"unlink", descriptor_unlink},
        {"read", descriptor_read},
        {"write", descriptor_write},
        {"truncate", descriptor_truncate},
        {"lock", descriptor_lock},
        {"remove_leftovers", descriptor_remove_leftovers},
        {"close", descriptor_close},
        {NULL, NULL},
    };

    block_class(L, DESCRIPTOR_T, methods, descriptor_collect);
}
