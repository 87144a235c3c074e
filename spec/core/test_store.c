/* SPDX-License-Identifier: MIT */
/* A file that processes share: complete or empty, one writer at a time,
 * private. */
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

static const char *reason; /* of the last failure */
static nymbl_store_holder holder;

static nymbl_kind store_open(nymbl_store **out, const char *path)
{
    nymbl_error err = {0};
    nymbl_kind kind = nymbl_store_open(out, path, &holder, &err);

    CHECK((kind == NYMBL_OK) == (*out != NULL));
    CHECK(kind >= 0 || err.kind == kind);
    reason = err.reason;
    return kind;
}

static nymbl_kind store_put(nymbl_store *store, const char *content)
{
    nymbl_error err = {0};
    nymbl_kind kind = nymbl_store_write(store, content, strlen(content), &err);

    reason = err.reason;
    return kind;
}

static void check_content(const char *expected)
{
    nymbl_store *store;
    const char *content;
    size_t size;

    if (!CHECK(store_open(&store, world_path("store")) == NYMBL_OK))
        return;
    content = nymbl_store_content(store, &size);
    CHECK_TEXT(content == NULL ? "" : content, expected);
    CHECK_NUMBER(size, strlen(expected));
    nymbl_store_close(store);
}

static void put(const char *content)
{
    nymbl_store *store;

    REQUIRE(store_open(&store, world_path("store")) == NYMBL_OK);
    CHECK(store_put(store, content) == NYMBL_OK);
    nymbl_store_close(store);
}

static void check_refused(const char *name, const char *why)
{
    nymbl_store *store;

    CHECK(store_open(&store, world_path(name)) == NYMBL_IO);
    CHECK_TEXT(reason, why);
}

static void content_is_what_was_written_last(void)
{
    long objects;
    int fds;

    world_open(NULL);
    objects = nymbl_object_count();
    fds = fds_open();
    check_content("");
    put("a long content, which is longer than the next one");
    check_content("a long content, which is longer than the next one");
    put("short");
    check_content("short");
    put("");
    check_content("");
    CHECK_NUMBER(fds_open(), fds);
    CHECK_NUMBER(nymbl_object_count(), objects);
    nymbl_store_close(NULL);
    world_close();
}

static void mode_is_0600_whatever_the_umask(void)
{
    static const mode_t masks[] = {0, 022, 0177, 0777};

    for (size_t i = 0; i < 4; i++) {
        struct stat status;
        mode_t before;

        world_open(NULL);
        before = umask(masks[i]);
        put("x");
        CHECK(stat(world_path("store"), &status) == 0);
        CHECK_NUMBER(status.st_mode & 07777, 0600);
        umask(before);
        world_close();
    }
    world_open(NULL);
    put("x");
    CHECK(chmod(world_path("store"), 0644) == 0);
    check_content("x");
    {
        struct stat status;

        CHECK(stat(world_path("store"), &status) == 0);
        CHECK_NUMBER(status.st_mode & 07777, 0600);
    }
    world_close();
}

static void file_that_is_not_private_is_refused(void)
{
    world_open(NULL);
    CHECK(mkdir(world_path("dir"), 0700) == 0);
    check_refused("dir", "directory");
    CHECK(rmdir(world_path("dir")) == 0);
    check_refused("none/store", "not_found");
    CHECK(mkfifo(world_path("fifo"), 0600) == 0);
    check_refused("fifo", "not_a_file");
    CHECK(symlink("elsewhere", world_path("link")) == 0);
    check_refused("link", "symbolic_link");
    world_write("theirs", "x", 1);
    CHECK(link(world_path("theirs"), world_path("second")) == 0);
    check_refused("second", "hard_link");
    world_write("open", "x", 1);
    CHECK(chmod(world_path("open"), 0620) == 0);
    check_refused("open", "insecure_permissions");
    if (geteuid() == 0) {
        world_write("other", "x", 1);
        CHECK(chown(world_path("other"), 65534, 65534) == 0);
        check_refused("other", "wrong_owner");
    }
    world_close();
}

