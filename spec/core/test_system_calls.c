/* SPDX-License-Identifier: MIT */
/* Each system call of an operation on files fails, one after the other, in this
 * process: afterwards every file is complete, old or new, and nothing stays
 * open. test_faults.c does that to whole downloads, of which it takes samples.
 */
#include "faults.h"

#include "engine/engine.h"
#include "engine/private_dir.h"
#include "file/atomic_file.h"
#include "job/digest.h"
#include "job/directory.h"
#include "job/sync.h"
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

typedef struct operation {
    void (*prepare)(void);
    /* NYMBL_OK, NYMBL_AGAIN, or NYMBL_IO with a reason */
    nymbl_kind (*run)(const char **reason);
    /* `struck`: the call that failed, or NULL */
    void (*check)(nymbl_kind kind, const char *struck);
} operation;

static bool is_one_of(const char *call, const char *const *calls)
{
    while (call != NULL && *calls != NULL && strcmp(*calls, call) != 0)
        calls++;
    return call != NULL && *calls != NULL;
}

static long tried; /* operations with a plan */

/* Run an operation once with a plan. Returns the number of calls. */
static long operation_run(const operation *operation, const char *plan,
                          bool must_succeed)
{
    static const char *const allocators[] = {"fdopendir", NULL};
    const char *reason = NULL, *struck;
    nymbl_kind kind;
    long calls;
    int fds;

    tried++;
    operation->prepare();
    fds = fds_open();
    faults_plan(plan);
    kind = operation->run(&reason);
    struck = faults_struck();
    calls = faults_calls();
    faults_plan(NULL);
    if (must_succeed && struck == NULL)
        CHECK_NUMBER(kind, NYMBL_OK);
    CHECK(kind >= 0 || (kind == NYMBL_IO && reason != NULL) ||
          (kind == NYMBL_NO_MEMORY && is_one_of(struck, allocators)));
    CHECK_NUMBER(fds_open(), fds);
    operation->check(kind, struck);
    if (test_failed())
        printf("%s: %s, %s\n", plan, struck != NULL ? struck : "no call",
               reason != NULL ? reason : "no reason");
    return calls;
}

static bool goes_on; /* all later calls fail, too */

/* Let each call of an operation fail with each of these errors. `lacks`: calls
 * that always fail on that file system. */
static void calls_fail_with(const operation *operation, const char *lacks,
                            const char *const *errors)
{
    for (; *errors != NULL; errors++) {
        bool reached = true;
        long call;

        for (call = 1; reached && !test_failed(); call++) {
            char plan[128];

            snprintf(plan, sizeof(plan), "%s %s=%ld:%s", lacks,
                     goes_on ? "from" : "fail", call, *errors);
            reached = operation_run(operation, plan, true) >= call;
        }
        if (!test_failed())
            CHECK(call != 2);
    }
}

/* The same once, and from that call on. A call that is always interrupted would
 * be repeated for ever. */
static void calls_fail(const operation *operation, const char *lacks)
{
    static const char *const once[] = {"EIO",    "ENOSPC",  "EACCES", "EINTR",
                                       "EMFILE", "ENOTSUP", NULL};
    static const char *const lasting[] = {"EIO", "ENOSPC", "ENOTSUP", NULL};

    calls_fail_with(operation, lacks, once);
    goes_on = true;
    calls_fail_with(operation, lacks, lasting);
    goes_on = false;
}

/* Interrupt the reads and writes of an operation, and shorten them. */
static void calls_are_interrupted(const operation *operation)
{
    for (unsigned i = 0; i < 40 && !test_failed(); i++) {
        char plan[32];

        snprintf(plan, sizeof(plan), "short=%u", faults_seed(0) + i);
        operation_run(operation, plan, true);
    }
}

/* The world's directory is in memory, if that is possible: there, thousands of
 * flushes take no time. */
static void world_open_in_memory(void)
{
    char dir[] = "/dev/shm/nymbl-test-XXXXXX";

    world_open(NULL);
    if (mkdtemp(dir) == NULL)
        return;
    CHECK(rmdir(world.dir) == 0);
    strcpy(world.dir, dir);
}

static void nothing_prepare(void)
{
}

static void nothing_check(nymbl_kind kind, const char *struck)
{
    (void)kind;
    (void)struck;
}

/* ---- the store ---- */

