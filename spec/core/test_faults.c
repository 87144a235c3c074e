/* SPDX-License-Identifier: MIT */
/* A download is killed at each of its system calls, libcurl's too, or one of
 * them fails, or all from there on: afterwards the file is complete or
 * unchanged, and another download into that directory removes every leftover
 * file. With NYMBL_TEST_THREAD the engine has a thread. */
#include "faults.h"
#include "file/atomic_file.h"
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define SIZE 50000
#define PART 20000
#define ETAG "\"one\""

/* Seconds for the faults of a test, or NYMBL_TEST_SECONDS: if they do not
 * suffice, only some of the faults are tried, but at least TRIED_MIN. The seed
 * selects them; NYMBL_SEED has another one. */
#define BUDGET 1.0
#define TRIED_MIN 20
#define SEED 20260101u

static bool threaded; /* the engines of the downloads have threads */
static char *bytes;   /* the document */
static struct {
    char data[PART + 1];
    char meta[512];
    size_t size, meta_size;
} kept; /* the files of an interrupted download */

/* The download's options, and the earlier file. */
typedef struct scenario {
    const char *name;
    bool old;
    bool no_overwrite;
    bool resume;
    bool part;
} scenario;

static const scenario scenarios[] = {
    {.name = "a new file"},
    {.name = "an old file", .old = true},
    {.name = "a new file only", .no_overwrite = true},
    {.name = "a part that begins", .old = true, .resume = true},
    {.name = "a part that is there", .old = true, .resume = true, .part = true},
    {.name = "a part, a new file only",
     .no_overwrite = true,
     .resume = true,
     .part = true},
};
#define SCENARIOS (sizeof(scenarios) / sizeof(scenarios[0]))

/* File systems: with all calls, without unnamed files, without links to them,
 * and without the newer flags of rename(). */
static const char *const systems[] = {"", "tmpfile=ENOTSUP", "linkat=EPERM",
                                      "tmpfile=ENOTSUP renameat2=EINVAL"};
#define SYSTEMS (sizeof(systems) / sizeof(systems[0]))

/* Exit statuses of a child; CANNOT_CLEAN may be added to the first two. */
enum { GOOD, BAD, CANNOT_CLEAN, USELESS = 4 };

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- the child ---- */

static int download(const scenario *how, const char *name, const char *plan,
                    int report)
{
    char url[64];
    nymbl_client_options service = {
        .base_url = url, .api_key = "key-of-test", .allow_http = true};
    nymbl_download_options options = {.content_type = "text/plain",
                                      .no_overwrite = how->no_overwrite,
                                      .resume = how->resume};
    nymbl_engine *engine;
    nymbl_client *client;
    nymbl_transfer *transfer = NULL;
    nymbl_kind kind = NYMBL_OK;
    bool goes_on;
    long calls;

    snprintf(url, sizeof(url), "http://127.0.0.1:%d/v1", world.port);
    if (nymbl_engine_new(&engine, NULL, NULL) < 0 ||
        nymbl_client_new(&client, &service, NULL) < 0)
        return USELESS;
    options.path = world_path(name);
    goes_on = plan != NULL && strstr(plan, "from=") != NULL;
    faults_plan(plan);
    if (threaded)
        kind = nymbl_engine_start_thread(engine, NULL);
    if (kind == NYMBL_OK)
        kind = nymbl_target_check(options.path, options.no_overwrite, NULL);
    if (kind == NYMBL_OK)
        kind = nymbl_download_start(&transfer, engine, client, "tok", "7", "9",
                                    &options, NULL);
    while (kind == NYMBL_OK || kind == NYMBL_AGAIN) {
        kind = nymbl_transfer_wait(transfer, 10);
        if (kind == NYMBL_OK)
            kind = nymbl_transfer_result(transfer, NULL);
        if (kind == NYMBL_OK)
            break;
    }
    nymbl_transfer_free(transfer);
    nymbl_client_free(client);
    nymbl_engine_free(engine); /* ends the thread */
    calls = faults_calls();
    plan = faults_struck();
    faults_plan(NULL);
    if (report >= 0)
        (void)!write(report, &calls, sizeof(calls));
    /* without these calls it cannot find or remove its files */
    return (kind == NYMBL_OK ? GOOD : BAD) +
           (plan != NULL &&
                    (goes_on || strcmp(plan, "unlinkat") == 0 ||
                     strcmp(plan, "fstat") == 0 ||
                     strcmp(plan, "fstatat") == 0 || strcmp(plan, "flock") == 0)
                ? CANNOT_CLEAN
                : 0);
}

