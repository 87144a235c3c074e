/* SPDX-License-Identifier: MIT */
/* Steps of every file that gets its name, on file systems that lack some. */
#include "file/filesystem.h"

#include "base/descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/vfs.h>
#endif

bool nymbl__fd_has_name(int fd, int directory, const char *name)
{
    struct stat opened, named;

    return fstat(fd, &opened) == 0 &&
           fstatat(directory, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
           opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

bool nymbl__fd_is_network(int directory)
{
#ifdef __linux__
    struct statfs system;

    if (fstatfs(directory, &system) < 0)
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
    case 0x6b414653: /* AFS of the kernel */
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
    (void)directory;
    return true;
#endif
}

/* Bytes that a server or a FUSE program could not write are reported by fsync()
 * or by the next close(), and by no later one. So a copy is closed. */
static int copy_close(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

    if (copy < 0 || (close(copy) < 0 && errno != EINTR))
        return -1;
    return 0;
}

int nymbl__file_flush(int fd)
{
    int flushed;

    do
        flushed = fsync(fd);
    while (flushed < 0 && errno == EINTR);
    if (flushed < 0 && (errno == EINVAL || errno == ENOTSUP ||
                        errno == EOPNOTSUPP || errno == ENOSYS ||
                        errno == EROFS)) /* "does not support" it: fsync(2) */
        return copy_close(fd) < 0 ? -1 : 1;
    return flushed;
}

int nymbl__directory_flush(int directory)
{
    int flushed;
    int fd = nymbl__fd_high(
        openat(directory, ".", O_RDONLY | O_CLOEXEC | O_DIRECTORY));

    if (fd < 0) /* one that may be written to and not read, for example */
        return nymbl__is_lacking(errno) ? 1 : -1;
    flushed = nymbl__file_flush(fd);
    nymbl__fd_close(fd);
    return flushed;
}

bool nymbl__is_lacking(int code)
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

int nymbl__file_set_mode(int fd, unsigned mode)
{
    /* it was made with 0600, or with what the file system gives every file */
    return fchmod(fd, (mode_t)mode) < 0 && !nymbl__is_lacking(errno) ? -1 : 0;
}

int nymbl__file_rename(int fd, int directory, const char *from, const char *to,
                       bool overwrite)
{
    struct stat status;

    /* should another process have removed it and begun its own file under the
     * same name, that one would be published half-written */
    if (!nymbl__fd_has_name(fd, directory, from)) {
        errno = ENOENT;
        return -1;
    }
    if (overwrite)
        return renameat(directory, from, directory, to);
#ifdef RENAME_NOREPLACE
    if (renameat2(directory, from, directory, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (!nymbl__is_lacking(errno))
        return -1;
#endif
    /* a kill between these two leaves both names: see is_ours() */
    if (linkat(directory, from, directory, to, 0) == 0) {
        unlinkat(directory, from, 0);
        return 0;
    }
    if (!nymbl__is_lacking(errno))
        return -1;
    /* file systems without links get the weaker test */
    if (fstatat(directory, to, &status, AT_SYMLINK_NOFOLLOW) == 0) {
        errno = EEXIST;
        return -1;
    }
    return renameat(directory, from, directory, to);
}

int nymbl__private_open(int directory, const char *name, int flags)
{
    struct stat status;
    int fd = nymbl__fd_high(openat(
        directory, name, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600));

    if (fd < 0)
        return -1;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
        status.st_uid == geteuid() && status.st_nlink == 1 &&
        (status.st_mode & 077) == 0)
        return fd;
    close(fd);
    errno = EACCES;
    return -1;
}