static nymbl_kind store_put(const char *content, const char **reason)
{
    nymbl_store *store;
    nymbl_error err = {0};
    nymbl_kind kind = nymbl_store_open(&store, world_path("store"), NULL, &err);

    CHECK((kind == NYMBL_OK) == (store != NULL));
    if (kind == NYMBL_OK)
        kind = nymbl_store_write(store, content, strlen(content), &err);
    nymbl_store_close(store);
    *reason = err.reason;
    return kind;
}

static bool store_is(const char *expected)
{
    nymbl_store *store;
    const char *content;
    size_t size;
    bool is;

    REQUIRE(nymbl_store_open(&store, world_path("store"), NULL, NULL) ==
            NYMBL_OK);
    content = nymbl_store_content(store, &size);
    is = strcmp(content == NULL ? "" : content, expected) == 0;
    nymbl_store_close(store);
    return is;
}

static void store_prepare(void)
{
    const char *reason;

    REQUIRE(store_put("an old content", &reason) == NYMBL_OK);
    CHECK(chmod(world_path("store"), 0640) == 0);
}

static nymbl_kind store_run(const char **reason)
{
    return store_put("new", reason);
}

static void store_check(nymbl_kind kind, const char *struck)
{
    CHECK(store_is("new") || (struck != NULL && store_is("an old content")));
    if (kind == NYMBL_OK)
        CHECK(store_is("new"));
}

static void store_has_its_old_content_or_the_new(void)
{
    static const operation operation = {store_prepare, store_run, store_check};

    world_open_in_memory();
    calls_fail(&operation, "");
    calls_fail(&operation, "posix_fallocate=ENOTSUP");
    world_close();
}

/* ---- a lock of the store that is broken ---- */

static nymbl_store *held;
static nymbl_store_holder holder;

static void lock_prepare(void)
{
    nymbl_store *other;

    store_prepare();
    REQUIRE(nymbl_store_open(&held, world_path("store"), NULL, NULL) ==
            NYMBL_OK);
    CHECK(nymbl_store_open(&other, world_path("store"), &holder, NULL) ==
          NYMBL_AGAIN);
}

static nymbl_kind lock_run(const char **reason)
{
    nymbl_error err = {0};
    nymbl_kind kind =
        nymbl_store_break_lock(world_path("store"), holder.fingerprint, &err);

    *reason = err.reason;
    return kind;
}

static void lock_check(nymbl_kind kind, const char *struck)
{
    nymbl_store *other;
    nymbl_kind opened =
        nymbl_store_open(&other, world_path("store"), NULL, NULL);
    int dir = open(world.dir, O_RDONLY | O_CLOEXEC);

    CHECK(opened == NYMBL_OK || opened == NYMBL_AGAIN);
    if (struck == NULL) /* the holder has lost it */
        CHECK_NUMBER(opened, NYMBL_OK);
    if (kind < 0) /* or the reason is in doubt */
        CHECK(opened == NYMBL_AGAIN || strcmp(struck, "renameat") != 0);
    nymbl_store_close(other);
    nymbl_store_close(held);
    CHECK(store_is("an old content"));
    nymbl_remove_leftovers(dir);
    close(dir);
    CHECK_NUMBER(world_names(), 1);
}

static void broken_lock_loses_no_content(void)
{
    static const operation operation = {lock_prepare, lock_run, lock_check};

    world_open_in_memory();
    calls_fail(&operation, "");
    calls_fail(&operation, "tmpfile=ENOTSUP");
    world_close();
}

/* ---- atomic files ---- */

#define VALIDATOR "\"one\""
#define RESOURCE                                                               \
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

/* What is written, and what was there before. */
static struct {
    bool is_old;   /* there is a file */
    bool is_kept;  /* it must not be overwritten */
    bool resumes;  /* by a partial file */
    bool has_part; /* there is one */
    bool restarts; /* it is not continued */
    bool is_cut;   /* the download is interrupted again */
    bool is_link;  /* the path is relative, and that of a link */
} how;

static int dir_fd; /* of the world's directory */

