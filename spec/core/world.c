/* SPDX-License-Identifier: MIT */
/* The test's world: an engine, a client, files, and transfers. */
#include "peer.h"

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define PATIENCE 5000

struct world world;

static double world_clock(void *payload)
{
    struct timespec now;

    (void)payload;
    if (world.fake)
        return world.now += world.tick;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int fds_open(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = 0;

    REQUIRE(dir != NULL);
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

int sockets_to(int port)
{
    int count = 0;

    for (int fd = 0; fd < 256; fd++) {
        struct sockaddr_in to;
        socklen_t length = sizeof(to);

        if (getpeername(fd, (struct sockaddr *)&to, &length) == 0 &&
            to.sin_family == AF_INET && ntohs(to.sin_port) == port)
            count++;
    }
    return count;
}

void world_open(const nymbl_client_options *options)
{
    static bool warm; /* what libraries open once is not a leak */
    nymbl_engine_options engine = {.clock = world_clock};
    nymbl_client_options filled = {0};
    nymbl_error err;
    char url[64];

    if (!warm) {
        nymbl_engine *first;

        REQUIRE(nymbl_engine_new(&first, NULL, &err) == NYMBL_OK);
        nymbl_engine_free(first);
        warm = true;
    }
    memset(&world, 0, sizeof(world));
    world.fds = fds_open();
    CHECK_NUMBER(nymbl_object_count(), 0);
    strcpy(world.dir, "/tmp/nymbl-test-XXXXXX");
    REQUIRE(mkdtemp(world.dir) != NULL);
    world.listener = listener_open(&world.port, 64);
    if (options != NULL)
        filled = *options;
    if (filled.base_url == NULL) {
        snprintf(url, sizeof(url), "http://127.0.0.1:%d/v1", world.port);
        filled.base_url = url;
    }
    filled.api_key = "key-of-test";
    filled.allow_http = true;
    REQUIRE(nymbl_engine_new(&world.engine, &engine, &err) == NYMBL_OK);
    if (getenv("NYMBL_TEST_THREAD") != NULL)
        REQUIRE(nymbl_engine_start_thread(world.engine, &err) == NYMBL_OK);
    REQUIRE(nymbl_client_new(&world.client, &filled, &err) == NYMBL_OK);
}

void world_close(void)
{
    DIR *dir = opendir(world.dir);
    struct dirent *entry;

    nymbl_client_free(world.client);
    nymbl_engine_free(world.engine);
    if (world.listener >= 0)
        close(world.listener);
    REQUIRE(dir != NULL);
    for (entry = readdir(dir); entry != NULL; entry = readdir(dir))
        unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    CHECK(rmdir(world.dir) == 0);
    CHECK_NUMBER(nymbl_object_count(), 0);
    CHECK_NUMBER(fds_open(), world.fds);
    memset(&world, 0, sizeof(world));
}

void world_step(void)
{
    if (world.engine != NULL)
        nymbl_engine_pump(world.engine, 0.002);
    if (world.step != NULL)
        world.step();
}

void world_settle(void)
{
    for (int i = 0; i < 20; i++) {
        nymbl_engine_pump(world.engine, 0);
        usleep(500);
    }
}

const char *world_path(const char *name)
{
    static char paths[4][128];
    static int next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof(paths[0]), "%s/%s", world.dir, name);
    return path;
}

void world_write(const char *name, const void *data, size_t size)
{
    FILE *file = fopen(world_path(name), "wb");

    REQUIRE(file != NULL);
    CHECK(fwrite(data, 1, size, file) == size);
    CHECK(fclose(file) == 0);
}

text world_read(const char *name)
{
    FILE *file = fopen(world_path(name), "rb");
    char piece[65536];
    text all = {0};

    if (!CHECK(file != NULL))
        return all;
    text_add(&all, "", 0);
    for (;;) {
        size_t got = fread(piece, 1, sizeof(piece), file);

        if (got == 0)
            break;
        text_add(&all, piece, got);
    }
    fclose(file);
    return all;
}

bool world_file_is(const char *name, const void *data, size_t size)
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

void world_clear(const char *name)
{
    DIR *dir = opendir(world_path(name));
    struct dirent *entry;

    REQUIRE(dir != NULL);
    for (entry = readdir(dir); entry != NULL; entry = readdir(dir))
        unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
}

int world_names(void)
{
    DIR *dir = opendir(world.dir);
    int count = -2; /* without . and .. */

    REQUIRE(dir != NULL);
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

int world_files(void)
{
    int count = 0;

    for (int fd = 0; fd < 256; fd++) {
        char link[64], path[256] = "";
        struct stat status;

        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
            readlink(link, path, sizeof(path) - 1) > 0 &&
            strncmp(path, world.dir, strlen(world.dir)) == 0)
            count++;
    }
    return count;
}

int world_run_in_child(int (*try)(void))
{
    int status;
    pid_t child;

    fflush(stdout);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        int good = try();

        fflush(stdout);
        _exit(good == 0 && test_failed() ? 1 : good);
    }
    CHECK(waitpid(child, &status, 0) == child);
    return CHECK(WIFEXITED(status) && WEXITSTATUS(status) != 1)
               ? WEXITSTATUS(status)
               : 1;
}

