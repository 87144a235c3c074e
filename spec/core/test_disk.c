/* SPDX-License-Identifier: MIT */
/* File systems without some operations, and disks that lose power: a document
 * is not lost in its last step, and an invalid partial file is never accepted.
 */
#include "faults.h"
#include "file/atomic_file.h"
#include "peer.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#define RESOURCE                                                               \
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static const char *reason;

/* ---- missing operations ---- */

typedef struct way {
    const char *name;
    bool old;
    bool no_overwrite;
    bool resume;
} way;

static const way ways[] = {
    {.name = "a new file"},
    {.name = "an old file", .old = true},
    {.name = "a new file only", .no_overwrite = true},
    {.name = "a part", .old = true, .resume = true},
    {.name = "a part, a new file only", .no_overwrite = true, .resume = true},
};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

static nymbl_kind document_save(const way *way, unsigned mode)
{
    nymbl__atomic_file *save = NULL;
    nymbl_kind kind = nymbl__atomic_file_open(
        &save, world_path("doc"), mode, !way->no_overwrite,
        way->resume ? RESOURCE : NULL, NULL);

    if (kind == NYMBL_OK)
        kind = nymbl__atomic_file_restart(save, "\"one\"", &reason);
    if (kind == NYMBL_OK)
        kind = nymbl__atomic_file_write(save, "whole", 5, &reason);
    if (kind == NYMBL_OK)
        kind = nymbl__atomic_file_commit(save, &reason);
    else
        nymbl__atomic_file_discard(save);
    return kind;
}

static void way_begin(const way *way)
{
    world_clear(".");
    if (way->old)
        world_write("doc", "old", 3);
}

/* Whether fsync() fails with an error that does not mean a missing operation.
 */
static bool is_a_failure(const char *step, const char *error)
{
    return strstr(step, "fsync") != NULL && strcmp(error, "EINVAL") != 0 &&
           strcmp(error, "ENOTSUP") != 0 && strcmp(error, "ENOSYS") != 0 &&
           strcmp(error, "EROFS") != 0;
}

/* Every step and its replacements, with every errno. */
static void missing_file_system_operations_are_skipped(void)
{
    static const char *const steps[] = {
        "fchmod",
        "fsync",
        "linkat",
        "tmpfile",
        "flock",
        "renameat2",
        "ftruncate",
        "linkat fchmod",
        "linkat fsync",
        "tmpfile fchmod",
        "tmpfile renameat2",
        "tmpfile renameat2 linkat",
        "linkat renameat2",
        "tmpfile renameat2 linkat fchmod fsync flock ftruncate",
    };
    static const char *const errors[] = {"EPERM",  "EACCES", "ENOTSUP",
                                         "ENOSYS", "EINVAL", "EXDEV",
                                         "EROFS",  "ENOTTY", "EMLINK"};

    world_open(NULL);
    for (size_t s = 0; s < sizeof(steps) / sizeof(steps[0]); s++) {
        for (size_t e = 0; e < sizeof(errors) / sizeof(errors[0]); e++) {
            if (is_a_failure(steps[s], errors[e]))
                continue;
            for (size_t w = 0; w < 2 * WAYS && !test_failed(); w++) {
                char plan[256] = "", list[128], *rest = NULL;

                snprintf(list, sizeof(list), "%s", steps[s]);
                for (char *step = strtok_r(list, " ", &rest); step != NULL;
                     step = strtok_r(NULL, " ", &rest)) {
                    size_t length = strlen(plan);

                    snprintf(plan + length, sizeof(plan) - length, "%s=%s ",
                             step, errors[e]);
                }
                way_begin(&ways[w % WAYS]);
                faults_plan(plan);
                reason = NULL;
                CHECK(document_save(&ways[w % WAYS], w < WAYS ? 0 : 0640) ==
                      NYMBL_OK);
                faults_plan(NULL);
                CHECK(world_file_is("doc", "whole", 5));
                CHECK_NUMBER(world_names(), 1);
                if (test_failed())
                    printf("%s: %s (%s)\n", ways[w % WAYS].name, plan,
                           reason != NULL ? reason : "-");
            }
        }
    }
    world_clear(".");
    world_close();
}