/* ---- the service, while a child runs ---- */

/* Answer one connection's request. `cut`: send only some of the bytes. */
static void serve_one(int fd, size_t cut)
{
    char request[8192], head[256];
    size_t got = 0, from = 0;
    const char *range;

    do {
        ssize_t more = recv(fd, request + got, sizeof(request) - 1 - got, 0);

        if (more <= 0)
            return;
        got += (size_t)more;
        request[got] = '\0';
    } while (strstr(request, "\r\n\r\n") == NULL);
    range = strstr(request, "Range: bytes=");
    if (range != NULL && strstr(request, "If-Range: " ETAG "\r\n") != NULL)
        from = (size_t)strtoul(range + 13, NULL, 10);
    snprintf(head, sizeof(head),
             "HTTP/1.1 %d x\r\nETag: " ETAG "\r\nContent-Length: %zu\r\n"
             "Content-Range: bytes %zu-%d/%d\r\nConnection: close\r\n\r\n",
             from > 0 ? 206 : 200, SIZE - from, from, SIZE - 1, SIZE);
    if (from == 0) /* a header that only ranges have */
        strcpy(strstr(head, "Content-Range"), "Connection: close\r\n\r\n");
    send(fd, head, strlen(head), MSG_NOSIGNAL);
    while (from < cut) {
        ssize_t sent = send(fd, bytes + from, cut - from, MSG_NOSIGNAL);

        if (sent <= 0)
            return;
        from += (size_t)sent;
    }
}

/* Run a download in a child. Returns its exit status, or -1 if it was killed.
 * `calls` may be NULL. */
static int run(const scenario *how, const char *name, const char *plan,
               size_t cut, long *calls)
{
    struct pollfd waits = {.fd = world.listener, .events = POLLIN};
    double end = seconds_now() + 20;
    int report[2] = {-1, -1}, status;
    pid_t child;

    if (calls != NULL)
        REQUIRE(pipe(report) == 0);
    fflush(stdout);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0)
        _exit(download(how, name, plan, report[1]));
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (poll(&waits, 1, 1) == 1) {
            int fd = accept(world.listener, NULL, NULL);

            if (fd >= 0)
                serve_one(fd, cut);
            close(fd);
        }
        if (seconds_now() > end) {
            CHECK(!"the child hangs");
            kill(child, SIGKILL);
            end += 20;
        }
    }
    if (calls != NULL) {
        close(report[1]);
        CHECK(read(report[0], calls, sizeof(*calls)) == sizeof(*calls));
        close(report[0]);
    }
    if (WIFSIGNALED(status))
        CHECK_NUMBER(WTERMSIG(status), SIGKILL);
    CHECK(!WIFEXITED(status) || WEXITSTATUS(status) != USELESS);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ---- the files ---- */

static void dir_set_up(const scenario *how)
{
    world_clear(".");
    if (how->old)
        world_write("doc", "old", 3);
    if (how->part) {
        world_write("doc.nymbl-part", kept.data, kept.size);
        world_write("doc.nymbl-meta", kept.meta, kept.meta_size);
        chmod(world_path("doc.nymbl-part"), 0600);
        chmod(world_path("doc.nymbl-meta"), 0600);
    }
}

