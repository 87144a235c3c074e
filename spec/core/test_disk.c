/* SPDX-License-Identifier: MIT */
/* File systems without some operations: a document is not lost in its last
 * step, and an invalid partial file is never accepted. For disks that lose
 * power, see test_power.c. */
#include "faults.h"
#include "file/atomic_file.h"
#include "peer.h"

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
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