/* Such an errno does not mean a missing operation. */
static void errors_that_may_lose_bytes_are_reported(void)
{
    static const char *const steps[] = {
        "fchmod", "fsync", "tmpfile=EPERM fsync", "linkat=EPERM fsync"};
    static const struct {
        const char *name, *reason;
    } errors[] = {{"EIO", "io_error"},
                  {"ENOSPC", "no_space"},
                  {"EDQUOT", "no_space"},
                  {"EBADF", NULL}};

    world_open(NULL);
    for (size_t s = 0; s < sizeof(steps) / sizeof(steps[0]); s++) {
        for (size_t e = 0; e < sizeof(errors) / sizeof(errors[0]); e++) {
            for (size_t w = 0; w < WAYS && !test_failed(); w++) {
                char plan[64];

                snprintf(plan, sizeof(plan), "%s=%s", steps[s], errors[e].name);
                way_begin(&ways[w]);
                faults_plan(plan);
                CHECK(document_save(&ways[w], 0) == NYMBL_IO);
                faults_plan(NULL);
                if (errors[e].reason != NULL)
                    CHECK_TEXT(reason, errors[e].reason);
                CHECK(ways[w].old ? world_file_is("doc", "old", 3)
                                  : access(world_path("doc"), F_OK) != 0);
                CHECK_NUMBER(world_names(), ways[w].old ? 1 : 0);
                if (test_failed())
                    printf("%s: %s\n", ways[w].name, plan);
            }
        }
    }
    world_clear(".");
    world_close();
}

/* CIFS and drvfs open all files to other users, whatever their mode. A partial
 * file cannot be trusted there, and must not be left behind. */
static void partial_file_that_cannot_be_private_is_not_kept(void)
{
    static const char *const plans[] = {"flock=ENOLCK", "flock=ENOSYS",
                                        "flock=EIO"};

    world_open(NULL);
    for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++) {
        nymbl__atomic_file *save;

        faults_plan(plans[i]);
        if (nymbl__atomic_file_open(&save, world_path("doc"), 0, true, RESOURCE,
                                    NULL) == NYMBL_OK) {
            CHECK(nymbl__atomic_file_restart(save, "\"one\"", &reason) ==
                  NYMBL_OK);
            CHECK(nymbl__atomic_file_write(save, "half", 4, &reason) ==
                  NYMBL_OK);
            nymbl__atomic_file_keep_partial(save);
        }
        faults_plan(NULL);
        if (!CHECK_NUMBER(world_names(), 0))
            printf("%s\n", plans[i]);
        world_clear(".");
    }
    world_close();
}

/* ---- complete partial files ---- */

/* The number of bytes of the partial file that can be resumed; the file is kept
 * unchanged. */
static int64_t offset_now(void)
{
    nymbl__atomic_file *save;
    int64_t offset;

    REQUIRE(nymbl__atomic_file_open(&save, world_path("doc"), 0, true, RESOURCE,
                                    NULL) == NYMBL_OK);
    offset = nymbl__atomic_file_offset(save);
    nymbl__atomic_file_keep_partial(save);
    return offset;
}

/* Its last byte is requested again, because an empty range does not exist. */
static void complete_partial_file_is_kept_if_it_cannot_be_renamed(void)
{
    static const char *const plans[] = {"renameat=EIO",
                                        "renameat=EACCES",
                                        "renameat=ENOSPC",
                                        "renameat=EXDEV",
                                        "renameat=EPERM",
                                        "renameat=EROFS",
                                        "renameat=EDQUOT",
                                        "renameat=ENOENT",
                                        "renameat=EIO fsync=EINVAL",
                                        "renameat=EIO fchmod=EPERM"};

    world_open(NULL);
    for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++) {
        way way = {.resume = true};
        bool is_synced = strstr(plans[i], "fsync") == NULL;
        unsigned mode = strstr(plans[i], "fchmod") != NULL ? 0 : 0644;
        nymbl__atomic_file *save;

        faults_plan(plans[i]);
        CHECK(document_save(&way, mode) == NYMBL_IO);
        faults_plan(NULL);
        CHECK_NUMBER(world_names(), 2);
        CHECK(world_file_is("doc.nymbl-part", "whole", 5));
        if (is_synced)
            CHECK_NUMBER(offset_now(), 4);
        REQUIRE(nymbl__atomic_file_open(&save, world_path("doc"), mode, true,
                                        RESOURCE, NULL) == NYMBL_OK);
        CHECK_TEXT(nymbl__atomic_file_validator(save), "\"one\"");
        if (nymbl__atomic_file_offset(save) == 5)
            nymbl__atomic_file_step_back(save); /* its size is known */
        CHECK_NUMBER(nymbl__atomic_file_offset(save), 4);
        CHECK(nymbl__atomic_file_write(save, "e", 1, &reason) == NYMBL_OK);
        CHECK(nymbl__atomic_file_commit(save, &reason) == NYMBL_OK);
        CHECK(world_file_is("doc", "whole", 5));
        CHECK_NUMBER(world_names(), 1);
        world_clear(".");
        if (test_failed())
            printf("%s\n", plans[i]);
    }
    world_close();
}

