/* SPDX-License-Identifier: MIT */
/* A file appears under its name complete, or not at all. */
#include "file/atomic_file.h"
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

static const char *reason; /* of the last failure */

static nymbl__atomic_file *save_open(const char *path, bool overwrite)
{
    nymbl__atomic_file *save;
    nymbl_error err = {0};

    reason = NULL;
    if (nymbl__atomic_file_open(&save, path, 0, overwrite, NULL, &err) < 0) {
        CHECK(save == NULL);
        CHECK(err.kind == NYMBL_IO);
        reason = err.reason;
    }
    return save;
}

static nymbl_kind save_whole(const char *path, bool overwrite,
                             const char *bytes)
{
    nymbl__atomic_file *save = save_open(path, overwrite);

    if (save == NULL)
        return NYMBL_IO;
    CHECK(nymbl__atomic_file_write(save, bytes, strlen(bytes), &reason) ==
          NYMBL_OK);
    return nymbl__atomic_file_commit(save, &reason);
}

static void check_holds(const char *name, const char *bytes)
{
    text got = world_read(name);

    CHECK_TEXT(got.data, bytes);
    text_free(&got);
}

static void write_text(const char *name, const char *bytes)
{
    world_write(name, bytes, strlen(bytes));
}

static void discarding_leaves_the_target_unchanged(void)
{
    nymbl__atomic_file *save;
    int fds;

    world_open(NULL);
    write_text("doc", "old");
    fds = fds_open();
    save = save_open(world_path("doc"), true);
    CHECK_NUMBER(fds_open(), fds + 2); /* of the file and its directory */
    CHECK(nymbl__atomic_file_write(save, "new", 3, &reason) == NYMBL_OK);
    CHECK_NUMBER(world_files(), 1);
    check_holds("doc", "old");
    nymbl__atomic_file_discard(save);
    check_holds("doc", "old");
    CHECK_NUMBER(world_names(), 1);
    CHECK_NUMBER(fds_open(), fds);
    save = save_open(world_path("none"), true);
    nymbl__atomic_file_discard(save);
    nymbl__atomic_file_discard(NULL);
    CHECK_NUMBER(world_names(), 1);
    world_close();
}

static void committing_replaces_the_target(void)
{
    struct stat before, after;
    int fds;

    world_open(NULL);
    write_text("doc", "old");
    fds = fds_open();
    CHECK(stat(world_path("doc"), &before) == 0);
    CHECK(save_whole(world_path("doc"), true, "new") == NYMBL_OK);
    check_holds("doc", "new");
    CHECK(stat(world_path("doc"), &after) == 0);
    CHECK(before.st_ino != after.st_ino);
    CHECK_NUMBER(world_names(), 1);
    CHECK_NUMBER(fds_open(), fds);
    CHECK(save_whole(world_path("doc"), true, "") == NYMBL_OK);
    check_holds("doc", "");
    world_close();
}

static void name_in_a_directory_is_no_path(void)
{
    static const char *const names[] = {"",    ".",    "..",   "/x",
                                        "a/b", "doc/", "link", ".nymbl-tmp-00"};
    nymbl__atomic_file *save;
    nymbl_error err;
    int dir;

    world_open(NULL);
    write_text("other", "old");
    CHECK(symlink("other", world_path("link")) == 0);
    dir = open(world.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    REQUIRE(dir >= 0);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        CHECK_NUMBER(nymbl__atomic_file_open_at(&save, dir, names[i], 0, true,
                                                NULL, &err),
                     NYMBL_IO);
    for (int i = 0; i < 2; i++) { /* created, then replaced */
        REQUIRE(nymbl__atomic_file_open_at(&save, dir, "doc", 0, true, NULL,
                                           NULL) == NYMBL_OK);
        CHECK(nymbl__atomic_file_write(save, "new", 3, &reason) == NYMBL_OK);
        CHECK(nymbl__atomic_file_commit(save, &reason) == NYMBL_OK);
        check_holds("doc", "new");
    }
    CHECK_NUMBER(
        nymbl__atomic_file_open_at(&save, dir, "doc", 0, false, NULL, &err),
        NYMBL_IO);
    CHECK_TEXT(err.reason, "exists");
    check_holds("other", "old");
    write_text(".nymbl-tmp-03", "half");
    nymbl_remove_leftovers(dir);
    CHECK_NUMBER(world_names(), 3);
    close(dir);
    world_close();
}

static void mode_is_as_requested_whatever_the_umask(void)
{
    static const unsigned modes[] = {0, 0600, 0644, 0666, 0400};
    mode_t mask = umask(077);

    world_open(NULL);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        struct stat status;
        nymbl__atomic_file *save;

        REQUIRE(nymbl__atomic_file_open(&save, world_path("doc"), modes[i],
                                        true, NULL, NULL) == NYMBL_OK);
        CHECK(nymbl__atomic_file_commit(save, &reason) == NYMBL_OK);
        CHECK(stat(world_path("doc"), &status) == 0);
        CHECK_NUMBER(status.st_mode & 07777, modes[i] == 0 ? 0600 : modes[i]);
    }
    umask(mask);
    world_close();
}