/* Have a download interrupted, and remember its files. */
static void partial_make(void)
{
    static const scenario how = {.name = "a cut", .resume = true};
    text got;

    CHECK_NUMBER(run(&how, "doc", NULL, PART, NULL), BAD);
    got = world_read("doc.nymbl-part");
    kept.size = got.size;
    REQUIRE(got.size > 0 && got.size <= PART);
    memcpy(kept.data, got.data, got.size);
    text_free(&got);
    got = world_read("doc.nymbl-meta");
    kept.meta_size = got.size;
    REQUIRE(got.size < sizeof(kept.meta));
    memcpy(kept.meta, got.data, got.size);
    text_free(&got);
    CHECK_NUMBER(world_names(), 2);
}

/* Files that may remain. If metadata cannot be removed, it stays beside a
 * document that must not be replaced; it contains a hash and a validator. */
static bool is_excused(const scenario *how, int result)
{
    return how->no_overwrite && result >= 0 && (result & CANNOT_CLEAN) != 0;
}

/* Run once with a fault, and check the result. */
static void try(const scenario *how, const char *plan)
{
    bool is_new, is_old;
    int result, names;

    dir_set_up(how);
    result = run(how, "doc", plan, SIZE, NULL);
    is_new = world_file_is("doc", bytes, SIZE);
    is_old = how->old ? world_file_is("doc", "old", 3)
                      : access(world_path("doc"), F_OK) != 0;
    CHECK(is_new || is_old);
    if (result >= 0)
        CHECK((result & BAD) == GOOD ? is_new : is_old);
    names = world_names();
    if (result == GOOD || (result == BAD && !how->resume))
        CHECK_NUMBER(names, is_new || how->old ? 1 : 0);
    /* the next download, by another process */
    if (is_new && how->no_overwrite) {
        CHECK_NUMBER(run(&scenarios[0], "other", NULL, SIZE, NULL), GOOD);
        CHECK(world_file_is("other", bytes, SIZE));
        unlink(world_path("other"));
        if (how->resume) /* its partial file may still have its name */
            CHECK((run(how, "doc", NULL, SIZE, NULL) & BAD) == BAD);
    } else {
        CHECK_NUMBER(run(how, "doc", NULL, SIZE, NULL), GOOD);
    }
    CHECK(world_file_is("doc", bytes, SIZE));
    if (!is_excused(how, result))
        CHECK_NUMBER(world_names(), 1);
    if (test_failed())
        printf("%s: %s\n", how->name, plan);
}

/* A system call and its fault. */
typedef struct fault_point {
    const scenario *how;
    const char *system;
    long call;
    const char *fault; /* of a plan, with %ld for the call */
} fault_point;

static void faults_shuffle(fault_point *points, size_t count)
{
    unsigned state = faults_seed(SEED);

    for (size_t i = count; i > 1; i--) {
        size_t other = (state = state * 1664525u + 1013904223u) / 65536 % i;
        fault_point held = points[i - 1];

        points[i - 1] = points[other];
        points[other] = held;
    }
}

