/* SPDX-License-Identifier: MIT */
/* The directory of the notify socket that event loops connect to: it is removed
 * by its process, or by the next one if its process was killed. */
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* A process that has such a directory. */
typedef struct worker {
    pid_t pid;
    int end;  /* closed to let the process free everything and end */
    int held; /* its directory: while this is open, no other has the same id */
    char dir[64];
} worker;

/* Does not return. */
static void worker_run(int end, int tell)
{
    nymbl_engine *engine;
    nymbl_client *client;
    nymbl_transfer *transfer;
    nymbl_notify_socket notify;
    nymbl_client_options options = {.base_url = "http://127.0.0.1:9/",
                                    .api_key = "key-of-test",
                                    .allow_http = true};
    char byte;

    for (int fd = 3; fd < 256; fd++) { /* the descriptors of other workers */
        if (fd != end && fd != tell)
            close(fd);
    }
    /* nothing pumps: the transfer cannot have ended when it is checked */
    if (nymbl_engine_new(&engine, NULL, NULL) < 0 ||
        nymbl_client_new(&client, &options, NULL) < 0 ||
        nymbl_get_start(&transfer, engine, client, "tok", "7", "9", NULL) < 0 ||
        nymbl_transfer_notify_socket(transfer, &notify, NULL) != NYMBL_OK)
        _exit(1);
    *strrchr(notify.path, '/') = '\0';
    if (write(tell, notify.path, strlen(notify.path) + 1) < 0)
        _exit(1);
    while (read(end, &byte, 1) > 0)
        continue;
    nymbl_transfer_free(transfer);
    nymbl_client_free(client);
    nymbl_engine_free(engine);
    _exit(0);
}

static worker worker_start(void)
{
    worker worker = {0};
    int end[2], tell[2];
    ssize_t got;

    REQUIRE(pipe2(end, O_CLOEXEC) == 0 && pipe2(tell, O_CLOEXEC) == 0);
    fflush(stdout);
    worker.pid = fork();
    REQUIRE(worker.pid >= 0);
    if (worker.pid == 0) {
        close(end[1]);
        close(tell[0]);
        worker_run(end[0], tell[1]);
    }
    close(end[0]);
    close(tell[1]);
    got = read(tell[0], worker.dir, sizeof(worker.dir) - 1);
    REQUIRE(got > 0);
    close(tell[0]);
    worker.end = end[1];
    worker.held = open(worker.dir, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    REQUIRE(worker.held >= 0);
    return worker;
}

static void worker_end(worker *worker, bool by_kill)
{
    int status;

    if (by_kill)
        kill(worker->pid, SIGKILL);
    close(worker->end);
    CHECK(waitpid(worker->pid, &status, 0) == worker->pid);
    CHECK(by_kill ? WIFSIGNALED(status)
                  : WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Whether the directory of a worker exists and no process holds its lock. Those
 * of other tests have the same names. */
static bool is_left_behind(const worker *worker)
{
    struct stat made, found;
    int fd = open(worker->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool is_left;

    if (fd < 0)
        return false;
    REQUIRE(fstat(worker->held, &made) == 0 && fstat(fd, &found) == 0);
    is_left = made.st_dev == found.st_dev && made.st_ino == found.st_ino &&
              flock(fd, LOCK_EX | LOCK_NB) == 0;
    close(fd);
    return is_left;
}

static void check_stands(const worker *worker)
{
    struct stat status;
    char socket[80];

    snprintf(socket, sizeof(socket), "%s/notify", worker->dir);
    CHECK(lstat(worker->dir, &status) == 0 && S_ISDIR(status.st_mode));
    CHECK_NUMBER(status.st_mode & 07777, 0700);
    CHECK(status.st_uid == geteuid());
    CHECK(lstat(socket, &status) == 0 && S_ISSOCK(status.st_mode));
}

static void directory_is_removed_by_its_process(void)
{
    worker one = worker_start(), two = worker_start();

    CHECK(strcmp(one.dir, two.dir) != 0);
    check_stands(&one);
    check_stands(&two);
    worker_end(&one, false);
    CHECK(!is_left_behind(&one));
    check_stands(&two);
    worker_end(&two, false);
    CHECK(!is_left_behind(&two));
}

/* A cleaner has removed it, and another process has created one with the same
 * name. */
static void directory_of_another_process_stays(void)
{
    worker one = worker_start(), two;
    char socket[80];

    snprintf(socket, sizeof(socket), "%s/notify", one.dir);
    CHECK(unlink(socket) == 0 && rmdir(one.dir) == 0);
    two = worker_start();
    worker_end(&one, false);
    check_stands(&two);
    worker_end(&two, false);
    CHECK(!is_left_behind(&two));
}

static void directories_of_killed_processes_are_removed_by_the_next(void)
{
    worker killed[3], living = worker_start(), next;
    bool has_far_number = false; /* not swept, as other tests run, too */

    for (int i = 0; i < 3; i++)
        killed[i] = worker_start();
    for (int i = 0; i < 3; i++)
        worker_end(&killed[i], true);
    for (int i = 0; i < 3; i++)
        has_far_number |= atoi(strrchr(killed[i].dir, '-') + 1) >= 16;
    next = worker_start();
    check_stands(&next);
    check_stands(&living);
    for (int i = 0; i < 3 && !has_far_number; i++)
        CHECK(!is_left_behind(&killed[i]));
    worker_end(&next, false);
    CHECK(!is_left_behind(&next));
    check_stands(&living);
    worker_end(&living, false);
    if (has_far_number)
        test_skip("too many other processes have such directories");
}

/* Make something else where the next worker would have made its directory, in
 * one step. Other tests use the same names, so one of them may be faster. */
static void take_a_name(char *path, size_t size, int how)
{
    char other[] = "/tmp/nymbl-test-XXXXXX";
    bool is_taken = false;

    REQUIRE(mkdtemp(other) != NULL);
    if (how == 0) {
        REQUIRE(chown(other, 65534, 65534) == 0);
    } else if (how == 1) { /* our own, but open to others */
        REQUIRE(chmod(other, 0777) == 0);
    } else {
        REQUIRE(rmdir(other) == 0 && symlink("/root", other) == 0);
    }
    for (int i = 0; i < 100 && !is_taken; i++) {
        worker worker = worker_start();

        snprintf(path, size, "%s", worker.dir);
        worker_end(&worker, false);
        is_taken =
            renameat2(AT_FDCWD, other, AT_FDCWD, path, RENAME_NOREPLACE) == 0;
    }
    REQUIRE(is_taken);
}

static void directory_of_another_user_is_left_alone(void)
{
    if (geteuid() != 0) {
        test_skip("files of another user cannot be created here");
        return;
    }
    for (int how = 0; how < 3; how++) {
        struct worker other;
        char path[64];

        take_a_name(path, sizeof(path), how);
        other = worker_start();
        CHECK(strcmp(other.dir, path) != 0);
        check_stands(&other);
        worker_end(&other, false);
        CHECK(faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0);
        CHECK((how == 2 ? unlink(path) : rmdir(path)) == 0);
    }
}

static void umask_of_the_host_does_not_matter(void)
{
    mode_t mask = umask(0777);
    worker worker = worker_start();

    umask(mask);
    check_stands(&worker);
    worker_end(&worker, true);
    worker = worker_start();
    worker_end(&worker, false);
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(directory_is_removed_by_its_process),
        TEST(directory_of_another_process_stays),
        TEST(directories_of_killed_processes_are_removed_by_the_next),
        TEST(directory_of_another_user_is_left_alone),
        TEST(umask_of_the_host_does_not_matter),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
