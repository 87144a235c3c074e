/* SPDX-License-Identifier: MIT */
/* A directory for targets whose input is the content of a file. */
#include "file.h"
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

static char base[80];
static int base_fd = -1;

static void base_remove(void)
{
    DIR *opened = opendir(base);
    struct dirent *entry;

    while (opened != NULL && (entry = readdir(opened)) != NULL)
        unlinkat(base_fd, entry->d_name, 0);
    if (opened != NULL)
        closedir(opened);
    rmdir(base);
}

void files_open(void)
{
    const char *where = getenv("TMPDIR");

    if (where == NULL) /* in memory, which is faster than a disk */
        where = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(base, sizeof(base), "%s/nymbl-fuzz-XXXXXX", where);
    require(mkdtemp(base) != NULL, "directory");
    base_fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    require(base_fd >= 0, "directory");
    atexit(base_remove);
}

int files_dir(void)
{
    return base_fd;
}

const char *file_path(const char *name)
{
    static char path[160];

    snprintf(path, sizeof(path), "%s/%s", base, name);
    return path;
}

void file_put(const char *name, const void *data, size_t size)
{
    int fd =
        openat(base_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    require(fd >= 0 && write(fd, data, size) == (ssize_t)size, "file");
    close(fd);
}

char *file_get(const char *name, size_t *size)
{
    int fd = openat(base_fd, name, O_RDONLY | O_CLOEXEC);
    off_t end = lseek(fd, 0, SEEK_END);
    char *data = malloc((size_t)end + 1);

    require(fd >= 0 && end >= 0 && data != NULL &&
                pread(fd, data, (size_t)end, 0) == end,
            "file");
    close(fd);
    data[end] = '\0';
    *size = (size_t)end;
    return data;
}