/* Write the rest of the document "new", and commit it if it is complete. */
static nymbl_kind document_write(const char *path, bool is_cut,
                                 const char **reason)
{
    static const char bytes[] = "new";
    nymbl__atomic_file *file;
    nymbl_error err = {0};
    nymbl_kind kind = nymbl__atomic_file_open(
        &file, path, 0, !how.is_kept, how.resumes ? RESOURCE : NULL, &err);
    size_t from;

    *reason = err.reason;
    if (kind < 0)
        return kind;
    if (nymbl__atomic_file_offset(file) == 3) /* only its name was missing */
        nymbl__atomic_file_step_back(file);
    from = (size_t)nymbl__atomic_file_offset(file);
    if (from > 0) {
        char byte = 0;
        size_t got;

        CHECK(from < 3);
        CHECK_TEXT(nymbl__atomic_file_validator(file), VALIDATOR);
        nymbl__atomic_file_peek(file, &byte, 1);
        kind = nymbl__atomic_file_read(file, 0, &byte, 1, &got, reason);
        CHECK(kind < 0 || byte == 'n');
    }
    if (kind == NYMBL_OK && (from == 0 || how.restarts)) {
        kind = nymbl__atomic_file_restart(file, VALIDATOR, reason);
        from = 0;
    }
    if (kind == NYMBL_OK)
        kind = nymbl__atomic_file_write(file, bytes + from,
                                        (is_cut ? 2 : 3) - from, reason);
    if (kind < 0 || is_cut)
        nymbl__atomic_file_keep_partial(file);
    else
        kind = nymbl__atomic_file_commit(file, reason);
    return kind;
}

static const char *document_path(void)
{
    return how.is_link ? "link" : world_path("doc");
}

static void document_prepare(void)
{
    const char *reason;

    world_clear(".");
    if (how.has_part) {
        bool restarts = how.restarts;

        how.restarts = false;
        CHECK(document_write(document_path(), true, &reason) == NYMBL_OK);
        how.restarts = restarts;
        CHECK_NUMBER(world_names(), 2);
    }
    if (how.is_old)
        world_write("doc", "old", 3);
    if (how.is_link)
        CHECK(symlink(world_path("doc"), world_path("link")) == 0);
}

static nymbl_kind document_run(const char **reason)
{
    return document_write(document_path(), how.is_cut, reason);
}

static void document_check(nymbl_kind kind, const char *struck)
{
    /* without these, leftover files may remain until the next download */
    static const char *const cleaners[] = {"unlinkat", "fstat", "fstatat",
                                           "flock", NULL};
    const char *reason;
    bool is_old = how.is_old ? world_file_is("doc", "old", 3)
                             : access(world_path("doc"), F_OK) != 0;
    bool is_new = world_file_is("doc", "new", 3);

    CHECK(is_old || is_new);
    if (!how.is_cut)
        CHECK(kind == NYMBL_OK ? is_new : is_old);
    if (!how.resumes && !goes_on && !is_one_of(struck, cleaners))
        CHECK_NUMBER(world_names(), is_new + how.is_old * is_old + how.is_link);
    /* the next download, which removes what is left */
    if (is_new && how.is_kept) {
        CHECK_NUMBER(document_write(document_path(), false, &reason), NYMBL_IO);
        CHECK_TEXT(reason, "exists");
        return;
    }
    nymbl_remove_leftovers(dir_fd);
    CHECK_NUMBER(document_write(document_path(), false, &reason), NYMBL_OK);
    CHECK(world_file_is("doc", "new", 3));
    CHECK_NUMBER(world_names(), 1 + how.is_link);
}

/* Without names for unnamed files, without locks, and so on. */
static const char *const systems[] = {
    "",
    "tmpfile=ENOTSUP",
    "linkat=EPERM",
    "tmpfile=ENOTSUP renameat2=EINVAL",
    "tmpfile=ENOTSUP renameat2=EINVAL linkat=EPERM",
    "ftruncate=EPERM",
    "fchmod=EPERM fsync=EINVAL",
};

static void documents_fail(void)
{
    static const operation operation = {document_prepare, document_run,
                                        document_check};

    world_open_in_memory();
    REQUIRE(chdir(world.dir) == 0);
    dir_fd = open(world.dir, O_RDONLY | O_CLOEXEC);
    for (size_t i = 0; i < sizeof(systems) / sizeof(systems[0]); i++)
        calls_fail(&operation, systems[i]);
    if (!how.resumes) /* interrupted locks are refused */
        calls_are_interrupted(&operation);
    close(dir_fd);
    REQUIRE(chdir("/") == 0);
    memset(&how, 0, sizeof(how));
    world_close();
}

static void file_is_complete_or_absent(void)
{
    documents_fail();
}

static void file_that_exists_is_kept_or_replaced(void)
{
    how.is_old = true;
    documents_fail();
    how.is_old = how.is_link = true;
    documents_fail();
}

static void file_is_created_only_if_there_is_none(void)
{
    how.is_kept = true;
    documents_fail();
    how.is_kept = how.resumes = how.has_part = true;
    documents_fail();
}