static void relative_path_is_in_the_current_directory(void)
{
    int home = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    world_open(NULL);
    REQUIRE(chdir(world.dir) == 0);
    CHECK(save_whole("doc", true, "new") == NYMBL_OK);
    CHECK(save_whole("./doc2", true, "new2") == NYMBL_OK);
    REQUIRE(fchdir(home) == 0);
    check_holds("doc", "new");
    check_holds("doc2", "new2");
    world_close();
    close(home);
}

/* A process has one current directory, which other code may change. */
static void relative_path_is_resolved_at_the_start(void)
{
    static const char *const paths[] = {"doc", "./doc", "sub/doc", "sub/../doc",
                                        "../%s/doc"};
    int home = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    nymbl__atomic_file *save;
    int fds;

    world_open(NULL);
    CHECK(mkdir(world_path("sub"), 0700) == 0);
    CHECK(mkdir(world_path("other"), 0700) == 0);
    fds = fds_open();
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        char path[128];

        snprintf(path, sizeof(path), paths[i], strrchr(world.dir, '/') + 1);
        REQUIRE(chdir(world.dir) == 0);
        save = save_open(path, true);
        CHECK(nymbl__atomic_file_write(save, "new", 3, &reason) == NYMBL_OK);
        REQUIRE(chdir(i % 2 == 0 ? world_path("other") : "/") == 0);
        CHECK(nymbl__atomic_file_commit(save, &reason) == NYMBL_OK);
        check_holds(i == 2 ? "sub/doc" : "doc", "new");
        CHECK(unlink(world_path(i == 2 ? "sub/doc" : "doc")) == 0);
        CHECK(rmdir(world_path("other")) == 0); /* it is empty */
        CHECK(mkdir(world_path("other"), 0700) == 0);
        CHECK_NUMBER(fds_open(), fds);
    }
    /* the path also follows a directory that is moved */
    REQUIRE(chdir(world.dir) == 0);
    save = save_open("sub/doc", true);
    CHECK(nymbl__atomic_file_write(save, "new", 3, &reason) == NYMBL_OK);
    REQUIRE(chdir("/") == 0);
    CHECK(rename(world_path("sub"), world_path("gone")) == 0);
    CHECK(nymbl__atomic_file_commit(save, &reason) == NYMBL_IO);
    CHECK_TEXT(reason, "not_found");
    CHECK(rmdir(world_path("gone")) == 0);
    CHECK(rmdir(world_path("other")) == 0);
    CHECK_NUMBER(fds_open(), fds);
    REQUIRE(fchdir(home) == 0);
    world_close();
    close(home);
}

static void existing_file_is_kept_if_requested(void)
{
    nymbl__atomic_file *save;

    world_open(NULL);
    write_text("doc", "old");
    CHECK(save_open(world_path("doc"), false) == NULL);
    CHECK_TEXT(reason, "exists");
    CHECK(save_whole(world_path("new"), false, "new") == NYMBL_OK);
    check_holds("new", "new");
    save = save_open(world_path("late"), false);
    CHECK(nymbl__atomic_file_write(save, "ours", 4, &reason) == NYMBL_OK);
    write_text("late", "theirs"); /* it appears during the download */
    CHECK(nymbl__atomic_file_commit(save, &reason) == NYMBL_IO);
    CHECK_TEXT(reason, "exists");
    check_holds("late", "theirs");
    save = save_open(world_path("link"), false);
    CHECK(symlink("doc", world_path("link")) == 0);
    CHECK(nymbl__atomic_file_commit(save, &reason) == NYMBL_IO);
    CHECK_TEXT(reason, "exists");
    check_holds("doc", "old");
    CHECK(save_open(world_path("link"), false) == NULL);
    CHECK_TEXT(reason, "exists");
    CHECK_NUMBER(world_names(), 4);
    world_close();
}

