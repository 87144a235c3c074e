/* SPDX-License-Identifier: MIT */
/* The entries of a directory. */
#include "job/directory.h"

#include "base/buffer.h"
#include "base/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP 256 /* entries: about 1 ms */

/* An entry in the buffer; its name with a NUL follows. */
typedef struct record {
    nymbl_entry_kind kind;
    int64_t size;
    double modified;
} record;

typedef struct directory_job {
    nymbl__job job;
    DIR *directory;
    size_t count, max;
    nymbl__buffer entries;
    size_t next; /* offset of the next entry for the caller */
} directory_job;

static nymbl_kind fail(const char **reason)
{
    *reason = nymbl_reason_from_errno(errno);
    return NYMBL_IO;
}

static nymbl_kind directory_open(directory_job *self, const char **reason)
{
    int fd = nymbl__job_open(&self->job, O_DIRECTORY);

    if (fd < 0)
        return fail(reason);
    self->directory = fdopendir(fd);
    if (self->directory == NULL) {
        close(fd);
        return NYMBL_NO_MEMORY; /* the descriptor is that of a directory */
    }
    return NYMBL_AGAIN;
}

static nymbl_entry_kind kind_of(mode_t mode)
{
    return S_ISREG(mode)   ? NYMBL_ENTRY_FILE
           : S_ISDIR(mode) ? NYMBL_ENTRY_DIRECTORY
           : S_ISLNK(mode) ? NYMBL_ENTRY_LINK
                           : NYMBL_ENTRY_OTHER;
}

static nymbl_kind entry_add(directory_job *self, const char *name,
                            const char **reason)
{
    struct stat status;
    record record = {0};
    nymbl_kind kind;

    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return NYMBL_AGAIN;
    if (fstatat(dirfd(self->directory), name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? NYMBL_AGAIN /* it was removed meanwhile */
                               : fail(reason);
    if (self->count++ == self->max) {
        *reason = nymbl__reason_too_many_entries;
        return NYMBL_IO;
    }
    record.kind = kind_of(status.st_mode);
    record.size = (int64_t)status.st_size;
    record.modified =
        (double)status.st_mtim.tv_sec + (double)status.st_mtim.tv_nsec / 1e9;
    kind = nymbl__buffer_append(&self->entries, &record, sizeof(record));
    if (kind == NYMBL_OK)
        kind = nymbl__buffer_append(&self->entries, name, strlen(name) + 1);
    return kind < 0 ? kind : NYMBL_AGAIN;
}

static nymbl_kind directory_step(nymbl__job *job, const char **reason)
{
    directory_job *self = (directory_job *)job;
    nymbl_kind kind = NYMBL_AGAIN;

    if (self->directory == NULL)
        return directory_open(self, reason);
    for (int i = 0; i < STEP && kind == NYMBL_AGAIN; i++) {
        struct dirent *entry;

        errno = 0;
        entry = readdir(self->directory);
        if (entry == NULL)
            kind = errno == 0 ? NYMBL_OK : fail(reason);
        else
            kind = entry_add(self, entry->d_name, reason);
    }
    if (kind == NYMBL_OK) {
        closedir(self->directory);
        self->directory = NULL;
    }
    return kind;
}

static void directory_release(nymbl__job *job)
{
    directory_job *self = (directory_job *)job;

    if (self->directory != NULL)
        closedir(self->directory);
    nymbl__buffer_free(&self->entries);
}

static const nymbl__job_type directory_type = {directory_step,
                                               directory_release};

nymbl__job *nymbl__directory_job_new(const char *path, size_t max)
{
    nymbl__job *job =
        nymbl__job_new(&directory_type, sizeof(directory_job), path, -1);
    directory_job *self = (directory_job *)job;

    if (job == NULL)
        return NULL;
    self->max = max;
    nymbl__buffer_init(&self->entries, max * (sizeof(record) + NAME_MAX + 1));
    return job;
}

bool nymbl__directory_job_is(const nymbl__job *job)
{
    return job->type == &directory_type;
}

bool nymbl__directory_job_next(nymbl__job *job, nymbl_directory_entry *out)
{
    directory_job *self = (directory_job *)job;
    record record;

    if (self->next == self->entries.size)
        return false;
    memcpy(&record, self->entries.data + self->next, sizeof(record));
    out->name = self->entries.data + self->next + sizeof(record);
    out->kind = record.kind;
    out->size = record.size;
    out->modified = record.modified;
    self->next += sizeof(record) + strlen(out->name) + 1;
    return true;
}
