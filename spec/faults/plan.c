/* SPDX-License-Identifier: MIT */
/* Plans of faults: which call fails. */
#include "faults.h"
#include "strike.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define ALWAYS_MAX 8
#define SMALL 16 /* bytes of a wakeup, which has no parts */

typedef struct plan {
    struct plan *previous;
    atomic_long calls;
    long kill_at, fail_at;
    int kill_with, fail_with;
    bool goes_on; /* all calls from fail_at on fail */
    bool shortens;
    _Atomic unsigned random;
    struct {
        char call[16];
        int error;
    } always[ALWAYS_MAX];
    int always_count;
    const char *_Atomic struck;
} plan;

/* The current plan, or NULL. Other threads may still use one that has ended, so
 * none is freed. */
static plan *_Atomic current;
static plan *plans;

static _Thread_local bool paused, spared;

void (*faults_watch)(const char *call, int fd);
const char *faults_boot;

static void watch(const char *call, int fd)
{
    if (faults_watch == NULL)
        return;
    paused = true;
    faults_watch(call, fd);
    paused = false;
}

static int error_of(const char *name)
{
    static const struct {
        const char *name;
        int code;
    } errors[] = {
        {"ENOSPC", ENOSPC},   {"EIO", EIO},
        {"EMFILE", EMFILE},   {"EINTR", EINTR},
        {"EPERM", EPERM},     {"EACCES", EACCES},
        {"EINVAL", EINVAL},   {"ENOTSUP", ENOTSUP},
        {"EXDEV", EXDEV},     {"EROFS", EROFS},
        {"EDQUOT", EDQUOT},   {"ENOLCK", ENOLCK},
        {"ENOENT", ENOENT},   {"ENOMEM", ENOMEM},
        {"EBADF", EBADF},     {"ENOSYS", ENOSYS},
        {"ENOTTY", ENOTTY},   {"EMLINK", EMLINK},
        {"EAGAIN", EAGAIN},   {"ECONNRESET", ECONNRESET},
        {"ENOBUFS", ENOBUFS}, {"ECONNABORTED", ECONNABORTED},
    };

    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        if (strcmp(name, errors[i].name) == 0)
            return errors[i].code;
    }
    fprintf(stderr, "faults: unknown error %s\n", name);
    abort();
}

static void word_take(plan *plan, char *word)
{
    char *value = strchr(word, '=');
    char *colon;

    if (value == NULL) {
        fprintf(stderr, "faults: not a plan: %s\n", word);
        abort();
    }
    *value++ = '\0';
    colon = strchr(value, ':');
    if (strcmp(word, "kill") == 0 || strcmp(word, "term") == 0) {
        plan->kill_at = atol(value);
        plan->kill_with = *word == 'k' ? SIGKILL : SIGTERM;
    } else if ((strcmp(word, "fail") == 0 || strcmp(word, "from") == 0) &&
               colon != NULL) {
        plan->goes_on = strcmp(word, "from") == 0;
        plan->fail_at = atol(value);
        plan->fail_with = error_of(colon + 1);
    } else if (strcmp(word, "short") == 0) {
        plan->shortens = true;
        plan->random = (unsigned)strtoul(value, NULL, 10);
    } else if (plan->always_count < ALWAYS_MAX) {
        snprintf(plan->always[plan->always_count].call, 16, "%s", word);
        plan->always[plan->always_count++].error = error_of(value);
    }
}

void faults_plan(const char *words)
{
    char text[256], *rest = NULL;
    plan *made;

    current = NULL;
    if (words == NULL)
        return;
    made = calloc(1, sizeof(*made));
    if (made == NULL)
        abort();
    made->previous = plans;
    plans = made;
    snprintf(text, sizeof(text), "%s", words);
    for (char *word = strtok_r(text, " ", &rest); word != NULL;
         word = strtok_r(NULL, " ", &rest))
        word_take(made, word);
    current = made;
}

long faults_calls(void)
{
    const plan *plan = current;

    return plan != NULL ? plan->calls : 0;
}

const char *faults_struck(void)
{
    const plan *plan = current;

    return plan != NULL ? plan->struck : NULL;
}

unsigned faults_seed(unsigned otherwise)
{
    const char *text = getenv("NYMBL_SEED");

    return text != NULL ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

void faults_pause(bool pause)
{
    paused = pause;
}

void spare(bool spare)
{
    spared = spare;
}

static plan *plan_in_force(void)
{
    return paused || spared ? NULL : current;
}

__attribute__((constructor)) static void plan_of_the_environment(void)
{
    const char *words = getenv("NYMBL_FAULTS");

    faults_boot = getenv("NYMBL_FAULTS_BOOT");
    if (words != NULL)
        faults_plan(words);
}

int faults_begin(void *state)
{
    (void)state;
    faults_plan(getenv("NYMBL_FAULTS_LATER"));
    return 0;
}

int faults_end(void *state)
{
    const char *path = getenv("NYMBL_FAULTS_REPORT");
    long calls = faults_calls();
    const char *struck = faults_struck();
    FILE *report;

    (void)state;
    faults_plan(NULL);
    report = path != NULL ? fopen(path, "w") : NULL;
    if (report != NULL) {
        fprintf(report, "%ld %s\n", calls, struck != NULL ? struck : "-");
        fclose(report);
    }
    return 0;
}

/* ---- calls ---- */

static unsigned random_next(plan *plan)
{
    unsigned next = plan->random * 1664525u + 1013904223u;

    plan->random = next;
    return next >> 16;
}

/* Not strcmp(): the thread sanitizer would see that it reads a plan, but not
 * that `current` orders this after the plan was made, as this file is compiled
 * without it. */
static bool is_same(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b)
        a++, b++;
    return *a == *b;
}

bool strikes(const char *call)
{
    plan *plan = plan_in_force();
    long number;

    if (plan == NULL)
        return false;
    watch(call, -1);
    number = ++plan->calls;
    if (number == plan->kill_at)
        kill(getpid(), plan->kill_with);
    for (int i = 0; i < plan->always_count; i++) {
        if (is_same(plan->always[i].call, call)) {
            errno = plan->always[i].error;
            return true;
        }
    }
    if (number != plan->fail_at && !(plan->goes_on && number > plan->fail_at))
        return false;
    if (plan->struck == NULL)
        plan->struck = call;
    errno = plan->fail_with;
    return true;
}

/* Whether this process has both ends of what a descriptor refers to. */
static bool is_own(int fd)
{
    int saved_errno = errno, family = 0;
    struct stat status = {0};
    struct ucred peer = {0};
    socklen_t size = sizeof(family), peer_size = sizeof(peer);
    bool own;

    paused = true;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) == 0)
        own = family == AF_UNIX &&
              getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_size) == 0 &&
              peer.pid == getpid();
    else /* an eventfd has no type */
        own = fstat(fd, &status) == 0 && (status.st_mode & S_IFMT) == 0;
    paused = false;
    errno = saved_errno;
    return own;
}

bool strikes_bytes(const char *call, int fd)
{
    const plan *plan = plan_in_force();

    if (plan != NULL && plan->goes_on && is_own(fd))
        return false;
    return strikes(call);
}

bool interrupts(void)
{
    plan *plan = plan_in_force();

    if (plan == NULL || !plan->shortens || random_next(plan) % 4 != 0)
        return false;
    errno = EINTR;
    return true;
}

size_t cut(size_t size)
{
    plan *plan = plan_in_force();

    return plan != NULL && plan->shortens && size > SMALL
               ? 1 + random_next(plan) % size
               : size;
}

void synced(int fd)
{
    if (plan_in_force() != NULL)
        watch("synced", fd);
}