static void links_are_followed(void)
{
    struct stat status;

    world_open(NULL);
    write_text("doc", "old");
    CHECK(symlink("doc", world_path("relative")) == 0);
    CHECK(symlink(world_path("doc"), world_path("absolute")) == 0);
    CHECK(symlink("relative", world_path("second")) == 0);
    CHECK(symlink("none", world_path("dangling")) == 0);
    CHECK(save_whole(world_path("relative"), true, "1") == NYMBL_OK);
    check_holds("doc", "1");
    CHECK(save_whole(world_path("absolute"), true, "2") == NYMBL_OK);
    check_holds("doc", "2");
    CHECK(save_whole(world_path("second"), true, "3") == NYMBL_OK);
    check_holds("doc", "3");
    CHECK(save_whole(world_path("dangling"), true, "4") == NYMBL_OK);
    check_holds("none", "4");
    CHECK(lstat(world_path("second"), &status) == 0);
    CHECK(S_ISLNK(status.st_mode));
    CHECK(lstat(world_path("dangling"), &status) == 0);
    CHECK(S_ISLNK(status.st_mode));
    CHECK_NUMBER(world_names(), 6);
    world_close();
}

/* The temporary file must be beside the target, not beside the link. */
static void link_into_another_directory_is_followed(void)
{
    world_open(NULL);
    CHECK(mkdir(world_path("sub"), 0700) == 0);
    CHECK(symlink("sub/doc", world_path("link")) == 0);
    CHECK(symlink("../deep", world_path("sub/up")) == 0);
    CHECK(symlink("sub/up", world_path("down")) == 0);
    CHECK(save_whole(world_path("link"), true, "1") == NYMBL_OK);
    check_holds("sub/doc", "1");
    CHECK(save_whole(world_path("down"), true, "2") == NYMBL_OK);
    check_holds("deep", "2");
    CHECK(unlink(world_path("sub/doc")) == 0);
    CHECK(unlink(world_path("sub/up")) == 0);
    CHECK(rmdir(world_path("sub")) == 0);
    world_close();
}

static void loops_of_links_are_refused(void)
{
    world_open(NULL);
    CHECK(symlink("b", world_path("a")) == 0);
    CHECK(symlink("a", world_path("b")) == 0);
    CHECK(symlink("self", world_path("self")) == 0);
    CHECK(save_open(world_path("a"), true) == NULL);
    CHECK_TEXT(reason, "too_many_links");
    CHECK(save_open(world_path("self"), true) == NULL);
    CHECK_TEXT(reason, "too_many_links");
    world_close();
}

static void check_refused(const char *path, const char *expected)
{
    CHECK(save_open(path, true) == NULL);
    if (!CHECK_TEXT(reason, expected))
        printf("for: %s\n", path);
}

static void targets_that_are_not_files_are_refused(void)
{
    char endless[5000];

    world_open(NULL);
    CHECK(mkfifo(world_path("fifo"), 0600) == 0);
    CHECK(symlink(world.dir, world_path("to_dir")) == 0);
    write_text("doc", "old");
    check_refused("", "not_found");
    check_refused("/", "directory");
    check_refused(".", "directory");
    check_refused(world.dir, "directory");
    check_refused(world_path("to_dir"), "directory");
    check_refused(world_path("new/"), "directory");
    check_refused(world_path("doc/"), "not_a_directory");
    check_refused(world_path("doc/x"), "not_a_directory");
    check_refused(world_path("none/x"), "not_found");
    check_refused(world_path("fifo"), "not_a_file");
    check_refused("/dev/null", "not_a_file");
    memset(endless, 'a', sizeof(endless));
    endless[0] = '/';
    endless[sizeof(endless) - 1] = '\0';
    check_refused(endless, "name_too_long");
    CHECK_NUMBER(world_names(), 3);
    CHECK(rmdir(world_path("to_dir")) != 0);
    world_close();
}

/* Names of descriptors lead to unintended files: the shell's redirection,
 * another program's log. */