/* Try these faults at all calls, as far as there is time. */
static void faults_try(const char *const *faults, size_t fault_count)
{
    static fault_point points[40000];
    size_t count = 0, tried = 0;
    const char *budget = getenv("NYMBL_TEST_SECONDS");
    double end;

    world_open(NULL);
    bytes = pattern(SIZE);
    partial_make();
    for (size_t i = 0; i < SCENARIOS * SYSTEMS; i++) {
        const scenario *how = &scenarios[i % SCENARIOS];
        const char *system = systems[i / SCENARIOS];
        long calls = 0;

        dir_set_up(how);
        if (!CHECK_NUMBER(run(how, "doc", system, SIZE, &calls), GOOD))
            printf("%s: %s\n", how->name, system);
        CHECK(calls > 20);
        for (long call = 1; call <= calls; call++) {
            for (size_t f = 0; f < fault_count; f++) {
                REQUIRE(count < sizeof(points) / sizeof(points[0]));
                points[count++] = (fault_point){how, system, call, faults[f]};
            }
        }
    }
    faults_shuffle(points, count);
    end = seconds_now() + (budget != NULL ? atof(budget) : BUDGET);
    while (tried < count && (tried < TRIED_MIN || seconds_now() < end) &&
           !test_failed()) {
        const fault_point *at = &points[tried++];
        char plan[128];
        int length = snprintf(plan, sizeof(plan), "%s ", at->system);

        snprintf(plan + length, sizeof(plan) - (size_t)length, at->fault,
                 at->call);
        alarm(300); /* of the test, for each fault anew */
        try(at->how, plan);
    }
    printf("tried %zu failing or last system calls (of %zu, seed %u)\n", tried,
           count, faults_seed(SEED));
    free(bytes);
    world_clear(".");
    world_close();
}

static void kill_at_any_call_leaves_nothing(void)
{
    static const char *const faults[] = {"kill=%ld"};

    faults_try(faults, 1);
}

static void failure_of_any_call_leaves_nothing(void)
{
    static const char *const faults[] = {
        "fail=%ld:ENOSPC", "fail=%ld:EIO",    "fail=%ld:EMFILE",
        "fail=%ld:EINTR",  "from=%ld:ENOSPC", "from=%ld:EIO",
    };

    faults_try(faults, 6);
}

static void short_reads_and_writes_are_continued(void)
{
    world_open(NULL);
    bytes = pattern(SIZE);
    partial_make();
    for (int i = 0; i < 60 && !test_failed(); i++) {
        const scenario *how = &scenarios[(unsigned)i % SCENARIOS];
        char plan[64];

        snprintf(plan, sizeof(plan), "%s short=%u",
                 systems[(unsigned)i / SCENARIOS % SYSTEMS],
                 faults_seed(0) + (unsigned)i);
        dir_set_up(how);
        CHECK_NUMBER(run(how, "doc", plan, SIZE, NULL), GOOD);
        CHECK(world_file_is("doc", bytes, SIZE));
        CHECK_NUMBER(world_names(), 1);
        if (test_failed())
            printf("%s: %s\n", how->name, plan);
    }
    free(bytes);
    world_clear(".");
    world_close();
}

/* ---- file systems without some operations ---- */

/* CIFS, drvfs, FUSE, NFS and others refuse some calls, each with its own
 * errors. The missing step is skipped, and the complete document is kept. */
static void missing_file_system_operation_loses_nothing(void)
{
    static const char *const plans[] = {
        "fchmod=EPERM",
        "fchmod=EACCES",
        "fchmod=ENOTSUP",
        "fchmod=EINVAL",
        "fsync=EINVAL",
        "fsync=ENOTSUP",
        "fsync=EROFS",
        /* no links to unnamed files */
        "linkat=EACCES",
        "linkat=EXDEV",
        "linkat=ENOTSUP",
        "linkat=EINVAL",
        "linkat=ENOENT",
        /* neither unnamed files nor links */
        "tmpfile=ENOTSUP renameat2=EINVAL linkat=EPERM",
        "tmpfile=ENOTSUP renameat2=EINVAL linkat=EACCES",
        "tmpfile=ENOTSUP renameat2=EINVAL linkat=EXDEV",
        "tmpfile=ENOTSUP renameat2=EINVAL linkat=ENOTSUP",
        "tmpfile=ENOTSUP renameat2=EPERM",
        "tmpfile=EINVAL renameat2=EACCES",
        "tmpfile=EACCES renameat2=EXDEV",
        "renameat2=EACCES linkat=EXDEV",
        /* no locks */
        "flock=ENOLCK",
        "flock=ENOTSUP",
        "flock=EINVAL tmpfile=ENOTSUP",
        /* most operations missing */
        ("fchmod=EPERM fsync=EINVAL linkat=EACCES renameat2=EINVAL "
         "tmpfile=ENOTSUP flock=ENOTSUP"),
        "fchmod=EPERM linkat=EPERM fsync=EINVAL",
    };

    world_open(NULL);
    bytes = pattern(SIZE);
    partial_make();
    for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++) {
        for (size_t n = 0; n < SCENARIOS; n++) {
            bool good;

            dir_set_up(&scenarios[n]);
            good = CHECK_NUMBER(run(&scenarios[n], "doc", plans[i], SIZE, NULL),
                                GOOD);
            good = CHECK(world_file_is("doc", bytes, SIZE)) && good;
            /* an existing partial file that cannot be locked is not used */
            if (!scenarios[n].part || strstr(plans[i], "flock=") == NULL)
                good = CHECK_NUMBER(world_names(), 1) && good;
            if (!good)
                printf("%s: %s\n", scenarios[n].name, plans[i]);
        }
    }
    free(bytes);
    world_clear(".");
    world_close();
}