/* A kill after the mode was set must not leave a partial file that is never
 * removed. */
static void partial_file_of_another_mode_is_replaced(void)
{
    static const mode_t modes[] = {0644, 0666, 0400, 0440, 0};
    way way = {.resume = true};

    world_open(NULL);
    for (size_t i = 0; i < 2 * sizeof(modes) / sizeof(modes[0]); i++) {
        way.resume = i % 2 == 0;
        world_write("doc.nymbl-part", "whole", 5);
        CHECK(chmod(world_path("doc.nymbl-part"), modes[i / 2]) == 0);
        CHECK(document_save(&way, 0) == NYMBL_OK);
        CHECK(world_file_is("doc", "whole", 5));
        if (modes[i / 2] != 0 || geteuid() == 0)
            CHECK_NUMBER(world_names(), 1);
        world_clear(".");
    }
    world_close();
}

/* ---- a power cut ---- */

/* The state of a file: its current bytes, and those at the last fsync(). An
 * open descriptor prevents the inode number from being reused. */
typedef struct inode {
    ino_t number;
    int fd;
    char *synced;
    size_t size;
} inode;

#define INODES 64
#define NAMES 16

typedef struct listing {
    char names[NAMES][64];
    int inodes[NAMES]; /* indexes in `disk.inodes` */
    int count;
} listing;

static struct {
    inode inodes[INODES];
    int count;
    listing synced; /* the directory at its last fsync() */
    struct {
        char *one, *two; /* documents, by validator */
        size_t size;
    } documents;
    char boots[2][128]; /* files with the boot id, before and after */
    long cuts;
    bool is_saved; /* a document was saved: there must be one from now on */
    bool broken;
} disk;

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

static void listing_make(listing *to)
{
    DIR *dir = opendir(world_path("live"));
    struct dirent *entry;

    REQUIRE(dir != NULL);
    to->count = 0;
    for (entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        int fd;

        if (entry->d_name[0] == '.')
            continue;
        REQUIRE(to->count < NAMES && strlen(entry->d_name) < 64);
        strcpy(to->names[to->count], entry->d_name);
        fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC);
        to->inodes[to->count++] = inode_of(fd);
        close(fd);
    }
    closedir(dir);
}

/* Simulate the disk after a power cut: names as they are now or at the last
 * fsync() of the directory, and each file's bytes as they are now or at its
 * last fsync(), with the file's current length. `loses`: the suffix of the
 * files that lose bytes. */
static void disk_write(const listing *names, const char *loses)
{
    mkdir(world_path("cut"), 0700);
    for (int i = 0; i < names->count; i++) {
        const inode *inode = &disk.inodes[names->inodes[i]];
        char path[400];
        size_t size;
        char *data = bytes_of(inode->fd, &size);
        int fd;

        if (strstr(names->names[i], loses) != NULL) {
            memset(data, 0, size);
            if (inode->size > 0)
                memcpy(data, inode->synced,
                       inode->size < size ? inode->size : size);
        }
        snprintf(path, sizeof(path), "%s/cut/%s", world.dir, names->names[i]);
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
        REQUIRE(fd >= 0 && write(fd, data, size) == (ssize_t)size);
        close(fd);
        free(data);
    }
}

static void cut_clear(void)
{
    world_clear("cut");
    rmdir(world_path("cut"));
}

static bool is_document(const char *data, size_t size)
{
    return memcmp(data, disk.documents.one, size) == 0 ||
           memcmp(data, disk.documents.two, size) == 0;
}

/* Check the files after the machine has restarted. */
static void disk_check(const char *call, const char *how)
{
    const char *before = faults_boot;
    nymbl__atomic_file *save;
    text got;

    if (access(world_path("cut/doc"), F_OK) == 0) {
        got = world_read("cut/doc");
        if (!CHECK(got.size == disk.documents.size &&
                   is_document(got.data, got.size)))
            disk.broken = true;
        text_free(&got);
    } else if (!CHECK(!disk.is_saved)) {
        disk.broken = true;
    }
    faults_boot = disk.boots[1];
    REQUIRE(nymbl__atomic_file_open(&save, world_path("cut/doc"), 0, true,
                                    RESOURCE, NULL) == NYMBL_OK);
    if (nymbl__atomic_file_offset(save) > 0) {
        const char *expected =
            strcmp(nymbl__atomic_file_validator(save), "\"one\"")
                ? disk.documents.two
                : disk.documents.one;

        got = world_read("cut/doc.nymbl-part");
        if (!CHECK(got.size >= (size_t)nymbl__atomic_file_offset(save) &&
                   memcmp(got.data, expected,
                          (size_t)nymbl__atomic_file_offset(save)) == 0))
            disk.broken = true;
        text_free(&got);
    }
    nymbl__atomic_file_discard(save);
    if (disk.broken)
        printf("a power cut before %s, %s\n", call, how);
    faults_boot = before;
    cut_clear();
}

