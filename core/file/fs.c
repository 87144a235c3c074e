/* SPDX-License-Identifier: MIT */
/* File operations with fallbacks for file systems that lack them. */
#include "file/fs.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/vfs.h>
#endif

bool nymbl__fs_has_name(int fd, int dir_fd, const char *name)
{
    struct stat opened, named;

    return fstat(fd, &opened) == 0 &&
           fstatat(dir_fd, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
           opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

bool nymbl__fs_is_network(int dir_fd)
{
#ifdef __linux__
    struct statfs system;

    if (fstatfs(dir_fd, &system) < 0)
        return true;
    switch ((unsigned long)system.f_type & 0xffffffff) {
    case 0x6969:     /* NFS */
    case 0x517b:     /* SMB */
    case 0xfe534d42: /* SMB2 */
    case 0xff534d42: /* CIFS */
    case 0x65735546: /* FUSE, virtiofs */
    case 0x01021997: /* 9P */
    case 0x00c36400: /* Ceph */
    case 0x5346414f: /* AFS */
    case 0x6b414653: /* AFS, the kernel's own */
    case 0x73757245: /* Coda */
    case 0x01161970: /* GFS2 */
    case 0x7461636f: /* OCFS2 */
    case 0x0bd00bd0: /* Lustre */
    case 0x786f4256: /* VirtualBox */
    case 0xbacbacbc: /* VMware */
        return true;
    default:
        return false;
    }
#else
    (void)dir_fd;
    return true;
#endif
}

/* A network or FUSE server reports lost writes once, at fsync() or at the next
 * close(). So close a duplicate and check its result. */
static int duplicate_close(int fd)
{
    int duplicate = fcntl(fd, F_DUPFD_CLOEXEC, 3);

    if (duplicate < 0 || (close(duplicate) < 0 && errno != EINTR))
        return -1;
    return 0;
}

int nymbl__fs_flush(int fd)
{
    int flushed;

    do
        flushed = fsync(fd);
    while (flushed < 0 && errno == EINTR);
    if (flushed < 0 &&
        (errno == EINVAL || errno == ENOTSUP || errno == EOPNOTSUPP ||
         errno == ENOSYS || errno == EROFS)) /* not supported, see fsync(2) */
        return duplicate_close(fd) < 0 ? -1 : 1;
    return flushed;
}

int nymbl__fs_flush_dir(int dir_fd)
{
    int flushed;
    int fd = nymbl__fd_avoid_stdio(
        openat(dir_fd, ".", O_RDONLY | O_CLOEXEC | O_DIRECTORY));

    if (fd < 0) /* for example a directory without read permission */
        return nymbl__fs_is_unsupported(errno) ? 1 : -1;
    flushed = nymbl__fs_flush(fd);
    nymbl__fd_close(fd);
    return flushed;
}

bool nymbl__fs_is_unsupported(int code)
{
    switch (code) {
    case EPERM:
    case EACCES:
    case EINVAL:
    case ENOSYS:
    case ENOTSUP:
#if EOPNOTSUPP != ENOTSUP
    case EOPNOTSUPP:
#endif
    case ENOTTY:
    case ENOLCK:
    case EROFS:
    case EXDEV:
    case EMLINK:
        return true;
    default:
        return false;
    }
}

int nymbl__fs_set_mode(int fd, unsigned mode)
{
    if (fchmod(fd, (mode_t)mode) == 0)
        return 0;
    /* A file system without modes has given the file its own fixed one. */
    return nymbl__fs_is_unsupported(errno) ? 0 : -1;
}

int nymbl__fs_rename(int fd, int dir_fd, const char *from, const char *to,
                     bool overwrite)
{
    struct stat status;

    /* Another process may have removed the file and created its own under this
     * name. Renaming that file would publish it incomplete. */
    if (!nymbl__fs_has_name(fd, dir_fd, from)) {
        errno = ENOENT;
        return -1;
    }
    if (overwrite)
        return renameat(dir_fd, from, dir_fd, to);
#ifdef RENAME_NOREPLACE
    if (renameat2(dir_fd, from, dir_fd, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (!nymbl__fs_is_unsupported(errno))
        return -1;
#endif
    /* A process killed between link and unlink leaves both names; leftover.c
     * removes the temporary one. */
    if (linkat(dir_fd, from, dir_fd, to, 0) == 0) {
        unlinkat(dir_fd, from, 0);
        return 0;
    }
    if (!nymbl__fs_is_unsupported(errno))
        return -1;
    /* Without hard links this check must do, although another process may
     * create the file just after it. */
    if (fstatat(dir_fd, to, &status, AT_SYMLINK_NOFOLLOW) == 0) {
        errno = EEXIST;
        return -1;
    }
    return renameat(dir_fd, from, dir_fd, to);
}
