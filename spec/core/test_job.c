/* SPDX-License-Identifier: MIT */
/* Jobs: their results, failures, and canceling, forking and freeing while they
 * run; without a thread and with one. */
#include "base/sha256.h"
#include "peer.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define BIG 8000000 /* bytes: more than 30 steps of a digest */

static const char *big_file(void)
{
    char *bytes = pattern(BIG);

    world_write("big", bytes, BIG);
    free(bytes);
    return world_path("big");
}

static nymbl_transfer *digest_start(const char *path)
{
    nymbl_transfer *transfer = NULL;

    REQUIRE(nymbl_digest_start(&transfer, world.engine, path, NULL) ==
            NYMBL_OK);
    return transfer;
}

static nymbl_transfer *sync_start(const char *path)
{
    nymbl_transfer *transfer = NULL;

    REQUIRE(nymbl_sync_start(&transfer, world.engine, path, NULL) == NYMBL_OK);
    return transfer;
}

static nymbl_transfer *directory_start(const char *path, size_t max)
{
    nymbl_transfer *transfer = NULL;

    REQUIRE(nymbl_directory_start(&transfer, world.engine, path, max, NULL) ==
            NYMBL_OK);
    return transfer;
}

/* Wait for the end; NULL or the reason of an io failure. Frees it. */
static const char *reason_of(nymbl_transfer *transfer)
{
    nymbl_error err = {0};
    nymbl_kind kind = ended(transfer, &err);

    CHECK(nymbl_transfer_is_ready(transfer));
    CHECK(nymbl_transfer_digest(transfer) == NULL || kind == NYMBL_OK);
    nymbl_transfer_free(transfer);
    if (kind == NYMBL_OK)
        return NULL;
    CHECK_NUMBER(kind, NYMBL_IO);
    CHECK_NUMBER(err.status, 0);
    CHECK(err.retry_after < 0 && !err.outcome_unknown);
    return err.reason;
}

/* ---- results ---- */

static void check_digest(const char *name, const void *data, size_t size)
{
    const nymbl_file_digest *digest;
    nymbl_transfer *transfer;
    nymbl__sha256 hash;
    char text[65];

    world_write(name, data, size);
    transfer = digest_start(world_path(name));
    CHECK(nymbl_transfer_digest(transfer) == NULL);
    CHECK_NUMBER(ended(transfer, NULL), NYMBL_OK);
    digest = nymbl_transfer_digest(transfer);
    REQUIRE(digest != NULL);
    nymbl__sha256_init(&hash);
    nymbl__sha256_add(&hash, data, size);
    nymbl__sha256_text(&hash, text);
    CHECK_TEXT(digest->sha256, text);
    CHECK_NUMBER(digest->size, (long long)size);
    nymbl_transfer_free(transfer);
}

static void digest_is_that_of_the_bytes(void)
{
    static const size_t sizes[] = {0,      1,      32767,  32768,
                                   262143, 262144, 262145, 1000000};
    char *bytes = pattern(1000000);

    world_open(NULL);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        check_digest("file", bytes, sizes[i]);
    world_close();
    free(bytes);
}

static void sync_flushes_files_and_directories(void)
{
    world_open(NULL);
    world_write("file", "x", 1);
    CHECK(reason_of(sync_start(world_path("file"))) == NULL);
    CHECK(reason_of(sync_start(world.dir)) == NULL);
    CHECK_TEXT(reason_of(sync_start(world_path("absent"))), "not_found");
    CHECK_TEXT(reason_of(sync_start("/dev/null")), "not_a_file");
    CHECK_TEXT(reason_of(sync_start("")), "not_found");
    world_close();
}