static void partial_file_is_begun_or_not(void)
{
    how.resumes = true;
    documents_fail();
    how.resumes = how.is_cut = true;
    documents_fail();
}

static void partial_file_is_continued_or_not(void)
{
    how.is_old = how.resumes = how.has_part = true;
    documents_fail();
    how.resumes = how.has_part = how.is_cut = true;
    documents_fail();
    how.resumes = how.has_part = how.restarts = true;
    documents_fail();
}

/* ---- leftover files, and checks of a target ---- */

static void leftover_prepare(void)
{
    world_clear(".");
    world_write("doc", "old", 3);
    world_write(".nymbl-tmp-00", "left", 4);
}

static nymbl_kind leftover_run(const char **reason)
{
    (void)reason;
    nymbl_remove_leftovers(dir_fd);
    return NYMBL_OK;
}

static void leftover_check(nymbl_kind kind, const char *struck)
{
    (void)kind;
    CHECK(world_file_is("doc", "old", 3));
    CHECK(struck != NULL || world_names() == 1);
    nymbl_remove_leftovers(dir_fd);
    CHECK_NUMBER(world_names(), 1);
}

static nymbl_kind target_run(const char **reason)
{
    nymbl_error err = {0};
    nymbl_kind kind = nymbl_target_check(world_path("doc"), false, &err);

    *reason = err.reason;
    return kind;
}

static void target_check(nymbl_kind kind, const char *struck)
{
    leftover_check(kind, struck != NULL ? struck : "a later call");
}

static void leftover_file_is_removed_now_or_later(void)
{
    static const operation leftover = {leftover_prepare, leftover_run,
                                       leftover_check};
    static const operation target = {leftover_prepare, target_run,
                                     target_check};

    world_open_in_memory();
    dir_fd = open(world.dir, O_RDONLY | O_CLOEXEC);
    calls_fail(&leftover, "");
    for (size_t i = 0; i < sizeof(systems) / sizeof(systems[0]); i++)
        calls_fail(&target, systems[i]);
    close(dir_fd);
    world_close();
}

/* ---- bodies ---- */

static const char *body_path;
static int64_t body_size;

static nymbl_kind body_run(const char **reason)
{
    nymbl_body *body;
    nymbl_error err = {0};
    nymbl_kind kind = nymbl_body_from_path(&body, body_path, &err);

    CHECK((kind == NYMBL_OK) == (body != NULL));
    if (kind == NYMBL_OK) {
        CHECK_NUMBER(nymbl_body_size(body), body_size);
        nymbl_body_type(body);
    }
    nymbl_body_free(body);
    *reason = err.reason;
    return kind;
}

/* A file of /proc has content, though its size is 0. */
static void body_of_a_file_is_whole_or_fails(void)
{
    static const operation operation = {nothing_prepare, body_run,
                                        nothing_check};
    char version[4096];
    FILE *file;

    world_open_in_memory();
    world_write("doc", "%PDF-1.7 x", 10);
    body_path = world_path("doc");
    body_size = 10;
    calls_fail(&operation, "");
    calls_are_interrupted(&operation);
    file = fopen("/proc/version", "r");
    if (file != NULL) {
        body_size = (int64_t)fread(version, 1, sizeof(version), file);
        fclose(file);
        body_path = "/proc/version";
        calls_fail(&operation, "");
        calls_are_interrupted(&operation);
    }
    world_close();
}

/* ---- jobs ---- */

static nymbl_kind job_run(nymbl__job *job, const char **reason)
{
    nymbl_kind kind;

    REQUIRE(job != NULL);
    do
        kind = job->type->step(job, reason);
    while (kind == NYMBL_AGAIN);
    return kind;
}

static nymbl_kind digest_run(const char **reason)
{
    nymbl__job *job = nymbl__digest_job_new(world_path("doc"), -1);
    nymbl_kind kind = job_run(job, reason);

    if (kind == NYMBL_OK) {
        CHECK_NUMBER(nymbl__digest_job_result(job)->size, 3);
        CHECK(strncmp(nymbl__digest_job_result(job)->sha256, "ba7816bf", 8) ==
              0);
    }
    nymbl__job_free(job);
    return kind;
}

static nymbl_kind sync_run(const char **reason)
{
    nymbl__job *job = nymbl__sync_job_new("doc", -1);
    nymbl_kind kind = job_run(job, reason);

    nymbl__job_free(job);
    if (kind == NYMBL_OK) {
        job = nymbl__sync_job_new(world.dir, -1);
        kind = job_run(job, reason);
        nymbl__job_free(job);
    }
    return kind;
}