static void failed_step_is_not_a_missing_operation(void)
{
    static const char *const plans[] = {
        "fchmod=EIO",
        "fchmod=ENOSPC",
        "fsync=EIO",
        "fsync=ENOSPC",
        "fsync=EDQUOT",
        "tmpfile=ENOTSUP fsync=EIO",
        "tmpfile=ENOTSUP fchmod=EIO",
        "fsync=EINVAL close=EIO",
        "renameat=EIO renameat2=EIO linkat=EIO",
        "renameat=ENOSPC renameat2=ENOSPC linkat=ENOSPC",
    };

    world_open(NULL);
    bytes = pattern(SIZE);
    partial_make();
    for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++) {
        for (size_t n = 0; n < SCENARIOS; n++) {
            const scenario *how = &scenarios[n];
            bool good;

            dir_set_up(how);
            good = CHECK_NUMBER(run(how, "doc", plans[i], SIZE, NULL), BAD);
            good = CHECK(how->old ? world_file_is("doc", "old", 3)
                                  : access(world_path("doc"), F_OK) != 0) &&
                   good;
            if (!good)
                printf("%s: %s\n", how->name, plans[i]);
        }
    }
    free(bytes);
    world_clear(".");
    world_close();
}

/* ---- sweeping leftover files ---- */

/* Create a file in a child that has not swept a directory yet. */
static void file_saved(const char *name, const char *plan)
{
    int status;
    pid_t child;

    fflush(stdout);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        const char *reason;
        nymbl__atomic_file *save;

        faults_plan(plan);
        if (nymbl__atomic_file_open(&save, world_path(name), 0, true, NULL,
                                    NULL) < 0 ||
            nymbl__atomic_file_write(save, "new", 3, &reason) < 0 ||
            nymbl__atomic_file_commit(save, &reason) < 0)
            _exit(1);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(world_file_is(name, "new", 3));
}

static void file_of_a_running_process_is_not_swept(void)
{
    for (size_t i = 0; i < SYSTEMS; i++) {
        const char *reason;
        nymbl__atomic_file *save;

        world_open(NULL);
        world_write("doc", "old", 3);
        faults_plan(systems[i]);
        REQUIRE(nymbl__atomic_file_open(&save, world_path("doc"), 0, true, NULL,
                                        NULL) == NYMBL_OK);
        CHECK(nymbl__atomic_file_write(save, "half", 4, &reason) == NYMBL_OK);
        file_saved("other", NULL);
        file_saved("other", systems[i]);
        CHECK(nymbl__atomic_file_write(save, "+half", 5, &reason) == NYMBL_OK);
        CHECK(nymbl__atomic_file_commit(save, &reason) == NYMBL_OK);
        faults_plan(NULL);
        CHECK(world_file_is("doc", "half+half", 9));
        CHECK_NUMBER(world_names(), 2);
        world_close();
    }
}