static void open_files_need_no_path(void)
{
    nymbl_transfer *transfer = NULL;
    const nymbl_file_digest *digest;
    nymbl_error err = {0};
    int fd, fds, dir;

    world_open(NULL);
    world_write("file", "abc", 3);
    fd = open(world_path("file"), O_RDWR | O_CLOEXEC);
    dir = open(world.dir, O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0 && dir >= 0);
    CHECK(lseek(fd, 2, SEEK_SET) == 2);
    CHECK(unlink(world_path("file")) == 0);
    fds = fds_open();
    REQUIRE(nymbl_digest_start_fd(&transfer, world.engine, fd, NULL) ==
            NYMBL_OK);
    CHECK_NUMBER(ended(transfer, NULL), NYMBL_OK);
    digest = nymbl_transfer_digest(transfer);
    REQUIRE(digest != NULL);
    CHECK_NUMBER(digest->size, 3);
    CHECK(strncmp(digest->sha256, "ba7816bf", 8) == 0);
    nymbl_transfer_free(transfer);
    for (int i = 0; i < 2; i++) {
        REQUIRE(nymbl_sync_start_fd(&transfer, world.engine, i == 0 ? fd : dir,
                                    NULL) == NYMBL_OK);
        CHECK(reason_of(transfer) == NULL);
    }
    /* freed before the first step */
    REQUIRE(nymbl_sync_start_fd(&transfer, world.engine, fd, NULL) == NYMBL_OK);
    nymbl_transfer_free(transfer);
    CHECK_NUMBER(fds_open(), fds);
    CHECK(lseek(fd, 0, SEEK_CUR) == 2);
    CHECK_NUMBER(nymbl_sync_start_fd(&transfer, world.engine, 9999, &err),
                 NYMBL_IO);
    CHECK(transfer == NULL);
    CHECK_NUMBER(nymbl_digest_start_fd(&transfer, NULL, fd, NULL),
                 NYMBL_MISUSE);
    close(fd);
    close(dir);
    world_close();
}

static void directory_tells_what_its_entries_are(void)
{
    nymbl_directory_entry entry;
    nymbl_transfer *transfer;
    struct stat status;
    int seen[4] = {0};

    world_open(NULL);
    world_write("file", "12345", 5);
    stat(world_path("file"), &status);
    CHECK(mkdir(world_path("dir"), 0700) == 0);
    CHECK(symlink("file", world_path("link")) == 0);
    CHECK(mkfifo(world_path("fifo"), 0600) == 0);
    transfer = directory_start(world.dir, 0);
    CHECK(!nymbl_transfer_next_entry(transfer, &entry));
    CHECK_NUMBER(ended(transfer, NULL), NYMBL_OK);
    while (nymbl_transfer_next_entry(transfer, &entry)) {
        static const char *const names[] = {"file", "dir", "link", "fifo"};

        seen[entry.kind]++;
        CHECK_TEXT(entry.name, names[entry.kind]);
        if (entry.kind == NYMBL_ENTRY_FILE) {
            CHECK_NUMBER(entry.size, 5);
            CHECK((int64_t)entry.modified == (int64_t)status.st_mtim.tv_sec);
        }
    }
    for (int i = 0; i < 4; i++)
        CHECK_NUMBER(seen[i], 1);
    CHECK(!nymbl_transfer_next_entry(transfer, &entry));
    CHECK(nymbl_transfer_digest(transfer) == NULL);
    nymbl_transfer_free(transfer);
    rmdir(world_path("dir"));
    world_close();
}

static void directory_of_thousands_is_read_up_to_a_maximum(void)
{
    nymbl_directory_entry entry;
    nymbl_transfer *transfer;
    long long total = 0, numbers = 0;
    int count = 0;

    world_open(NULL);
    for (int i = 0; i < 3000; i++) {
        char name[16];

        snprintf(name, sizeof(name), "%d", i);
        world_write(name, "", 0);
        numbers += i;
    }
    transfer = directory_start(world.dir, 3000);
    CHECK_NUMBER(ended(transfer, NULL), NYMBL_OK);
    for (; nymbl_transfer_next_entry(transfer, &entry); count++)
        total += atoi(entry.name);
    CHECK_NUMBER(count, 3000);
    CHECK_NUMBER(total, numbers);
    nymbl_transfer_free(transfer);
    CHECK_TEXT(reason_of(directory_start(world.dir, 2999)), "too_many_entries");
    CHECK_TEXT(reason_of(directory_start(world_path("1"), 0)),
               "not_a_directory");
    world_close();
}

/* ---- refused files, and misuse ---- */

static void only_regular_files_are_accepted(void)
{
    world_open(NULL);
    world_write("file", "x", 1);
    CHECK(symlink("file", world_path("link")) == 0);
    CHECK(mkfifo(world_path("fifo"), 0600) == 0);
    CHECK_TEXT(reason_of(digest_start(world_path("absent"))), "not_found");
    CHECK_TEXT(reason_of(digest_start(world.dir)), "directory");
    CHECK_TEXT(reason_of(digest_start(world_path("link"))), "too_many_links");
    CHECK_TEXT(reason_of(digest_start(world_path("fifo"))), "not_a_file");
    CHECK_TEXT(reason_of(sync_start(world_path("link"))), "too_many_links");
    CHECK_TEXT(reason_of(sync_start(world_path("fifo"))), "not_a_file");
    world_close();
}