static void descriptor_paths_are_refused(void)
{
    char own[64], task[64];
    int fd;

    world_open(NULL);
    write_text("log", "of a shell");
    fd = open(world_path("log"), O_RDWR | O_CLOEXEC);
    REQUIRE(fd >= 0 && dup2(fd, 200) == 200);
    snprintf(own, sizeof(own), "/proc/%d/fd/200", (int)getpid());
    snprintf(task, sizeof(task), "/proc/self/task/%d/fd/200", (int)getpid());
    CHECK(symlink("/dev/stdout", world_path("to_stdout")) == 0);
    CHECK(symlink("/dev/fd/200", world_path("to_fd")) == 0);
    CHECK(symlink("/proc/self/fd", world_path("to_fds")) == 0);
    CHECK(symlink("to_fd", world_path("to_link")) == 0);
    check_refused("/dev/stdout", "not_a_file");
    check_refused("/dev/stderr", "not_a_file");
    check_refused("/dev/stdin", "not_a_file");
    check_refused("/dev/fd/200", "not_a_file");
    check_refused("/dev/fd/999", "not_a_file");
    check_refused("//dev/./fd//200", "not_a_file");
    check_refused("/dev/../dev/fd/200", "not_a_file");
    check_refused("/proc/self/fd/200", "not_a_file");
    check_refused("/proc/thread-self/fd/200", "not_a_file");
    check_refused(own, "not_a_file");
    check_refused(task, "not_a_file");
    check_refused("/proc/self/cwd/new", "not_a_file");
    check_refused("/proc/self/root/tmp/new", "not_a_file");
    check_refused("/proc/self/exe", "not_a_file");
    check_refused("/proc/version", "not_a_file");
    check_refused("/proc/new", "not_a_file");
    check_refused(world_path("to_stdout"), "not_a_file");
    check_refused(world_path("to_fd"), "not_a_file");
    check_refused(world_path("to_link"), "not_a_file");
    check_refused(world_path("to_fds/200"), "not_a_file");
    CHECK(save_open("/sys/kernel/new", true) == NULL);
    check_holds("log", "of a shell");
    close(fd);
    close(200);
    CHECK_NUMBER(world_names(), 5);
    world_close();
}

/* Like Linux with fs.protected_symlinks, see proc_sys_fs(5). */
static void links_of_other_users_in_shared_directories_are_refused(void)
{
    char dir[64], path[128];

    if (geteuid() != 0) {
        test_skip("files of another user cannot be created here");
        return;
    }
    world_open(NULL);
    CHECK(mkdir(world_path("shared"), 0700) == 0);
    CHECK(mkdir(world_path("mine"), 0700) == 0);
    snprintf(dir, sizeof(dir), "%s", world_path("shared"));
    for (int links = 0; links < 3; links++) {
        /* the file itself, a directory in the path, one behind another link */
        static const char *const to[] = {"../mine/doc", "../mine", "../mine"};
        static const char *const names[] = {"shared/link", "shared/link/doc",
                                            "second/doc"};

        CHECK(symlink(to[links], world_path("shared/link")) == 0);
        if (links == 2)
            CHECK(symlink("shared/link", world_path("second")) == 0);
        snprintf(path, sizeof(path), "%s", world_path(names[links]));
        for (int owner = 0; owner < 3;
             owner++) { /* we, others, the directory's */
            uid_t of_link = owner == 0 ? 0 : 65534;
            uid_t of_dir = owner == 2 ? 65534 : 1;

            CHECK(lchown(world_path("shared/link"), of_link, 0) == 0);
            CHECK(chown(dir, of_dir, 0) == 0);
            for (int mode = 0; mode < 3; mode++) {
                static const mode_t modes[] = {01777, 0777, 01775};

                CHECK(chmod(dir, modes[mode]) == 0);
                if (owner == 1 && mode == 0) {
                    check_refused(path, "permission");
                    CHECK(access(world_path("mine/doc"), F_OK) != 0);
                } else {
                    CHECK(save_whole(path, true, "new") == NYMBL_OK);
                    check_holds("mine/doc", "new");
                    CHECK(unlink(world_path("mine/doc")) == 0);
                }
            }
        }
        CHECK(unlink(world_path("shared/link")) == 0);
    }
    CHECK(rmdir(world_path("shared")) == 0);
    CHECK(rmdir(world_path("mine")) == 0);
    world_close();
}

/* For world_try_in_child(), with mounts of its own. */
static int mount_point_try(void)
{
    if (unshare(CLONE_NEWNS) != 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount(world_path("a"), world_path("b"), NULL, MS_BIND, NULL) != 0)
        return 2;
    check_refused(world_path("b"), "mount_point");
    CHECK(save_whole(world_path("a"), true, "new") == NYMBL_OK);
    return 0;
}