static void other_files_are_not_swept(void)
{
    static const char *const names[] = {".nymbl-tmp-00", ".nymbl-tmp-01",
                                        ".nymbl-tmp-02", ".nymbl-tmp-03",
                                        ".nymbl-tmp-04", ".nymbl-tmp-05"};
    int locked, root = geteuid() == 0;

    world_open(NULL);
    world_write("theirs", "x", 1);
    /* a kill leaves two names at most */
    CHECK(link(world_path("theirs"), world_path(names[0])) == 0);
    CHECK(link(world_path("theirs"), world_path("also theirs")) == 0);
    CHECK(symlink("theirs", world_path(names[1])) == 0);
    CHECK(mkfifo(world_path(names[2]), 0600) == 0);
    world_write(names[3], "locked", 6);
    locked = open(world_path(names[3]), O_RDWR | O_CLOEXEC);
    CHECK(flock(locked, LOCK_EX) == 0);
    CHECK(mkdir(world_path(names[4]), 0700) == 0);
    world_write(names[5], "x", 1);
    if (root)
        CHECK(chown(world_path(names[5]), 65534, 65534) == 0);
    world_write(".nymbl-tmp-0f", "left", 4);
    world_write(".nymbl-tmp-10", "no name of the first group", 26);
    world_write(".nymbl-tmp-", "no name at all", 14);
    for (size_t i = 0; i < SYSTEMS; i++) {
        file_saved("doc", systems[i]);
        for (int n = 0; n < 5 + root; n++)
            CHECK(faccessat(AT_FDCWD, world_path(names[n]), F_OK,
                            AT_SYMLINK_NOFOLLOW) == 0);
        CHECK(world_file_is(names[3], "locked", 6));
        CHECK(access(world_path(".nymbl-tmp-0f"), F_OK) != 0);
    }
    CHECK_NUMBER(world_names(), 10 + root);
    close(locked);
    CHECK(rmdir(world_path(names[4])) == 0);
    world_close();
}

/* As after a kill between link() and unlink(): it is unknown which of the two
 * names is the document's, and it does not matter. */
static void second_name_is_swept_and_the_first_stays(void)
{
    for (size_t i = 0; i < SYSTEMS; i++) {
        world_open(NULL);
        world_write("first", "whole", 5);
        CHECK(link(world_path("first"), world_path(".nymbl-tmp-00")) == 0);
        file_saved("doc", systems[i]);
        CHECK(world_file_is("first", "whole", 5));
        CHECK_NUMBER(world_names(), 2);
        world_close();
    }
}

static void leftover_is_swept_whatever_its_mode(void)
{
    static const mode_t modes[] = {0600, 0400, 0200, 0644, 0444};

    world_open(NULL);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        world_write(".nymbl-tmp-03", "left", 4);
        CHECK(chmod(world_path(".nymbl-tmp-03"), modes[i]) == 0);
        file_saved("doc", NULL);
        CHECK_NUMBER(world_names(), 1);
    }
    world_close();
}

/* A process that has swept before still meets a leftover file. */
static void leftover_in_the_way_is_removed(void)
{
    const char *reason;
    nymbl__atomic_file *save;

    world_open(NULL);
    for (int i = 0; i < 2; i++) {
        REQUIRE(nymbl__atomic_file_open(&save, world_path("doc"), 0, true, NULL,
                                        NULL) == NYMBL_OK);
        if (i == 1)
            world_write(".nymbl-tmp-00", "left", 4);
        CHECK(nymbl__atomic_file_write(save, "new", 3, &reason) == NYMBL_OK);
        CHECK(nymbl__atomic_file_commit(save, &reason) == NYMBL_OK);
        CHECK_NUMBER(world_names(), 1);
    }
    world_close();
}

