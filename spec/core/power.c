/* SPDX-License-Identifier: MIT */
/* What a disk may have after a power cut. */
#include "power.h"

#include "base/fnv1a.h"
#include "faults.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>

#define INODES 64
#define NAMES 16
#define WAYS 7     /* what the bytes of a file may be */
#define SEEN 65536 /* states that were tried */

struct power power;

/* What a file may have after a power cut. */
typedef struct version {
    const char *how;
    char *data;
    size_t size;
    uint64_t hash;
} version;

/* The state of a file: its bytes at the last fsync(). An open descriptor
 * prevents the inode number from being reused. */
typedef struct inode {
    ino_t number;
    int fd;
    char *synced;
    size_t size;
    version versions[WAYS]; /* at this power cut */
    int count;              /* of them; 0: not yet known */
} inode;

typedef struct listing {
    char names[NAMES][64];
    int inodes[NAMES]; /* indexes in `disk.inodes` */
    int count;
} listing;

static struct {
    inode inodes[INODES];
    int count;
    listing synced;      /* the directory at its last fsync() */
    uint64_t seen[SEEN]; /* hashes of states, or 0 */
    bool (*check)(void);
    bool broken;
} disk;

const char *power_path(const char *folder, const char *name)
{
    static char paths[2][200];
    static int next;
    char *path = paths[next++ % 2];

    snprintf(path, sizeof(paths[0]), "%s/%s/%s", power.dir, folder, name);
    return path;
}

/* Open the file again: the other descriptor may be write-only and locked. */
static int inode_of(int fd)
{
    char path[32];
    struct stat status;
    int i;

    REQUIRE(fstat(fd, &status) == 0);
    for (i = 0; i < disk.count; i++) {
        if (disk.inodes[i].number == status.st_ino)
            return i;
    }
    REQUIRE(disk.count < INODES);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    disk.inodes[i].number = status.st_ino;
    disk.inodes[i].fd = open(path, O_RDONLY | O_CLOEXEC);
    REQUIRE(disk.inodes[i].fd >= 0);
    disk.inodes[i].synced = calloc(1, 1);
    REQUIRE(disk.inodes[i].synced != NULL);
    disk.count++;
    return i;
}

static char *bytes_of(int fd, size_t *size)
{
    struct stat status;
    char *data;

    REQUIRE(fstat(fd, &status) == 0);
    *size = (size_t)status.st_size;
    data = calloc(1, *size + 1);
    REQUIRE(data != NULL &&
            pread(fd, data, *size, 0) == (ssize_t)status.st_size);
    return data;
}

static void listing_add(listing *to, const char *name, int inode)
{
    REQUIRE(to->count < NAMES && strlen(name) < sizeof(to->names[0]));
    strcpy(to->names[to->count], name);
    to->inodes[to->count++] = inode;
}

/* The inode of a name, or -1. */
static int listing_find(const listing *names, const char *name)
{
    for (int i = 0; i < names->count; i++) {
        if (strcmp(names->names[i], name) == 0)
            return names->inodes[i];
    }
    return -1;
}

static bool listing_has(const listing *names, int inode)
{
    for (int i = 0; i < names->count; i++) {
        if (names->inodes[i] == inode)
            return true;
    }
    return false;
}

static void listing_make(listing *to, const char *folder)
{
    DIR *dir = opendir(power_path(folder, ""));
    struct dirent *entry;

    REQUIRE(dir != NULL);
    to->count = 0;
    for (entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        int fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC);

        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            listing_add(to, entry->d_name, inode_of(fd));
        close(fd);
    }
    closedir(dir);
}

/* ---- what a disk may have ---- */

/* Add a version of a file: the first `from` bytes of `front`, and those of
 * `back` after them. Zeros, where a text has no bytes. */