static nymbl_kind directory_run(const char **reason)
{
    nymbl__job *job = nymbl__directory_job_new(world.dir, 10);
    nymbl_kind kind = job_run(job, reason);
    nymbl_directory_entry entry;

    if (kind == NYMBL_OK && nymbl__directory_job_next(job, &entry))
        CHECK_TEXT(entry.name, "doc");
    nymbl__job_free(job);
    return kind;
}

static void job_succeeds_or_fails(void)
{
    static const operation digest = {nothing_prepare, digest_run,
                                     nothing_check};
    static const operation sync = {nothing_prepare, sync_run, nothing_check};
    static const operation directory = {nothing_prepare, directory_run,
                                        nothing_check};

    world_open_in_memory();
    REQUIRE(chdir(world.dir) == 0);
    world_write("doc", "abc", 3);
    calls_fail(&digest, "");
    calls_are_interrupted(&digest);
    calls_fail(&sync, "");
    calls_are_interrupted(&sync);
    calls_fail(&directory, "");
    REQUIRE(chdir("/") == 0);
    world_close();
}

/* ---- notify sockets ---- */

/* Whether a directory is there that no process has locked. Another process may
 * have made it, and is about to lock it. */
static bool is_left_behind(const char *path)
{
    bool is_left = true;

    for (int i = 0; i < 50 && is_left; i++) {
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        is_left = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
        if (fd >= 0)
            close(fd);
        if (is_left)
            usleep(1000);
    }
    return is_left;
}

static char private_path[32];

static nymbl_kind private_dir_run(const char **reason)
{
    nymbl__file_id id;
    char path[32];
    struct stat status;
    int lock = -1;

    if (!nymbl__private_dir_create(path, &lock)) {
        *reason = nymbl_reason_from_errno(errno);
        CHECK_TEXT(path, "");
        return NYMBL_IO;
    }
    memcpy(private_path, path, sizeof(path));
    nymbl__file_id_get(&id, path);
    if (stat(path, &status) == 0)
        CHECK_NUMBER(status.st_mode & 07777, 0700);
    nymbl__private_dir_remove(path, &lock, &id);
    return NYMBL_OK;
}

static void private_dir_check(nymbl_kind kind, const char *struck)
{
    char path[32];
    nymbl__file_id id;
    int lock = -1;

    (void)kind;
    if (struck == NULL) {
        CHECK(!is_left_behind(private_path));
        return;
    }
    /* what was left behind is removed by the next process that makes one; a
     * directory with a random name is not */
    REQUIRE(nymbl__private_dir_create(path, &lock));
    nymbl__file_id_get(&id, path);
    nymbl__private_dir_remove(path, &lock, &id);
    rmdir(private_path);
}

static void private_directory_is_made_or_not(void)
{
    static const operation operation = {nothing_prepare, private_dir_run,
                                        private_dir_check};

    world_open_in_memory();
    calls_fail(&operation, "");
    calls_fail(&operation, "flock=ENOLCK"); /* with a random name */
    operation_run(&operation, "mkdir=EROFS", true);
    operation_run(&operation, "mkdir=EROFS mkdtemp=EROFS", false);
    world_close();
}

/* Connect to a notify socket as an event loop does. */
static int notify_connect(const nymbl_notify_socket *notify)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(name.sun_path, notify->path);
    CHECK(connect(fd, (struct sockaddr *)&name, sizeof(name)) == 0);
    /* the engine may have closed it at once */
    (void)!send(fd, notify->token, strlen(notify->token), MSG_NOSIGNAL);
    return fd;
}

static bool is_readable(int fd)
{
    bool readable;

    faults_pause(true);
    readable = poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0) == 1;
    faults_pause(false);
    return readable;
}

/* A download whose caller waits by a socket, or by one of a pair. The plan is
 * for the library, not for the peer and the event loop. Returns what failed. */