static void power_watch(const char *call, int fd)
{
    struct stat status;
    listing now;

    if (disk.broken)
        return;
    if (strcmp(call, "synced") == 0) {
        REQUIRE(fstat(fd, &status) == 0);
        if (S_ISDIR(status.st_mode)) {
            listing_make(&disk.synced);
        } else {
            inode *inode = &disk.inodes[inode_of(fd)];

            free(inode->synced);
            inode->synced = bytes_of(inode->fd, &inode->size);
        }
        return;
    }
    listing_make(&now);
    disk.cuts++;
    for (int i = 0; i < 8 && !disk.broken; i++) {
        static const char *const loses[] = {"none", "part", "meta", "doc"};
        char how[64];

        snprintf(how, sizeof(how), "names %s, bytes lost of: %s",
                 i % 2 == 0 ? "new" : "old", loses[i / 2]);
        disk_write(i % 2 == 0 ? &now : &disk.synced, loses[i / 2]);
        disk_check(call, how);
    }
}

/* Resume the document with a validator, up to `to`; then either lose the rest
 * or commit. */
static void partial_resume(const char *validator, size_t to, bool commits)
{
    const char *document = strcmp(validator, "\"one\"") == 0
                               ? disk.documents.one
                               : disk.documents.two;
    nymbl__atomic_file *save;
    size_t at;

    REQUIRE(nymbl__atomic_file_open(&save, world_path("live/doc"), 0, true,
                                    RESOURCE, NULL) == NYMBL_OK);
    at = (size_t)nymbl__atomic_file_offset(save);
    if (at == 0 || strcmp(nymbl__atomic_file_validator(save), validator) != 0) {
        CHECK(nymbl__atomic_file_restart(save, validator, &reason) == NYMBL_OK);
        at = 0;
    }
    while (at < to) {
        size_t size = to - at < 3000 ? to - at : 3000;

        CHECK(nymbl__atomic_file_write(save, document + at, size, &reason) ==
              NYMBL_OK);
        at += size;
    }
    if (commits)
        CHECK(nymbl__atomic_file_commit(save, &reason) == NYMBL_OK);
    else
        nymbl__atomic_file_keep_partial(save);
}

/* A power cut when the last call has ended: before one that does nothing. */
static void power_cut_now(void)
{
    close(-1);
}

/* Save the document without a partial file. */
static void whole_save(const char *document, bool overwrites)
{
    nymbl__atomic_file *save;

    REQUIRE(nymbl__atomic_file_open(&save, world_path("live/doc"), 0,
                                    overwrites, NULL, NULL) == NYMBL_OK);
    for (size_t at = 0; at < disk.documents.size; at += 5000)
        CHECK(nymbl__atomic_file_write(save, document + at, 5000, &reason) ==
              NYMBL_OK);
    CHECK(nymbl__atomic_file_commit(save, &reason) == NYMBL_OK);
}

static void disk_begin(void)
{
    world_open(NULL);
    memset(&disk, 0, sizeof(disk));
    disk.documents.size = 20000;
    disk.documents.one = pattern(disk.documents.size);
    disk.documents.two = pattern(disk.documents.size);
    for (size_t i = 0; i < disk.documents.size; i++)
        disk.documents.two[i] ^= 0x55;
    world_write("boot-a", "aaaaaaaa-0000-4000-8000-000000000000\n", 37);
    world_write("boot-b", "bbbbbbbb-0000-4000-8000-000000000000\n", 37);
    CHECK(mkdir(world_path("live"), 0700) == 0);
    snprintf(disk.boots[0], sizeof(disk.boots[0]), "%s", world_path("boot-a"));
    snprintf(disk.boots[1], sizeof(disk.boots[1]), "%s", world_path("boot-b"));
    faults_boot = disk.boots[0];
    listing_make(&disk.synced);
    faults_watch = power_watch;
}