static void download_works_if_all_temporary_names_are_taken(void)
{
    char name[32];

    world_open(NULL);
    world_write("doc", "old", 3);
    for (int i = 0; i < 256; i++) {
        snprintf(name, sizeof(name), ".nymbl-tmp-%02x", (unsigned)i);
        CHECK(symlink("nowhere", world_path(name)) == 0);
    }
    for (size_t i = 0; i < SYSTEMS; i++)
        file_saved("doc", systems[i]);
    CHECK_NUMBER(world_names(), 257);
    world_close();
}

/* If a file loses its name while it is written, the name belongs to another
 * file. */
static void file_of_another_process_is_never_renamed(void)
{
    for (int commits = 0; commits < 2; commits++) {
        const char *reason;
        nymbl__atomic_file *save;

        world_open(NULL);
        world_write("doc", "old", 3);
        faults_plan("tmpfile=ENOTSUP");
        REQUIRE(nymbl__atomic_file_open(&save, world_path("doc"), 0, true, NULL,
                                        NULL) == NYMBL_OK);
        faults_plan(NULL);
        CHECK(nymbl__atomic_file_write(save, "mine", 4, &reason) == NYMBL_OK);
        CHECK(unlink(world_path(".nymbl-tmp-00")) == 0);
        world_write(".nymbl-tmp-00", "their half", 10);
        if (commits)
            CHECK(nymbl__atomic_file_commit(save, &reason) == NYMBL_IO);
        else
            nymbl__atomic_file_discard(save);
        CHECK(world_file_is("doc", "old", 3));
        CHECK(world_file_is(".nymbl-tmp-00", "their half", 10));
        world_close();
    }
}

/* Inherited files belong to the parent, even a file with a name. */
static void child_that_releases_all_leaves_the_file(void)
{
    nymbl_transfer *transfer;
    request request;
    peer peer;
    pid_t child;
    int status;

    world_open(NULL);
    faults_plan("tmpfile=ENOTSUP");
    transfer =
        start_download(&(nymbl_download_options){.path = world_path("doc")});
    faults_plan(NULL);
    peer_accept(&peer);
    peer_read(&peer, &request);
    request_free(&request);
    peer_say(&peer, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234");
    world_settle();
    CHECK_NUMBER(world_names(), 1);
    fflush(stdout);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        nymbl_transfer_cancel(transfer, NYMBL_CANCELED, NULL);
        nymbl_transfer_free(transfer);
        nymbl_client_free(world.client);
        nymbl_engine_free(world.engine);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK_NUMBER(world_names(), 1);
    file_saved("other", NULL); /* nor is it swept */
    CHECK_NUMBER(world_names(), 2);
    peer_say(&peer, "56789");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    CHECK(world_file_is("doc", "0123456789", 10));
    CHECK_NUMBER(world_names(), 2);
    peer_close(&peer);
    nymbl_transfer_free(transfer);
    world_close();
}

/* ---- a store ---- */

static bool store_has(const char *text)
{
    nymbl_store *store;
    const char *content;
    size_t size;
    bool has;

    REQUIRE(nymbl_store_open(&store, world_path("store"), NULL, NULL) ==
            NYMBL_OK);
    content = nymbl_store_content(store, &size);
    has =
        size == strlen(text) && (size == 0 || memcmp(content, text, size) == 0);
    nymbl_store_close(store);
    return has;
}

static nymbl_kind store_put(const char *text, const char *plan)
{
    nymbl_store *store;
    nymbl_kind kind;

    REQUIRE(nymbl_store_open(&store, world_path("store"), NULL, NULL) ==
            NYMBL_OK);
    faults_plan(plan);
    kind = nymbl_store_write(store, text, strlen(text), NULL);
    nymbl_store_close(store);
    return kind;
}

/* Otherwise its caller would change the new content once more. */
static void store_that_was_not_written_has_its_old_content(void)
{
    static const char *const errors[] = {"EIO", "ENOSPC", "EACCES", "ENOMEM"};
    bool struck = true;
    int failed = 0;

    world_open(NULL);
    for (int n = 1; struck && n < 20; n++) {
        for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
            char plan[32];
            nymbl_kind kind;

            CHECK(store_put("an old content, which is longer", NULL) ==
                  NYMBL_OK);
            snprintf(plan, sizeof(plan), "fail=%d:%s", n, errors[i]);
            kind = store_put("a new one", plan);
            struck = faults_struck() != NULL;
            faults_plan(NULL);
            failed += kind < 0;
            if (!CHECK(kind <= NYMBL_OK) ||
                !CHECK(store_has(kind == NYMBL_OK
                                     ? "a new one"
                                     : "an old content, which is longer")))
                printf("%s\n", plan);
        }
    }
    CHECK(failed > 0);
    world_clear(".");
    world_close();
}