static void misuse_starts_nothing(void)
{
    nymbl_transfer *transfer;
    nymbl_error err = {0};

    world_open(NULL);
    CHECK_NUMBER(nymbl_digest_start(&transfer, world.engine, NULL, &err),
                 NYMBL_MISUSE);
    CHECK_TEXT(err.reason, "path");
    CHECK(transfer == NULL);
    CHECK_NUMBER(nymbl_directory_start(&transfer, world.engine, "/",
                                       NYMBL_DIRECTORY_MAX + 1, &err),
                 NYMBL_MISUSE);
    CHECK_TEXT(err.reason, "max_entries");
    CHECK_NUMBER(nymbl_sync_start(&transfer, NULL, "/", &err), NYMBL_MISUSE);
    CHECK_TEXT(err.reason, "engine");
    world_close();
}

/* ---- steps ---- */

static void check_changed(void (*change)(int fd))
{
    nymbl_transfer *transfer;
    nymbl_error err = {0};
    int fd;

    world_open(NULL);
    transfer = digest_start(big_file());
    for (int i = 0; i < 4; i++)
        nymbl_engine_pump(world.engine, 0);
    CHECK_NUMBER(nymbl_transfer_result(transfer, &err), NYMBL_AGAIN);
    fd = open(world_path("big"), O_WRONLY);
    usleep(20000); /* file times are coarse */
    change(fd);
    close(fd);
    CHECK_TEXT(reason_of(transfer), "changed");
    world_close();
}

static void overwrite(int fd)
{
    CHECK(pwrite(fd, "?", 1, 0) == 1);
}

static void append(int fd)
{
    CHECK(pwrite(fd, "?", 1, BIG) == 1);
}

static void cut(int fd)
{
    CHECK(ftruncate(fd, BIG / 2) == 0);
}

static void file_that_changes_meanwhile_has_no_digest(void)
{
    check_changed(overwrite);
    check_changed(append);
    check_changed(cut);
}

/* Jobs take turns, and exchanges continue between their steps. */
static void nothing_waits_for_a_long_job(void)
{
    nymbl_transfer *first, *second, *third, *request;
    peer peer;

    world_open(NULL);
    first = digest_start(big_file());
    second = sync_start(world_path("big"));
    third = directory_start(world.dir, 0);
    for (int i = 0; i < 12; i++)
        nymbl_engine_pump(world.engine, 0);
    CHECK_NUMBER(nymbl_transfer_result(second, NULL), NYMBL_OK);
    CHECK_NUMBER(nymbl_transfer_result(third, NULL), NYMBL_OK);
    CHECK_NUMBER(nymbl_transfer_result(first, NULL), NYMBL_AGAIN);
    nymbl_transfer_free(first);
    first = digest_start(world_path("big"));
    request = start_get();
    for (int i = 0; i < 20 && !peer_waits(); i++)
        nymbl_engine_pump(world.engine, 0);
    CHECK(peer_waits());
    CHECK_NUMBER(nymbl_transfer_result(first, NULL), NYMBL_AGAIN);
    peer_accept(&peer);
    nymbl_transfer_free(request);
    nymbl_transfer_free(first);
    nymbl_transfer_free(second);
    nymbl_transfer_free(third);
    peer_close(&peer);
    world_close();
}

/* ---- the rules of transfers ---- */

static void canceled_job_ends_and_closes_its_file_at_once(void)
{
    nymbl_transfer *transfer;
    nymbl_error err = {0};

    world_open(NULL);
    transfer = digest_start(big_file());
    for (int i = 0; i < 3; i++)
        nymbl_engine_pump(world.engine, 0);
    CHECK_NUMBER(world_files(), 1);
    nymbl_transfer_cancel(transfer, NYMBL_TIMEOUT, "deadline");
    CHECK_NUMBER(world_files(), 0);
    CHECK_NUMBER(nymbl_transfer_result(transfer, &err), NYMBL_TIMEOUT);
    CHECK_TEXT(err.reason, "deadline");
    CHECK(nymbl_transfer_digest(transfer) == NULL);
    nymbl_transfer_free(transfer);
    transfer = digest_start(world_path("big")); /* before it was taken */
    nymbl_transfer_cancel(transfer, NYMBL_CANCELED, NULL);
    CHECK_NUMBER(nymbl_transfer_result(transfer, &err), NYMBL_CANCELED);
    nymbl_transfer_free(transfer);
    transfer = directory_start(world.dir, 0);
    for (int i = 0; i < 2; i++)
        nymbl_engine_pump(world.engine, 0);
    nymbl_transfer_free(transfer); /* cancels it, too */
    CHECK_NUMBER(nymbl_object_count(), 1);
    world_close();
}

