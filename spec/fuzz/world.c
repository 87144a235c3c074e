/* SPDX-License-Identifier: MIT */
/* The environment of an input: files, an engine and a client. */
#include "response.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char base[64], dir[80], target[96];
char *small, *large;
double tick;
nymbl_engine *engine;
nymbl_client *client;

static double now; /* the engine's clock */

void path_make(char *path, size_t cap, const char *within, const char *name)
{
    if (snprintf(path, cap, "%s/%s", within, name) >= (int)cap)
        abort();
}

void file_write(const char *path, const void *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    close(fd);
}

bool file_read(const char *path, bytes *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    char piece[16384];
    ssize_t got;

    *out = (bytes){0};
    bytes_add(out, "", 0);
    if (fd < 0)
        return false;
    while ((got = read(fd, piece, sizeof(piece))) > 0)
        bytes_add(out, piece, (size_t)got);
    close(fd);
    return true;
}

void folder_empty(void)
{
    DIR *opened = opendir(dir);
    struct dirent *entry;

    if (opened == NULL)
        abort();
    while ((entry = readdir(opened)) != NULL)
        unlinkat(dirfd(opened), entry->d_name, 0);
    closedir(opened);
}

static bool ends_with(const char *text, const char *ending)
{
    size_t length = strlen(text), more = strlen(ending);

    return length >= more && strcmp(text + length - more, ending) == 0;
}

void folder_check(bool parts)
{
    DIR *opened = opendir(dir);
    struct dirent *entry;

    if (opened == NULL)
        abort();
    while ((entry = readdir(opened)) != NULL) {
        const char *name = entry->d_name;

        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
            strcmp(name, "document") == 0)
            continue;
        need(parts && (ends_with(name, ".nymbl-part") ||
                       ends_with(name, ".nymbl-meta")),
             "a file was left over");
    }
    closedir(opened);
}

static void base_remove(void)
{
    char path[128];

    folder_empty();
    rmdir(dir);
    path_make(path, sizeof(path), base, "small");
    unlink(path);
    path_make(path, sizeof(path), base, "large");
    unlink(path);
    rmdir(base);
}

static char *content_make(const char *name, size_t size)
{
    char *data = malloc(size);
    char path[128];
    uint32_t state = 12345;

    if (data == NULL)
        abort();
    for (size_t i = 0; i < size; i++) {
        state = state * 1664525u + 1013904223u;
        data[i] = (char)(state >> 24);
    }
    memcpy(data, "%PDF-1.4\n", 9);
    path_make(path, sizeof(path), base, name);
    file_write(path, data, size);
    return data;
}

static double clock_read(void *payload)
{
    (void)payload;
    return now += tick;
}

int fd_lowest(void)
{
    int fd = fcntl(0, F_DUPFD_CLOEXEC, 3);

    if (fd >= 0)
        close(fd);
    return fd;
}

void target_open(void)
{
    const char *where = getenv("TMPDIR");

    if (where == NULL) /* in memory, which is faster than a disk */
        where = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    path_make(base, sizeof(base), where, "nymbl-fuzz-XXXXXX");
    if (mkdtemp(base) == NULL)
        abort();
    path_make(dir, sizeof(dir), base, "folder");
    if (mkdir(dir, 0700) < 0)
        abort();
    path_make(target, sizeof(target), dir, "document");
    small = content_make("small", SMALL_SIZE);
    large = content_make("large", LARGE_SIZE);
    atexit(base_remove);
    server_open();
}

void world_open(void)
{
    nymbl_engine_options clock = {.clock = clock_read};
    nymbl_client_options options = {
        .api_key = "key-of-test",
        .client_id = "id",
        .client_secret = "secret",
        .proxy = "",
        .allow_http = true,
    };
    char url[64], token_url[64];

    now = tick = 0;
    snprintf(url, sizeof(url), "http://127.0.0.1:%d/v1", server.port);
    snprintf(token_url, sizeof(token_url), "http://127.0.0.1:%d/token",
             server.port);
    options.base_url = url;
    options.token_url = token_url;
    if (nymbl_engine_new(&engine, &clock, NULL) != NYMBL_OK ||
        nymbl_client_new(&client, &options, NULL) != NYMBL_OK)
        abort();
}

void world_close(void)
{
    nymbl_client_free(client);
    nymbl_engine_free(engine);
}