/* rename() cannot replace it, which would be noticed only at the end. */
static void mounted_file_is_refused(void)
{
    world_open(NULL);
    write_text("a", "old");
    write_text("b", "old");
    world_try_in_child(mount_point_try, "nothing can be mounted here");
    world_close();
}

static void files_of_other_users_in_shared_directories_are_refused(void)
{
    if (geteuid() != 0) {
        test_skip("files of another user cannot be created here");
        return;
    }
    world_open(NULL);
    write_text("doc", "theirs");
    CHECK(chmod(world.dir, 01777) == 0);
    CHECK(seteuid(65534) == 0);
    check_refused(world_path("doc"), "permission");
    CHECK(save_whole(world_path("new"), true, "mine") == NYMBL_OK);
    CHECK(save_whole(world_path("new"), true, "mine again") == NYMBL_OK);
    CHECK(seteuid(0) == 0);
    check_holds("doc", "theirs");
    world_close();
}

/* Code that prints to a hard-coded descriptor number may write to a download's
 * file. */
static void file_with_bytes_of_others_is_not_renamed(void)
{
    nymbl__atomic_file *save;

    world_open(NULL);
    write_text("doc", "old");
    for (int how = 0; how < 3; how++) {
        int file = -1;

        save = save_open(world_path("doc"), true);
        CHECK(nymbl__atomic_file_write(save, "new", 3, &reason) == NYMBL_OK);
        for (int fd = 3; fd < 256 && file < 0; fd++) {
            struct stat status;

            if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
                status.st_size == 3 && status.st_nlink < 2 &&
                status.st_uid == geteuid() && (status.st_mode & 077) == 0)
                file = fd;
        }
        REQUIRE(file >= 0);
        if (how == 0)
            CHECK(write(file, "error: ", 7) == 7);
        else if (how == 1)
            CHECK(ftruncate(file, 2) == 0);
        else
            CHECK(pwrite(file, "x", 1, 9) == 1);
        CHECK(nymbl__atomic_file_commit(save, &reason) == NYMBL_IO);
        CHECK_TEXT(reason, "changed");
        check_holds("doc", "old");
        CHECK_NUMBER(world_names(), 1);
    }
    world_close();
}

/* 0 good, 1 bad. */
static int low_descriptors_try(void)
{
    nymbl_body *body;
    nymbl__atomic_file *save;
    nymbl_store *store;

    for (int fd = 0; fd < 3; fd++)
        close(fd);
    save = save_open(world_path("doc"), true);
    if (nymbl_body_from_path(&body, world_path("up"), NULL) < 0 ||
        nymbl_store_open(&store, world_path("store"), NULL, NULL) < 0)
        return 1;
    for (int fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) >= 0)
            return 1;
    }
    nymbl_store_close(store);
    nymbl_body_free(body);
    return nymbl__atomic_file_write(save, "new", 3, &reason) == NYMBL_OK &&
                   nymbl__atomic_file_commit(save, &reason) == NYMBL_OK
               ? 0
               : 1;
}

static void files_are_not_standard_descriptors(void)
{
    int status;
    pid_t child;

    world_open(NULL);
    write_text("up", "x");
    fflush(stdout);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0)
        _exit(low_descriptors_try());
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    check_holds("doc", "new");
    world_close();
}

static void target_that_becomes_a_directory_is_refused(void)
{
    nymbl__atomic_file *save;

    world_open(NULL);
    save = save_open(world_path("doc"), true);
    CHECK(mkdir(world_path("doc"), 0700) == 0);
    CHECK(nymbl__atomic_file_commit(save, &reason) == NYMBL_IO);
    CHECK_TEXT(reason, "directory");
    CHECK_NUMBER(world_names(), 1);
    CHECK(rmdir(world_path("doc")) == 0);
    world_close();
}