static void closing_a_client_leaves_jobs_alone(void)
{
    nymbl_transfer *transfer;

    world_open(NULL);
    transfer = digest_start(big_file());
    nymbl_engine_pump(world.engine, 0);
    nymbl_client_close(world.client);
    CHECK_NUMBER(ended(transfer, NULL), NYMBL_OK);
    nymbl_transfer_free(transfer);
    world_close();
}

static void check_engine_freed(bool threaded)
{
    nymbl_transfer *running, *queued;
    nymbl_engine *engine;
    nymbl_error err = {0};

    world_open(NULL);
    big_file();
    REQUIRE(nymbl_engine_new(&engine, NULL, NULL) == NYMBL_OK);
    if (threaded)
        REQUIRE(nymbl_engine_start_thread(engine, NULL) == NYMBL_OK);
    CHECK(nymbl_digest_start(&running, engine, world_path("big"), NULL) ==
          NYMBL_OK);
    if (threaded)
        usleep(2000);
    else
        nymbl_engine_pump(engine, 0);
    CHECK(threaded || !nymbl_engine_is_idle(engine));
    CHECK(nymbl_digest_start(&queued, engine, world_path("big"), NULL) ==
          NYMBL_OK);
    nymbl_engine_free(engine);
    CHECK_NUMBER(world_files(), 0);
    if (nymbl_transfer_result(running, &err) < 0) /* otherwise it was faster */
        CHECK_TEXT(err.reason, "closed");
    else
        CHECK(threaded && nymbl_transfer_digest(running) != NULL);
    CHECK_NUMBER(nymbl_transfer_result(queued, &err), NYMBL_CANCELED);
    CHECK_TEXT(err.reason, "closed");
    nymbl_transfer_free(running);
    nymbl_transfer_free(queued);
    world_close();
}

static void freeing_the_engine_cancels_jobs(void)
{
    check_engine_freed(false);
    check_engine_freed(true);
}

static void check_forked(bool threaded)
{
    nymbl_transfer *transfer;
    int status;
    pid_t pid;

    world_open(NULL);
    if (threaded)
        REQUIRE(nymbl_engine_start_thread(world.engine, NULL) == NYMBL_OK);
    transfer = digest_start(big_file());
    if (!threaded)
        nymbl_engine_pump(world.engine, 0);
    fflush(stdout);
    pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        nymbl_error err = {0};
        nymbl_kind kind = nymbl_transfer_result(transfer, &err);
        /* it may have ended before the fork */
        bool good =
            (threaded && kind == NYMBL_OK) ||
            (kind == NYMBL_CANCELED && strcmp(err.reason, "forked") == 0);

        nymbl_transfer_free(transfer);
        nymbl_engine_free(world.engine);
        _exit(good ? 0 : 1);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK_NUMBER(ended(transfer, NULL), NYMBL_OK); /* in the parent */
    CHECK(nymbl_transfer_digest(transfer) != NULL);
    nymbl_transfer_free(transfer);
    world_close();
}

static void forked_child_leaves_jobs_to_its_parent(void)
{
    check_forked(false);
    check_forked(true);
}

static void watchdog_cancels_a_job_that_nobody_waits_for(void)
{
    nymbl_transfer *transfer;
    nymbl_error err = {0};

    world_open(NULL);
    world.fake = true;
    transfer = digest_start(big_file());
    nymbl_transfer_set_watchdog(transfer, world.now + 1);
    nymbl_transfer_wake_at(transfer, world.now + 1);
    nymbl_engine_pump(world.engine, 0);
    CHECK(!nymbl_transfer_is_ready(transfer));
    world.now += 1.5;
    nymbl_engine_pump(world.engine, 0);
    CHECK(nymbl_transfer_is_ready(transfer));
    CHECK_NUMBER(nymbl_transfer_result(transfer, &err), NYMBL_AGAIN);
    CHECK(!nymbl_transfer_is_ready(transfer));
    world.now += 1.5;
    nymbl_engine_pump(world.engine, 0);
    CHECK_NUMBER(nymbl_transfer_result(transfer, &err), NYMBL_CANCELED);
    nymbl_transfer_free(transfer);
    world_close();
}