static void version_add(inode *file, const char *how, const char *front,
                        size_t front_size, size_t at, const char *back,
                        size_t back_size, size_t size)
{
    version made = {.how = how, .size = size};

    made.data = calloc(1, size + 1);
    REQUIRE(made.data != NULL);
    for (size_t i = 0; i < size; i++)
        made.data[i] = i < at ? (char)(i < front_size ? front[i] : 0)
                              : (char)(i < back_size ? back[i] : 0);
    made.hash = nymbl__fnv1a(NYMBL__FNV1A_INIT, made.data, size);
    made.hash = nymbl__fnv1a(made.hash, &size, sizeof(size));
    for (int i = 0; i < file->count; i++) {
        if (file->versions[i].hash == made.hash) {
            free(made.data);
            return;
        }
    }
    REQUIRE(file->count < WAYS);
    file->versions[file->count++] = made;
}

/* The bytes of now; of the last fsync(); none of the new ones, although the
 * file has its new length; their first ones, or their last ones. */
static void bytes_after(inode *file)
{
    size_t size, same = 0, longer, cut[2];
    char *now;

    if (file->count > 0)
        return;
    now = bytes_of(file->fd, &size);
    longer = size > file->size ? size : file->size;
    version_add(file, "new", now, size, size, "", 0, size);
    version_add(file, "old", "", 0, 0, file->synced, file->size, file->size);
    version_add(file, "lost", "", 0, 0, file->synced, file->size, size);
    while (same < size && same < file->size && now[same] == file->synced[same])
        same++;
    cut[0] = same + (size - same) / 2;
    cut[1] = size > 0 ? size - 1 : 0;
    for (int i = 0; i < 2; i++) {
        if (cut[i] <= same)
            continue;
        version_add(file, i == 0 ? "the first half" : "all but the last byte",
                    now, size, cut[i], file->synced, file->size,
                    cut[i] > file->size ? cut[i] : longer);
        version_add(file, i == 0 ? "the last half" : "the last byte",
                    file->synced, file->size, cut[i], now, size, size);
    }
    free(now);
}