static const char *notified_download(bool pair, const char *plan)
{
    static const char head[] = "HTTP/1.1 200 OK\r\n"
                               "Content-Length: 6\r\n\r\nabc";
    bool lasts = strncmp(plan, "from", 4) == 0;
    nymbl_transfer *transfer;
    nymbl_notify_socket notify;
    nymbl_error err = {0};
    nymbl_kind kind, result;
    const char *struck;
    text got = {0};
    peer peer;
    int fd = -1;

    world_open(NULL);
    transfer = accept_request(start_download(NULL), &peer);
    faults_plan(plan);
    kind = pair ? nymbl_transfer_notify_fd(transfer, &fd, &err)
                : nymbl_transfer_notify_socket(transfer, &notify, &err);
    struck = faults_struck();
    CHECK(kind == NYMBL_OK || (struck != NULL && kind == NYMBL_IO));
    CHECK(kind == NYMBL_OK || err.reason != NULL);
    /* no directory without a socket */
    CHECK((world.engine->dir[0] != '\0') == (world.engine->listener >= 0));
    if (pair)
        CHECK((fd >= 0) == (kind == NYMBL_OK));
    faults_pause(true);
    if (!pair && kind == NYMBL_OK)
        fd = notify_connect(&notify);
    REQUIRE(send(peer.fd, head, strlen(head), 0) == (ssize_t)strlen(head));
    faults_pause(false);
    for (int i = 0; i < (lasts ? 20 : 2000) && fd >= 0 && !is_readable(fd); i++)
        nymbl_engine_pump(world.engine, 0.002);
    /* a byte, or the end of the socket */
    CHECK(fd < 0 || lasts || is_readable(fd));
    faults_pause(true);
    peer_say(&peer, "def");
    struck = faults_struck();
    faults_plan(NULL);
    faults_pause(false);
    result = read_all(transfer, &got, &err);
    /* a socket that cannot be read counts as closed */
    if (struck == NULL || strcmp(struck, "recv") != 0 || fd < 0)
        CHECK_NUMBER(result, NYMBL_DONE);
    if (result == NYMBL_DONE)
        CHECK_TEXT(got.data, "abcdef");
    else
        CHECK_NUMBER(result, NYMBL_CANCELED);
    for (int i = 0; i < 2000 && fd >= 0 && !is_readable(fd); i++)
        nymbl_engine_pump(world.engine, 0.002);
    if (fd >= 0) {
        CHECK(is_readable(fd));
        close(fd);
    }
    text_free(&got);
    nymbl_transfer_free(transfer);
    peer_close(&peer);
    world_close();
    return struck;
}

/* The socket, and the pair of sockets, by which event loops wait. */
static void transfer_continues_whatever_fails_of_its_socket(void)
{
    static const char *const faults[] = {"fail=%ld:EMFILE", "fail=%ld:EIO",
                                         "fail=%ld:EINTR", "from=%ld:EMFILE"};

    for (size_t i = 0; i < 2 * sizeof(faults) / sizeof(faults[0]); i++) {
        const char *struck = "";

        for (long call = 1; struck != NULL && call < 1000 && !test_failed();
             call++) {
            char plan[32];

            tried++;
            snprintf(plan, sizeof(plan), faults[i / 2], call);
            struck = notified_download(i % 2 == 0, plan);
            if (test_failed())
                printf("%s, %s: %s\n", i % 2 == 0 ? "pair" : "socket", plan,
                       struck);
        }
        CHECK(struck == NULL);
    }
}

/* Put a file of the world in the place of the engine's directory, in one step:
 * at no moment can another process take its number. The directory gets the name
 * of the file. */
static bool dir_replace(const char *name)
{
    return renameat2(AT_FDCWD, world_path(name), AT_FDCWD, world.engine->dir,
                     RENAME_EXCHANGE) == 0;
}

/* The names that stood in the place of directories, to be removed. */
static char replaced[3][64];
static int replaced_locks[3]; /* those of the others */
static int replaced_count, replaced_max;

static void replaced_add(void)
{
    snprintf(replaced[replaced_count++], sizeof(replaced[0]), "%s",
             world.engine->dir);
}

static bool replaced_by_dir; /* of another process that listens in it */