/* ---- polls and wakeups ---- */

/* As without memory, or if there are more descriptors than the process may have
 * now. */
static void poll_that_fails_is_repeated_after_a_pause(void)
{
    nymbl_transfer *transfer;
    long calls;
    peer peer;

    world_open(NULL);
    transfer = accept_request(start_get(), &peer);
    world_settle();
    if (threaded)
        REQUIRE(nymbl_engine_start_thread(world.engine, NULL) == NYMBL_OK);
    faults_plan("poll=ENOMEM");
    CHECK(nymbl_transfer_wait(transfer, 0.3) == NYMBL_AGAIN);
    calls = faults_calls();
    if (!CHECK(calls < 300))
        printf("%ld calls\n", calls);
    peer_respond(&peer, 200, "", "{}");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    faults_plan(NULL);
    nymbl_transfer_free(transfer);
    peer_close(&peer);
    world_close();
}

static void *plan_end(void *payload)
{
    (void)payload;
    usleep(50000);
    faults_plan(NULL);
    return NULL;
}

/* The thread of an engine would sleep for up to an hour. */
static void wakeup_that_fails_is_sent_again(void)
{
    static const char plan[] = "send=ENOBUFS write=ENOBUFS";
    nymbl_transfer *transfer;
    pthread_t thread;
    peer peer;

    world_open(NULL);
    REQUIRE(nymbl_engine_start_thread(world.engine, NULL) == NYMBL_OK);
    usleep(20000); /* the thread polls */
    faults_plan(plan);
    transfer = start_get();
    CHECK(faults_calls() > 0);
    faults_plan(NULL);
    accept_request(transfer, &peer); /* while this waits */
    peer_respond(&peer, 200, "", "{}");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    nymbl_transfer_free(transfer);
    peer_close(&peer);
    /* and at the end of the engine */
    usleep(20000);
    faults_plan(plan);
    REQUIRE(pthread_create(&thread, NULL, plan_end, NULL) == 0);
    nymbl_engine_free(world.engine);
    world.engine = NULL;
    pthread_join(thread, NULL);
    world_close();
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(kill_at_any_call_leaves_nothing),
        TEST(failure_of_any_call_leaves_nothing),
        TEST(short_reads_and_writes_are_continued),
        TEST(missing_file_system_operation_loses_nothing),
        TEST(failed_step_is_not_a_missing_operation),
        TEST(file_of_a_running_process_is_not_swept),
        TEST(other_files_are_not_swept),
        TEST(second_name_is_swept_and_the_first_stays),
        TEST(leftover_is_swept_whatever_its_mode),
        TEST(leftover_in_the_way_is_removed),
        TEST(download_works_if_all_temporary_names_are_taken),
        TEST(file_of_another_process_is_never_renamed),
        TEST(child_that_releases_all_leaves_the_file),
        TEST(store_that_was_not_written_has_its_old_content),
        TEST(poll_that_fails_is_repeated_after_a_pause),
        TEST(wakeup_that_fails_is_sent_again),
    };

    /* a process with a thread must not fork under the thread sanitizer */
    threaded = getenv("NYMBL_TEST_THREAD") != NULL;
    unsetenv("NYMBL_TEST_THREAD");
    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