/* ---- with a thread ---- */

static bool is_readable(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};

    return poll(&one, 1, 20000) == 1;
}

static void notify_socket_tells_of_the_end(void)
{
    nymbl_transfer *transfer;
    char byte;
    int fd = -1;

    world_open(NULL);
    transfer = digest_start(big_file());
    REQUIRE(nymbl_transfer_notify_fd(transfer, &fd, NULL) == NYMBL_OK);
    CHECK_NUMBER(nymbl_transfer_result(transfer, NULL), NYMBL_AGAIN);
    /* from here on it may end at any time */
    REQUIRE(nymbl_engine_start_thread(world.engine, NULL) == NYMBL_OK);
    CHECK(is_readable(fd));
    CHECK(recv(fd, &byte, 1, 0) == 1);
    CHECK_NUMBER(nymbl_transfer_result(transfer, NULL), NYMBL_OK);
    close(fd);
    nymbl_transfer_free(transfer);
    world_close();
}

static void closed_notify_socket_cancels_a_job(void)
{
    nymbl_transfer *transfers[8];
    nymbl_error err = {0};
    int fd, canceled = 0;

    world_open(NULL);
    REQUIRE(nymbl_engine_start_thread(world.engine, NULL) == NYMBL_OK);
    big_file();
    for (int i = 0; i < 8; i++)
        transfers[i] = digest_start(world_path("big"));
    /* the last one has as many steps before it as all others together */
    if (nymbl_transfer_notify_fd(transfers[7], &fd, NULL) == NYMBL_OK)
        close(fd);
    for (int i = 0; i < 8; i++) {
        nymbl_kind kind = ended(transfers[i], &err);

        CHECK(kind == NYMBL_OK || (i == 7 && kind == NYMBL_CANCELED));
        canceled += kind == NYMBL_CANCELED;
        nymbl_transfer_free(transfers[i]);
    }
    CHECK_NUMBER(canceled, 1);
    world_close();
}

static void many_jobs_of_a_thread_end_or_are_canceled(void)
{
    nymbl_transfer *transfers[60];

    world_open(NULL);
    REQUIRE(nymbl_engine_start_thread(world.engine, NULL) == NYMBL_OK);
    big_file();
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 60; i++)
            transfers[i] = i % 3 == 0   ? digest_start(world_path("big"))
                           : i % 3 == 1 ? sync_start(world_path("big"))
                                        : directory_start(world.dir, 0);
        for (int i = 0; i < 60; i++) {
            nymbl_directory_entry entry;

            if (i % 3 == 0 || i % 7 == 0) { /* freed while it runs */
                nymbl_transfer_free(transfers[i]);
                continue;
            }
            CHECK_NUMBER(ended(transfers[i], NULL), NYMBL_OK);
            if (i % 3 == 2) {
                CHECK(nymbl_transfer_next_entry(transfers[i], &entry));
                CHECK_TEXT(entry.name, "big");
            }
            nymbl_transfer_free(transfers[i]);
        }
    }
    world_close();
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(digest_is_that_of_the_bytes),
        TEST(sync_flushes_files_and_directories),
        TEST(open_files_need_no_path),
        TEST(directory_tells_what_its_entries_are),
        TEST(directory_of_thousands_is_read_up_to_a_maximum),
        TEST(only_regular_files_are_accepted),
        TEST(misuse_starts_nothing),
        TEST(file_that_changes_meanwhile_has_no_digest),
        TEST(nothing_waits_for_a_long_job),
        TEST(canceled_job_ends_and_closes_its_file_at_once),
        TEST(closing_a_client_leaves_jobs_alone),
        TEST(freeing_the_engine_cancels_jobs),
        TEST(forked_child_leaves_jobs_to_its_parent),
        TEST(watchdog_cancels_a_job_that_nobody_waits_for),
        TEST(notify_socket_tells_of_the_end),
        TEST(closed_notify_socket_cancels_a_job),
        TEST(many_jobs_of_a_thread_end_or_are_canceled),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