void world_try_in_child(int (*try)(void), const char *why)
{
    if (world_run_in_child(try) == 2)
        test_skip(why);
}

/* ---- transfers ---- */

nymbl_client *token_client(nymbl_client_options options)
{
    nymbl_client *client;
    char url[64];

    snprintf(url, sizeof(url), "http://127.0.0.1:%d/token", world.port);
    options.base_url = options.token_url = url;
    options.api_key = "k";
    options.allow_http = true;
    REQUIRE(nymbl_client_new(&client, &options, NULL) == NYMBL_OK);
    return client;
}

nymbl_transfer *accept_request(nymbl_transfer *transfer, peer *peer)
{
    request request;

    peer_accept(peer);
    peer_read(peer, &request);
    request_free(&request);
    return transfer;
}

nymbl_kind ended(nymbl_transfer *transfer, nymbl_error *err)
{
    for (int i = 0; i < PATIENCE; i++) {
        nymbl_kind kind = nymbl_transfer_result(transfer, err);

        if (kind != NYMBL_AGAIN)
            return kind;
        world_step();
    }
    REQUIRE(nymbl_transfer_result(transfer, err) != NYMBL_AGAIN);
    return NYMBL_AGAIN;
}

nymbl_kind read_all(nymbl_transfer *transfer, text *to, nymbl_error *err)
{
    char piece[10007]; /* no divisor of any window */

    for (int quiet = 0; quiet < PATIENCE; quiet++) {
        size_t got;
        nymbl_kind kind =
            nymbl_transfer_read(transfer, piece, sizeof(piece), &got, err);

        if (kind == NYMBL_AGAIN) {
            world_step();
            continue;
        }
        if (kind != NYMBL_OK)
            return kind;
        text_add(to, piece, got);
        quiet = 0;
    }
    REQUIRE(!"read_all() has waited too long");
    return NYMBL_AGAIN;
}

nymbl_transfer *start_get(void)
{
    nymbl_transfer *transfer;

    REQUIRE(nymbl_get_start(&transfer, world.engine, world.client, "tok", "7",
                            "d 1", NULL) == NYMBL_OK);
    return transfer;
}

nymbl_transfer *start_delete(void)
{
    nymbl_transfer *transfer;

    REQUIRE(nymbl_delete_start(&transfer, world.engine, world.client, "tok",
                               "7", "9", NULL) == NYMBL_OK);
    return transfer;
}

nymbl_transfer *start_list(const nymbl_list_options *options)
{
    nymbl_transfer *transfer;

    REQUIRE(nymbl_list_start(&transfer, world.engine, world.client, "tok", "7",
                             options, NULL) == NYMBL_OK);
    return transfer;
}

nymbl_transfer *start_download(const nymbl_download_options *options)
{
    nymbl_download_options known = {0};

    if (options != NULL)
        known = *options;
    if (known.content_type == NULL)
        known.content_type = "application/octet-stream";
    return start_unknown(&known);
}

nymbl_transfer *start_unknown(const nymbl_download_options *options)
{
    nymbl_transfer *transfer;

    REQUIRE(nymbl_download_start(&transfer, world.engine, world.client, "tok",
                                 "7", "9", options, NULL) == NYMBL_OK);
    return transfer;
}

nymbl_transfer *start_upload(nymbl_body *body)
{
    nymbl_upload_options options = {.file_name = "a.pdf",
                                    .content_type = "application/pdf"};
    nymbl_transfer *transfer;

    REQUIRE(nymbl_upload_start(&transfer, world.engine, world.client, "tok",
                               "7", body, &options, NULL) == NYMBL_OK);
    return transfer;
}

nymbl_body *body_of(const void *data, size_t size)
{
    nymbl_body *body;

    REQUIRE(nymbl_body_from_bytes(&body, data, size, NULL) == NYMBL_OK);
    return body;
}

nymbl_counts counts_of(nymbl_transfer *transfer)
{
    nymbl_counts counts;

    nymbl_transfer_counts(transfer, &counts);
    return counts;
}

char *pattern(size_t size)
{
    char *data = malloc(size + 1);
    uint32_t state = 12345;

    REQUIRE(data != NULL);
    for (size_t i = 0; i < size; i++) {
        state = state * 1664525u + 1013904223u;
        data[i] = (char)(state >> 24);
    }
    data[size] = '\0';
    return data;
}