/* Write the files as chosen, and say how in `how`. */
static void disk_write(const listing *names, const int *choice, char *how,
                       size_t how_size)
{
    size_t length = 0;

    REQUIRE(mkdir(power_path("cut", ""), 0700) == 0);
    how[0] = '\0';
    for (int i = 0; i < names->count; i++) {
        const version *bytes =
            &disk.inodes[names->inodes[i]].versions[choice[names->inodes[i]]];
        int fd = open(power_path("cut", names->names[i]),
                      O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

        REQUIRE(fd >= 0 &&
                write(fd, bytes->data, bytes->size) == (ssize_t)bytes->size);
        close(fd);
        if (length < how_size)
            length += (size_t)snprintf(how + length, how_size - length,
                                       " %s (%zu bytes, %s)", names->names[i],
                                       bytes->size, bytes->how);
    }
}

static void folder_clear(const char *folder)
{
    DIR *dir = opendir(power_path(folder, ""));
    struct dirent *entry;

    if (dir == NULL)
        return;
    for (entry = readdir(dir); entry != NULL; entry = readdir(dir))
        unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    rmdir(power_path(folder, ""));
}

int power_names(const char *folder)
{
    DIR *dir = opendir(power_path(folder, ""));
    int count = -2;

    REQUIRE(dir != NULL);
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

char *power_read(const char *folder, const char *name, size_t *size)
{
    int fd = open(power_path(folder, name), O_RDONLY | O_CLOEXEC);
    char *data;

    *size = 0;
    if (fd < 0)
        return NULL;
    data = bytes_of(fd, size);
    close(fd);
    return data;
}

/* Whether this state is another one than all before. */
static bool is_unseen(const listing *names, const int *choice)
{
    uint64_t sum = power.allowed;

    for (int i = 0; i < names->count; i++) {
        int file = names->inodes[i];
        uint64_t hash =
            nymbl__fnv1a(disk.inodes[file].versions[choice[file]].hash,
                         names->names[i], strlen(names->names[i]));

        sum += hash * (hash | 1); /* in any order */
    }
    sum += sum == 0;
    for (size_t i = sum % SEEN;; i = (i + 1) % SEEN) {
        if (disk.seen[i] == sum)
            return false;
        if (disk.seen[i] == 0) {
            disk.seen[i] = sum;
            return true;
        }
    }
}

/* Try the files with these names, with all that may have become of their bytes.
 */
static void names_try(const char *call, const listing *names)
{
    const char *before = faults_boot;
    int choice[INODES] = {0}, i;
    char how[1000];

    for (i = 0; i < names->count; i++)
        bytes_after(&disk.inodes[names->inodes[i]]);
    do {
        if (is_unseen(names, choice)) {
            REQUIRE(++power.states < SEEN / 2);
            disk_write(names, choice, how, sizeof(how));
            faults_boot = power.boot[1];
            disk.broken = !disk.check();
            faults_boot = before;
            folder_clear("cut");
            if (disk.broken)
                printf("a power cut before %s, the disk had%s\n", call, how);
        }
        for (i = 0; i < disk.count; i++) { /* the next choice */
            if (!listing_has(names, i))
                continue;
            choice[i] = (choice[i] + 1) % disk.inodes[i].count;
            if (choice[i] != 0)
                break;
        }
    } while (i < disk.count && !disk.broken);
}

/* Try all names that the directory may have. */
static void names_try_all(const char *call, const listing *now)
{
    const listing *old = &disk.synced;
    listing differing = {.count = 0};

    for (int i = 0; i < now->count; i++) {
        if (listing_find(old, now->names[i]) != now->inodes[i])
            listing_add(&differing, now->names[i], now->inodes[i]);
    }
    for (int i = 0; i < old->count; i++) {
        if (listing_find(now, old->names[i]) < 0)
            listing_add(&differing, old->names[i], -1);
    }
    for (unsigned mask = 0; mask < 1u << differing.count && !disk.broken;
         mask++) {
        listing names = {.count = 0};
        bool loses = false;

        for (int i = 0; i < now->count; i++) {
            if (listing_find(old, now->names[i]) == now->inodes[i])
                listing_add(&names, now->names[i], now->inodes[i]);
        }
        for (int i = 0; i < differing.count; i++) {
            const char *name = differing.names[i];
            int file = listing_find(mask >> i & 1 ? old : now, name);

            if (file >= 0)
                listing_add(&names, name, file);
        }
        for (int i = 0; i < now->count; i++)
            loses = loses || (listing_has(old, now->inodes[i]) &&
                              !listing_has(&names, now->inodes[i]));
        if (!loses)
            names_try(call, &names);
    }
}

static void versions_free(void)
{
    for (int i = 0; i < disk.count; i++) {
        while (disk.inodes[i].count > 0)
            free(disk.inodes[i].versions[--disk.inodes[i].count].data);
    }
}

static void power_watch(const char *call, int fd)
{
    struct stat status;
    listing now;

    if (disk.broken)
        return;
    if (strcmp(call, "synced") != 0) {
        power.cuts++;
        listing_make(&now, "live");
        names_try_all(call, &now);
        versions_free();
        return;
    }
    REQUIRE(fstat(fd, &status) == 0);
    if (S_ISDIR(status.st_mode)) {
        listing_make(&disk.synced, "live");
    } else {
        inode *file = &disk.inodes[inode_of(fd)];

        free(file->synced);
        file->synced = bytes_of(file->fd, &file->size);
    }
}

void power_begin(const char *plan, bool (*check)(void))
{
    memset(&disk, 0, sizeof(disk));
    power = (struct power){.boot = {power.boot[0], power.boot[1]}};
    snprintf(power.dir, sizeof(power.dir), "%s/nymbl-test-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    REQUIRE(mkdtemp(power.dir) != NULL);
    REQUIRE(mkdir(power_path("live", ""), 0700) == 0);
    listing_make(&disk.synced, "live");
    disk.check = check;
    faults_boot = power.boot[0];
    faults_plan(plan);
    faults_watch = power_watch;
}

void power_cut(void)
{
    close(-1); /* before this call, which does nothing */
}

void power_end(void)
{
    faults_watch = NULL;
    faults_plan(NULL);
    faults_boot = NULL;
    printf("tried %ld states of a disk (%ld power cuts)\n", power.states,
           power.cuts);
    for (int i = 0; i < disk.count; i++) {
        close(disk.inodes[i].fd);
        free(disk.inodes[i].synced);
    }
    folder_clear("cut");
    folder_clear("live");
    CHECK(rmdir(power.dir) == 0);
}