static void moved_directory_receives_no_file(void)
{
    nymbl__atomic_file *save;

    world_open(NULL);
    for (int how = 0; how < 2; how++) {
        CHECK(mkdir(world_path("sub"), 0700) == 0);
        save = save_open(world_path("sub/doc"), true);
        CHECK(nymbl__atomic_file_write(save, "new", 3, &reason) == NYMBL_OK);
        CHECK(rename(world_path("sub"), world_path("gone")) == 0);
        if (how == 1) /* another one has its name */
            CHECK(mkdir(world_path("sub"), 0700) == 0);
        CHECK(nymbl__atomic_file_commit(save, &reason) == NYMBL_IO);
        CHECK_TEXT(reason, "not_found");
        CHECK(rmdir(world_path("gone")) == 0); /* it is empty */
        if (how == 1)
            CHECK(rmdir(world_path("sub")) == 0);
    }
    world_close();
}

static void unwritable_directory_is_reported(void)
{
    bool root = geteuid() == 0;

    world_open(NULL);
    CHECK(chmod(world.dir, 0500) == 0);
    if (root) /* root may write everywhere */
        CHECK(chown(world.dir, 65534, 65534) == 0 && seteuid(65534) == 0);
    CHECK(save_open(world_path("doc"), true) == NULL);
    CHECK_TEXT(reason, "permission");
    if (root)
        CHECK(seteuid(0) == 0);
    CHECK(chmod(world.dir, 0700) == 0);
    world_close();
}

/* For world_try_in_child(), with mounts of its own. */
static int full_disk_try(void)
{
    static char block[65536];
    nymbl__atomic_file *save;
    nymbl_kind kind = NYMBL_OK;

    if (unshare(CLONE_NEWNS) != 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", world.dir, "tmpfs", 0, "size=128k") != 0)
        return 2;
    write_text("doc", "old");
    save = save_open(world_path("doc"), true);
    if (save == NULL)
        return 1;
    for (int i = 0; i < 10 && kind == NYMBL_OK; i++)
        kind = nymbl__atomic_file_write(save, block, sizeof(block), &reason);
    CHECK(kind == NYMBL_IO);
    CHECK_TEXT(reason, "no_space");
    nymbl__atomic_file_discard(save);
    check_holds("doc", "old");
    CHECK_NUMBER(world_names(), 1);
    CHECK(mount("tmpfs", world.dir, "tmpfs", MS_REMOUNT | MS_RDONLY, NULL) ==
          0);
    CHECK(save_open(world_path("doc"), true) == NULL);
    CHECK_TEXT(reason, "read_only");
    return 0;
}

static void full_disk_is_reported(void)
{
    int before = fds_open();

    world_open(NULL);
    world_try_in_child(full_disk_try, "no tmpfs can be mounted here");
    world_close();
    CHECK_NUMBER(fds_open(), before);
}

static void files_are_closed_on_exec(void)
{
    nymbl__atomic_file *save;
    nymbl_body *body;

    world_open(NULL);
    write_text("up", "x");
    save = save_open(world_path("doc"), true);
    REQUIRE(nymbl_body_from_path(&body, world_path("up"), NULL) == NYMBL_OK);
    for (int fd = 3; fd < 256; fd++) {
        int flags = fcntl(fd, F_GETFD);
        char link[64], path[256] = "";

        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        if (flags >= 0 && readlink(link, path, sizeof(path) - 1) > 0 &&
            strncmp(path, world.dir, strlen(world.dir)) == 0)
            CHECK(flags & FD_CLOEXEC);
    }
    nymbl_body_free(body);
    nymbl__atomic_file_discard(save);
    world_close();
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(discarding_leaves_the_target_unchanged),
        TEST(committing_replaces_the_target),
        TEST(name_in_a_directory_is_no_path),
        TEST(mode_is_as_requested_whatever_the_umask),
        TEST(relative_path_is_in_the_current_directory),
        TEST(relative_path_is_resolved_at_the_start),
        TEST(existing_file_is_kept_if_requested),
        TEST(links_are_followed),
        TEST(link_into_another_directory_is_followed),
        TEST(loops_of_links_are_refused),
        TEST(targets_that_are_not_files_are_refused),
        TEST(descriptor_paths_are_refused),
        TEST(links_of_other_users_in_shared_directories_are_refused),
        TEST(mounted_file_is_refused),
        TEST(files_of_other_users_in_shared_directories_are_refused),
        TEST(file_with_bytes_of_others_is_not_renamed),
        TEST(files_are_not_standard_descriptors),
        TEST(target_that_becomes_a_directory_is_refused),
        TEST(moved_directory_receives_no_file),
        TEST(unwritable_directory_is_reported),
        TEST(full_disk_is_reported),
        TEST(files_are_closed_on_exec),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