static void lock_has_one_holder(void)
{
    nymbl_store *first, *second;
    uint64_t fingerprint;
    pid_t child;
    int status;

    world_open(NULL);
    REQUIRE(store_open(&first, world_path("store")) == NYMBL_OK);
    CHECK(store_open(&second, world_path("store")) == NYMBL_AGAIN);
    fingerprint = holder.fingerprint;
    CHECK(store_open(&second, world_path("store")) == NYMBL_AGAIN);
    CHECK(holder.fingerprint == fingerprint);
    CHECK(holder.since > 1e9);
    CHECK(nymbl_store_open(&second, world_path("store"), NULL, NULL) ==
          NYMBL_AGAIN);
    nymbl_store_close(first);

    child = fork(); /* a killed process releases its lock */
    REQUIRE(child >= 0);
    if (child == 0) {
        nymbl_store_open(&first, world_path("store"), NULL, NULL);
        raise(SIGKILL);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    put("on");
    check_content("on");
    world_close();
}

static void stopped_holder_loses_its_lock(void)
{
    nymbl_store *stopped, *other;

    world_open(NULL);
    put("before");
    REQUIRE(store_open(&stopped, world_path("store")) == NYMBL_OK);
    CHECK(store_open(&other, world_path("store")) == NYMBL_AGAIN);
    CHECK(nymbl_store_break_lock(world_path("store"), holder.fingerprint + 1,
                                 NULL) == NYMBL_OK);
    CHECK(store_open(&other, world_path("store")) == NYMBL_AGAIN);
    CHECK(nymbl_store_break_lock(world_path("store"), holder.fingerprint,
                                 NULL) == NYMBL_OK);
    check_content("before");
    put("after");
    CHECK(store_put(stopped, "by the stopped one") == NYMBL_AGAIN);
    nymbl_store_close(stopped);
    check_content("after");
    CHECK_NUMBER(world_names(), 1);
    world_close();
}

static void released_lock_is_not_broken(void)
{
    nymbl_store *store, *other;
    struct stat before, after;

    world_open(NULL);
    REQUIRE(store_open(&store, world_path("store")) == NYMBL_OK);
    CHECK(store_open(&other, world_path("store")) == NYMBL_AGAIN);
    CHECK(stat(world_path("store"), &before) == 0);
    nymbl_store_close(store);
    CHECK(nymbl_store_break_lock(world_path("store"), holder.fingerprint,
                                 NULL) == NYMBL_OK);
    CHECK(stat(world_path("store"), &after) == 0);
    CHECK(before.st_ino == after.st_ino);
    CHECK_NUMBER(world_names(), 1);
    world_close();
}

static void interrupted_write_reads_as_empty(void)
{
    text whole, old;

    world_open(NULL);
    put("{\"old\":1,\"and\":\"longer than the new one is\"}");
    old = world_read("store");
    put("{\"new\":22}");
    whole = world_read("store");
    for (size_t cut = 0; cut < whole.size; cut++) {
        /* the new content's first bytes over the old ones, as after a kill */
        world_write("store", old.data, old.size);
        {
            int fd = open(world_path("store"), O_WRONLY);

            CHECK(pwrite(fd, whole.data, cut, 0) == (ssize_t)cut);
            close(fd);
        }
        /* up to the first difference it is still the old content */
        if (memcmp(old.data, whole.data, cut) != 0)
            check_content("");
        /* and as after a power cut that kept only the new size */
        world_write("store", whole.data, cut);
        check_content("");
    }
    /* all of it, before the file was truncated */
    world_write("store", old.data, old.size);
    {
        int fd = open(world_path("store"), O_WRONLY);

        CHECK(pwrite(fd, whole.data, whole.size, 0) == (ssize_t)whole.size);
        close(fd);
    }
    check_content("{\"new\":22}");
    for (size_t at = 0; at < whole.size; at++) { /* change one byte */
        whole.data[at] ^= 1;
        world_write("store", whole.data, whole.size);
        whole.data[at] ^= 1;
        check_content("");
    }
    text_free(&whole);
    text_free(&old);
    world_close();
}

static void content_has_a_limit(void)
{
    char *large = malloc(NYMBL_STORE_MAX + 1000);
    nymbl_store *store;
    size_t size;
    text before;

    REQUIRE(large != NULL);
    memset(large, 'x', NYMBL_STORE_MAX + 1000);
    world_open(NULL);
    put("before");
    before = world_read("store");
    REQUIRE(store_open(&store, world_path("store")) == NYMBL_OK);
    CHECK(nymbl_store_write(store, large, NYMBL_STORE_MAX + 1, NULL) ==
          NYMBL_TOO_LARGE);
    nymbl_store_close(store);
    check_content("before");
    REQUIRE(store_open(&store, world_path("store")) == NYMBL_OK);
    CHECK(nymbl_store_write(store, large, NYMBL_STORE_MAX, NULL) == NYMBL_OK);
    nymbl_store_close(store);
    REQUIRE(store_open(&store, world_path("store")) == NYMBL_OK);
    nymbl_store_content(store, &size);
    CHECK_NUMBER(size, NYMBL_STORE_MAX);
    nymbl_store_close(store);

    /* a file enlarged by others is not a store, nor is a stopped process's */
    memcpy(large, before.data, before.size);
    world_write("store", large, NYMBL_STORE_MAX + 1000);
    check_content("");
    {
        nymbl_store *other;

        REQUIRE(store_open(&store, world_path("store")) == NYMBL_OK);
        CHECK(store_open(&other, world_path("store")) == NYMBL_AGAIN);
        CHECK(nymbl_store_break_lock(world_path("store"), holder.fingerprint,
                                     NULL) == NYMBL_OK);
        check_content("");
        nymbl_store_close(store);
    }
    text_free(&before);
    free(large);
    world_close();
}

/* For world_try_in_child(), with mounts and limits of its own. */
static int full_disk_try(void)
{
    struct rlimit none = {0, 0};
    nymbl_store *store;

    if (unshare(CLONE_NEWNS) != 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", world.dir, "tmpfs", 0, "size=64k") != 0)
        return 2;
    put("old");
    {
        static char block[65536];
        int fd = open(world_path("fill"), O_WRONLY | O_CREAT, 0600);

        while (write(fd, block, sizeof(block)) > 0)
            continue;
        close(fd);
    }
    put("new"); /* over an existing content */
    REQUIRE(store_open(&store, world_path("store")) == NYMBL_OK);
    {
        static char large[8192];

        memset(large, 'x', sizeof(large) - 1);
        CHECK(store_put(store, large) == NYMBL_IO);
    }
    CHECK_TEXT(reason, "no_space");
    nymbl_store_close(store);
    check_content("new");
    CHECK(mount("tmpfs", world.dir, "tmpfs", MS_REMOUNT | MS_RDONLY, NULL) ==
          0);
    check_refused("store", "read_only");
    CHECK(mount("tmpfs", world.dir, "tmpfs", MS_REMOUNT, NULL) == 0);
    signal(SIGXFSZ, SIG_IGN);
    CHECK(setrlimit(RLIMIT_FSIZE, &none) == 0);
    REQUIRE(store_open(&store, world_path("store")) == NYMBL_OK);
    CHECK(store_put(store, "a longer one") == NYMBL_IO);
    CHECK_TEXT(reason, "file_too_big");
    nymbl_store_close(store);
    check_content("new");
    return 0;
}

static void full_disk_is_reported_and_loses_nothing(void)
{
    world_open(NULL);
    world_try_in_child(full_disk_try, "no tmpfs can be mounted here");
    world_close();
}

static void store_is_closed_on_exec(void)
{
    nymbl_store *store;
    int seen = 0;

    world_open(NULL);
    REQUIRE(store_open(&store, world_path("store")) == NYMBL_OK);
    for (int fd = 3; fd < 256; fd++) {
        int flags = fcntl(fd, F_GETFD);
        char link[64], path[256] = "";

        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        if (flags >= 0 && readlink(link, path, sizeof(path) - 1) > 0 &&
            strcmp(path, world_path("store")) == 0) {
            CHECK(flags & FD_CLOEXEC);
            seen++;
        }
    }
    CHECK_NUMBER(seen, 1);
    nymbl_store_close(store);
    world_close();
}

static void boot_clock_runs_and_has_an_id(void)
{
    char first[NYMBL_BOOT_ID_SIZE], second[NYMBL_BOOT_ID_SIZE];
    double then = nymbl_boot_clock(first), now = nymbl_boot_clock(second);

    CHECK(then > 0);
    CHECK(now >= then && now < then + 60);
    CHECK_TEXT(second, first);
    CHECK(first[0] == '\0' || strlen(first) == NYMBL_BOOT_ID_SIZE - 1);
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(content_is_what_was_written_last),
        TEST(mode_is_0600_whatever_the_umask),
        TEST(file_that_is_not_private_is_refused),
        TEST(lock_has_one_holder),
        TEST(stopped_holder_loses_its_lock),
        TEST(released_lock_is_not_broken),
        TEST(interrupted_write_reads_as_empty),
        TEST(content_has_a_limit),
        TEST(full_disk_is_reported_and_loses_nothing),
        TEST(store_is_closed_on_exec),
        TEST(boot_clock_runs_and_has_an_id),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
