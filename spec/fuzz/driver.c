/* SPDX-License-Identifier: MIT */
/* Replays inputs without libFuzzer: files, and directories of them.
 *
 *   fuzz_response [--all] PATH...
 *
 * With --all it fails if the inputs together do not reach every part of the
 * target. */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define INPUT_MAX (1u << 20)

static unsigned inputs;

static bool replay_file(const char *path)
{
    static uint8_t buffer[INPUT_MAX];
    FILE *file = fopen(path, "rb");
    uint8_t *exact;
    size_t size;

    if (file == NULL) {
        perror(path);
        return false;
    }
    size = fread(buffer, 1, sizeof(buffer), file);
    fclose(file);
    exact = malloc(size > 0 ? size : 1); /* detects overreads */
    if (exact == NULL)
        return false;
    memcpy(exact, buffer, size);
    fprintf(stderr, "%s\n", path); /* the last one before a crash */
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    inputs++;
    return true;
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static bool replay(const char *path)
{
    struct dirent **names;
    struct stat status;
    bool good = true;
    int count;

    if (stat(path, &status) < 0 || !S_ISDIR(status.st_mode))
        return replay_file(path);
    count = scandir(path, &names, visible, alphasort);
    if (count < 0) {
        perror(path);
        return false;
    }
    for (int i = 0; i < count; i++) {
        char name[4096];

        snprintf(name, sizeof(name), "%s/%s", path, names[i]->d_name);
        good = replay_file(name) && good;
        free(names[i]);
    }
    free(names);
    return good;
}

int main(int argc, char **argv)
{
    bool good = true, all = false;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--all") == 0)
            all = true;
        else
            good = replay(argv[i]) && good;
    }
    printf("tried %u inputs of fuzz targets\n", inputs);
    if (!fuzz_report() && all)
        good = false;
    return good && inputs > 0 ? 0 : 1;
}
