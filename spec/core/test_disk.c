/* SPDX-License-Identifier: MIT */
/* File systems that cannot do what others can, and disks that lose power: the
 * document is not lost in the last step, and nothing is taken for a part of it
 * that is none. */
#include "faults.h"
#include "internal.h"
#include "peer.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#define RESOURCE                                                               \
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static const char *reason;

static bool file_is(const char *name, const char *data, size_t size)
{
    text got = {0};
    bool same;

    if (access(world_path(name), F_OK) != 0)
        return false;
    got = world_read(name);
    same = got.size == size && memcmp(got.data, data, size) == 0;
    text_free(&got);
    return same;
}

static void folder_clear(void)
{
    DIR *folder = opendir(world.folder);
    struct dirent *entry;

    REQUIRE(folder != NULL);
    for (entry = readdir(folder); entry != NULL; entry = readdir(folder))
        unlinkat(dirfd(folder), entry->d_name, 0);
    closedir(folder);
}

/* ---- what a file system lacks ---- */

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
    nymbl__save *save = NULL;
    nymbl_kind kind =
        nymbl__save_open(&save, world_path("doc"), mode, !way->no_overwrite,
                         way->resume ? RESOURCE : NULL, NULL);

    if (kind == NYMBL_OK)
        kind = nymbl__save_restart(save, "\"one\"", &reason);
    if (kind == NYMBL_OK)
        kind = nymbl__save_write(save, "whole", 5, &reason);
    if (kind == NYMBL_OK)
        kind = nymbl__save_commit(save, &reason);
    else
        nymbl__save_abandon(save);
    return kind;
}

static void way_begin(const way *way)
{
    folder_clear();
    if (way->old)
        world_write("doc", "old", 3);
}

/* Whether a plan would have fsync() fail with what is no lack of it. */
static bool is_a_failure(const char *step, const char *error)
{
    return strstr(step, "fsync") != NULL && strcmp(error, "EINVAL") != 0 &&
           strcmp(error, "ENOTSUP") != 0 && strcmp(error, "ENOSYS") != 0 &&
           strcmp(error, "EROFS") != 0;
}

/* Every step, and such as are taken in place of others, with every errno. */
static void what_a_file_system_lacks_is_left_out(void)
{
    static const char *const steps[] = {
        "fchmod",
        "fsync",
        "linkat",
        "tmpfile",
        "renameat2",
        "linkat fchmod",
        "linkat fsync",
        "tmpfile fchmod",
        "tmpfile renameat2",
        "tmpfile renameat2 linkat",
        "linkat renameat2",
        "tmpfile renameat2 linkat fchmod fsync",
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
                CHECK(file_is("doc", "whole", 5));
                CHECK_NUMBER(world_names(), 1);
                if (test_failed())
                    printf("%s: %s (%s)\n", ways[w % WAYS].name, plan,
                           reason != NULL ? reason : "-");
            }
        }
    }
    folder_clear();
    world_close();
}

/* Such an errno is no way of a file system. */
static void what_may_lose_bytes_is_told(void)
{
    static const char *const steps[] = {
        "fchmod", "fsync", "tmpfile=EPERM fsync", "linkat=EPERM fsync"};
    static const struct {
        const char *name, *reason;
    } errors[] = {{"EIO", "input_output"},
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
                CHECK(ways[w].old ? file_is("doc", "old", 3)
                                  : access(world_path("doc"), F_OK) != 0);
                CHECK_NUMBER(world_names(), ways[w].old ? 1 : 0);
                if (test_failed())
                    printf("%s: %s\n", ways[w].name, plan);
            }
        }
    }
    folder_clear();
    world_close();
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(what_a_file_system_lacks_is_left_out),
        TEST(what_may_lose_bytes_is_told),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