static void other_make(void)
{
    int lock;

    if (!replaced_by_dir) {
        REQUIRE(symlink("nowhere", world_path("other")) == 0);
        return;
    }
    REQUIRE(mkdir(world_path("other"), 0700) == 0);
    world_write("other/" NYMBL__PRIVATE_DIR_SOCKET, "", 0);
    lock = open(world_path("other"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    REQUIRE(lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) == 0);
    replaced_locks[replaced_count] = lock;
}

static void other_remove(int i)
{
    if (!replaced_by_dir) {
        CHECK(unlink(replaced[i]) == 0);
        return;
    }
    CHECK(rename(replaced[i], world_path("other")) == 0);
    close(replaced_locks[i]);
    CHECK(unlink(world_path("other/" NYMBL__PRIVATE_DIR_SOCKET)) == 0);
    CHECK(rmdir(world_path("other")) == 0);
}

/* Before bind(), or right after the directory was locked and emptied. */
static void dir_take_away(const char *call, int fd)
{
    static bool is_emptied;
    bool is_now = replaced_by_dir ? is_emptied && strstr(call, "stat") != NULL
                                  : strcmp(call, "bind") == 0;

    (void)fd;
    is_emptied = strcmp(call, "unlink") == 0;
    if (!is_now || replaced_count == replaced_max)
        return;
    other_make();
    if (CHECK(dir_replace("other")))
        replaced_add();
    CHECK(rmdir(world_path("other")) == 0);
}

static void check_directory_taken(void)
{
    for (replaced_max = 1; replaced_max <= 3; replaced_max++) {
        nymbl_transfer *transfer;
        nymbl_notify_socket notify;
        nymbl_error err = {0};
        nymbl_kind kind;
        peer peer;

        world_open(NULL);
        transfer = accept_request(start_download(NULL), &peer);
        replaced_count = 0;
        faults_watch = dir_take_away;
        faults_plan("kill=0");
        kind = nymbl_transfer_notify_socket(transfer, &notify, &err);
        faults_plan(NULL);
        faults_watch = NULL;
        CHECK_NUMBER(replaced_count, replaced_max);
        CHECK_NUMBER(kind, replaced_max < 3 ? NYMBL_OK : NYMBL_IO);
        if (kind == NYMBL_OK)
            close(notify_connect(&notify));
        else
            CHECK_TEXT(err.reason, replaced_by_dir ? "io_error" : "not_found");
        nymbl_transfer_free(transfer);
        peer_close(&peer);
        for (int i = 0; i < replaced_count; i++)
            other_remove(i);
        world_close();
    }
}

/* By a process that has created it, too, and cannot lock it; and then by one
 * that listens in its own. */
static void directory_may_be_removed_by_another_process(void)
{
    replaced_by_dir = false;
    check_directory_taken();
    replaced_by_dir = true;
    check_directory_taken();
}

static mode_t replaced_mode;

static void dir_replace_after_mkdir(const char *call, int fd)
{
    static bool is_made;

    (void)fd;
    /* it has failed if another process has the number, or has swept it */
    if (is_made && errno == 0 && replaced_count == 0 && dir_replace("other")) {
        replaced_add();
        CHECK(chmod(replaced[0], replaced_mode) == 0); /* may not be moved */
    }
    is_made = strcmp(call, "mkdir") == 0;
    if (is_made)
        errno = 0;
}

/* By a process that swept the new directory, and a program that uses its name.
 */
static void directory_that_others_may_enter_is_left_alone(void)
{
    static const mode_t modes[] = {0755, 0555, 0477};

    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        nymbl_transfer *transfer;
        nymbl_notify_socket notify;
        struct stat status = {0};
        peer peer;

        world_open(NULL);
        transfer = accept_request(start_download(NULL), &peer);
        REQUIRE(mkdir(world_path("other"), 0700) == 0);
        world_write("other/file", "text", 4);
        replaced_mode = modes[i];
        replaced_count = 0;
        faults_watch = dir_replace_after_mkdir;
        faults_plan("kill=0");
        CHECK(nymbl_transfer_notify_socket(transfer, &notify, NULL) ==
              NYMBL_OK);
        faults_plan(NULL);
        faults_watch = NULL;
        CHECK_NUMBER(replaced_count, 1);
        CHECK(strcmp(world.engine->dir, replaced[0]) != 0);
        CHECK(stat(replaced[0], &status) == 0);
        CHECK_NUMBER(status.st_mode & 0777, modes[i]);
        close(notify_connect(&notify));
        nymbl_transfer_free(transfer);
        peer_close(&peer);
        /* the one that was made is empty */
        CHECK(rmdir(world_path("other")) == 0);
        CHECK(chmod(replaced[0], 0700) == 0);
        CHECK(rename(replaced[0], world_path("other")) == 0);
        world_clear("other");
        CHECK(rmdir(world_path("other")) == 0);
        world_close();
    }
}

/* ---- forks ---- */

static int fork_without_memory_try(void)
{
    nymbl_engine *engine;
    pid_t child;
    int status;

    faults_plan("pthread_atfork=ENOMEM");
    REQUIRE(nymbl_engine_new(&engine, NULL, NULL) == NYMBL_OK);
    faults_plan(NULL);
    CHECK(nymbl_engine_in_this_process(engine));
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0)
        _exit(nymbl_engine_in_this_process(engine) ? 1 : 0);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    nymbl_engine_free(engine);
    return 0;
}