static void disk_end(void)
{
    faults_watch = NULL;
    faults_plan(NULL);
    printf("tried %ld power cuts\n", disk.cuts);
    faults_boot = NULL;
    for (int i = 0; i < disk.count; i++) {
        close(disk.inodes[i].fd);
        free(disk.inodes[i].synced);
    }
    free(disk.documents.one);
    free(disk.documents.two);
    unlink(world_path("live/doc"));
    rmdir(world_path("live"));
    world_clear(".");
    world_close();
}

/* What was reported as saved is on the disk. */
static void power_cut_leaves_the_old_file_or_the_new_one(void)
{
    static const char *const plans[] = {"", "tmpfile=EPERM", "linkat=EPERM",
                                        "renameat2=ENOSYS"};

    for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++) {
        disk_begin();
        faults_plan(plans[i]);
        whole_save(disk.documents.one, i % 2 == 0);
        disk.is_saved = true;
        power_cut_now();
        whole_save(disk.documents.two, true);
        power_cut_now();
        CHECK(disk.cuts > 20);
        CHECK(
            world_file_is("live/doc", disk.documents.two, disk.documents.size));
        if (test_failed())
            printf("%s\n", plans[i]);
        disk_end();
    }
}

static void power_cut_leaves_a_valid_partial_file_or_none(void)
{
    disk_begin();
    faults_plan("");
    partial_resume("\"one\"", 7000, false);
    partial_resume("\"one\"", 12000, false); /* unchanged */
    partial_resume("\"two\"", 12000, false); /* it has changed */
    partial_resume("\"two\"", 12000, false); /* nothing arrived */
    partial_resume("\"two\"", 20000, true);
    disk.is_saved = true;
    power_cut_now();
    partial_resume("\"one\"", 20000, false); /* complete, but interrupted */
    partial_resume("\"one\"", 20000, true);
    power_cut_now();
    CHECK(disk.cuts > 100);
    CHECK(world_file_is("live/doc", disk.documents.one, disk.documents.size));
    disk_end();
}

/* An orderly interruption syncs the file; after a kill its bytes are in the
 * memory of the running machine. */
static void partial_file_is_resumed_after_a_restart(void)
{
    for (int i = 0; i < 4; i++) {
        bool suspends = i % 2 == 0, boots = i / 2 == 0;
        char boot[2][128];
        nymbl__atomic_file *save;

        world_open(NULL);
        world_write("boot-a", "aaaaaaaa-0000-4000-8000-000000000000\n", 37);
        world_write("boot-b", "bbbbbbbb-0000-4000-8000-000000000000\n", 37);
        snprintf(boot[0], sizeof(boot[0]), "%s", world_path("boot-a"));
        snprintf(boot[1], sizeof(boot[1]), "%s", world_path("boot-b"));
        faults_boot = boot[0];
        faults_plan("");
        REQUIRE(nymbl__atomic_file_open(&save, world_path("doc"), 0, true,
                                        RESOURCE, NULL) == NYMBL_OK);
        CHECK(nymbl__atomic_file_restart(save, "\"one\"", &reason) == NYMBL_OK);
        CHECK(nymbl__atomic_file_write(save, "half", 4, &reason) == NYMBL_OK);
        if (suspends) {
            nymbl__atomic_file_keep_partial(save);
        } else { /* after a kill its bytes are copied */
            text part = world_read("doc.nymbl-part");
            text meta = world_read("doc.nymbl-meta");

            nymbl__atomic_file_discard(save);
            world_write("doc.nymbl-part", part.data, part.size);
            world_write("doc.nymbl-meta", meta.data, meta.size);
            CHECK(chmod(world_path("doc.nymbl-part"), 0600) == 0);
            CHECK(chmod(world_path("doc.nymbl-meta"), 0600) == 0);
            text_free(&part);
            text_free(&meta);
        }
        faults_boot = boot[boots];
        CHECK_NUMBER(offset_now(), suspends || !boots ? 4 : 0);
        faults_plan(NULL);
        faults_boot = NULL;
        world_clear(".");
        world_close();
    }
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(missing_file_system_operations_are_skipped),
        TEST(errors_that_may_lose_bytes_are_reported),
        TEST(partial_file_that_cannot_be_private_is_not_kept),
        TEST(complete_partial_file_is_kept_if_it_cannot_be_renamed),
        TEST(partial_file_of_another_mode_is_replaced),
        TEST(partial_file_is_resumed_after_a_restart),
        TEST(power_cut_leaves_the_old_file_or_the_new_one),
        TEST(power_cut_leaves_a_valid_partial_file_or_none),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