/* The first test: the library prepares itself once for forks. */
static void child_does_not_take_itself_for_its_parent(void)
{
    world_try_in_child(fork_without_memory_try, "");
}

/* ---- the clock ---- */

static nymbl_kind clock_run(const char **reason)
{
    char id[NYMBL_BOOT_ID_SIZE];
    struct timespec now;
    double seconds = nymbl_boot_clock(id);

    (void)reason;
    clock_gettime(CLOCK_REALTIME, &now);
    if (id[0] == '\0') /* then it is the time of day */
        CHECK(seconds > (double)now.tv_sec - 60 &&
              seconds < (double)now.tv_sec + 60);
    else
        CHECK_NUMBER(strlen(id), NYMBL_BOOT_ID_SIZE - 1);
    return NYMBL_OK;
}

/* A program without standard input: the pair would get its number. (The
 * engine's thread may open that descriptor at any time, so this test is not
 * repeated with it.) */
static void notification_has_no_standard_descriptor(void)
{
    int saved, fd = -1;
    nymbl_transfer *transfer;
    nymbl_error err = {0};
    nymbl_kind kind;
    peer peer;

    world_open(NULL);
    transfer = accept_request(start_download(NULL), &peer);
    saved = dup(STDIN_FILENO);
    REQUIRE(saved >= 0 && close(STDIN_FILENO) == 0);
    faults_plan("fcntl=EMFILE");
    kind = nymbl_transfer_notify_fd(transfer, &fd, &err);
    faults_plan(NULL);
    CHECK_NUMBER(kind, NYMBL_IO);
    CHECK_TEXT(err.reason, "too_many_files");
    CHECK_NUMBER(fd, -1);
    kind = nymbl_transfer_notify_fd(transfer, &fd, &err);
    CHECK_NUMBER(kind, NYMBL_OK);
    CHECK(fd > STDERR_FILENO);
    CHECK(fcntl(STDIN_FILENO, F_GETFD) < 0);
    CHECK(dup2(saved, STDIN_FILENO) == STDIN_FILENO);
    close(saved);
    close(fd);
    nymbl_transfer_free(transfer);
    peer_close(&peer);
    world_close();
}

static void clock_without_an_id_is_the_time_of_day(void)
{
    static const operation operation = {nothing_prepare, clock_run,
                                        nothing_check};
    char id[NYMBL_BOOT_ID_SIZE] = "x";

    calls_fail(&operation, "");
    faults_plan("read=EIO");
    nymbl_boot_clock(id);
    faults_plan(NULL);
    CHECK_TEXT(id, "");
}

/* libgcov writes them so when a process ends. */
static void counts_of_a_build_for_coverage_are_spared(void)
{
    FILE *file;
    int fd;

    world_open_in_memory();
    faults_plan("from=1:EIO");
    fd = open(world_path("a.gcda"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && lseek(fd, 0, SEEK_END) == 0);
    file = fdopen(fd, "r+b");
    CHECK(file != NULL && fwrite("counts", 1, 6, file) == 6);
    CHECK(fclose(file) == 0);
    CHECK_NUMBER(faults_calls(), 0);
    CHECK(open(world_path("b"), O_RDONLY | O_CLOEXEC) < 0 && errno == EIO);
    faults_plan(NULL);
    world_close();
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(child_does_not_take_itself_for_its_parent),
        TEST(store_has_its_old_content_or_the_new),
        TEST(broken_lock_loses_no_content),
        TEST(file_is_complete_or_absent),
        TEST(file_that_exists_is_kept_or_replaced),
        TEST(file_is_created_only_if_there_is_none),
        TEST(partial_file_is_begun_or_not),
        TEST(partial_file_is_continued_or_not),
        TEST(leftover_file_is_removed_now_or_later),
        TEST(body_of_a_file_is_whole_or_fails),
        TEST(job_succeeds_or_fails),
        TEST(private_directory_is_made_or_not),
        TEST(transfer_continues_whatever_fails_of_its_socket),
        TEST(directory_may_be_removed_by_another_process),
        TEST(directory_that_others_may_enter_is_left_alone),
        TEST(notification_has_no_standard_descriptor),
        TEST(clock_without_an_id_is_the_time_of_day),
        TEST(counts_of_a_build_for_coverage_are_spared),
    };

    int failed = test_main(tests, TEST_COUNT(tests), argc, argv);

    printf("tried %ld failing or last system calls\n", tried);
    return failed;
}
