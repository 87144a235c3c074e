/* SPDX-License-Identifier: MIT */
/* The load for spec/bench/nginx and spec/bench/gateway: several concurrent
 * downloads through a worker, and pings to the same worker meanwhile.
 *
 *   load SOCKET PID PATH COUNT AT_ONCE SECONDS
 *
 * It prints the milliseconds of pings (p50, p99, maximum), the seconds, the
 * number of complete downloads, the CPU seconds of the worker, and its resident
 * kilobytes before and at most. It ends after all downloads, or after SECONDS.
 * LOAD_COOKIE in the environment is the header Cookie of its requests.
 *
 *   load port
 *
 * prints a free port. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PINGS_MAX 100000
#define AT_ONCE_MAX 500

static const char *socket_path;
static atomic_bool stopping;
static int ping_fd;
static double latencies[PINGS_MAX];
static size_t pings;

/* A connection that requests one download after the other. */
static struct loader {
    int fd;
    char head[4096];
    size_t head_size;
    long long left; /* bytes left in the body; -1: the head is not complete */
} loaders[AT_ONCE_MAX];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int open_socket(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(name.sun_path, sizeof(name.sun_path), "%s", socket_path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&name, sizeof(name)) != 0)
        fail("connect");
    return fd;
}

static void ask(int fd, const char *path)
{
    const char *cookie = getenv("LOAD_COOKIE");
    char text[512];
    int size =
        snprintf(text, sizeof(text),
                 "GET %s HTTP/1.1\r\nHost: localhost\r\nCookie: %s\r\n\r\n",
                 path, cookie != NULL ? cookie : "");

    if (send(fd, text, (size_t)size, MSG_NOSIGNAL) != size &&
        !atomic_load(&stopping))
        fail("send");
}

/* ---- pings ---- */

static void *ping(void *unused)
{
    double due = now();

    (void)unused;
    while (!atomic_load(&stopping) && pings < PINGS_MAX) {
        double sent, left = due - now();
        char response[1024];
        ssize_t got;

        if (left > 0) {
            struct timespec pause = {.tv_nsec = (long)(left * 1e9)};

            nanosleep(&pause, NULL);
        }
        sent = now();
        ask(ping_fd, "/ping");
        got = recv(ping_fd, response, sizeof(response), 0);
        if (got <= 0 && !atomic_load(&stopping))
            fail("ping");
        latencies[pings++] = now() - sent; /* no answer: the time so far */
        due += 0.001;
        if (due < now())
            due = now();
    }
    return NULL;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* ---- downloads ---- */

static void loader_start(struct loader *loader, const char *path)
{
    loader->head_size = 0;
    loader->left = -1;
    ask(loader->fd, path);
}

/* Read what has arrived. Returns true when the response is complete. */
static bool loader_serve(struct loader *loader)
{
    static char bytes[65536];
    ssize_t got = recv(loader->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    const char *length, *end;
    size_t body, kept;

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (got <= 0)
        fail("download");
    if (loader->left >= 0) {
        loader->left -= got;
        return loader->left == 0;
    }
    kept = sizeof(loader->head) - 1 - loader->head_size;
    if (kept > (size_t)got)
        kept = (size_t)got;
    memcpy(loader->head + loader->head_size, bytes, kept);
    loader->head_size += kept;
    loader->head[loader->head_size] = '\0';
    end = strstr(loader->head, "\r\n\r\n");
    if (end == NULL)
        return false;
    length = strcasestr(loader->head, "\r\ncontent-length:");
    if (strncmp(loader->head, "HTTP/1.1 200", 12) != 0 || length == NULL) {
        fprintf(stderr, "%s\n", loader->head);
        exit(1);
    }
    body = loader->head_size - (size_t)(end + 4 - loader->head) +
           ((size_t)got - kept);
    loader->left = atoll(length + 17) - (long long)body;
    return loader->left == 0;
}

/* Returns the number of complete downloads. */
static int download(const char *path, int count, int at_once, double seconds)
{
    struct pollfd waitfds[AT_ONCE_MAX];
    double end = now() + seconds;
    int asked = 0, done = 0;

    for (int i = 0; i < at_once; i++) {
        loaders[i].fd = open_socket();
        waitfds[i] = (struct pollfd){.fd = loaders[i].fd, .events = POLLIN};
    }
    for (; asked < at_once && asked < count; asked++)
        loader_start(&loaders[asked], path);
    while (done < count && now() < end) {
        poll(waitfds, (nfds_t)at_once, 100);
        for (int i = 0; i < at_once; i++) {
            if (waitfds[i].revents == 0 || !loader_serve(&loaders[i]))
                continue;
            done++;
            if (asked++ < count)
                loader_start(&loaders[i], path);
            else
                waitfds[i].fd = -1;
        }
    }
    return done;
}

/* ---- the worker ---- */

/* CPU seconds of all its threads. */
static double cpu_of(const char *pid)
{
    char path[64], text[1024] = "";
    unsigned long user = 0, system = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%s/stat", pid);
    file = fopen(path, "r");
    if (file == NULL || fgets(text, sizeof(text), file) == NULL)
        fail(path);
    fclose(file);
    sscanf(strrchr(text, ')'),
           ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
           &system);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

/* "VmRSS:", or "VmHWM:" for the maximum so far; kilobytes. */
static long resident(const char *pid, const char *field)
{
    char path[64], line[256];
    long size = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%s/status", pid);
    file = fopen(path, "r");
    if (file == NULL)
        fail(path);
    while (fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, field, strlen(field)) == 0)
            size = atol(line + strlen(field));
    }
    fclose(file);
    return size;
}

static int port_print(void)
{
    struct sockaddr_in name = {.sin_family = AF_INET};
    socklen_t size = sizeof(name);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&name, size) != 0 ||
        getsockname(fd, (struct sockaddr *)&name, &size) != 0)
        fail("port");
    printf("%d\n", ntohs(name.sin_port));
    return 0;
}

int main(int argc, char **argv)
{
    double began, cpu, seconds;
    long before;
    pthread_t thread;
    int done;

    if (argc == 2)
        return port_print();
    if (argc != 7 || atoi(argv[5]) > AT_ONCE_MAX)
        return 2;
    socket_path = argv[1];
    ping_fd = open_socket();
    before = resident(argv[2], "VmRSS:");
    cpu = cpu_of(argv[2]);
    began = now();
    if (pthread_create(&thread, NULL, ping, NULL) != 0)
        fail("thread");
    done = download(argv[3], atoi(argv[4]), atoi(argv[5]), atof(argv[6]));
    seconds = now() - began;
    atomic_store(&stopping, true);
    shutdown(ping_fd, SHUT_RDWR);
    pthread_join(thread, NULL);
    cpu = cpu_of(argv[2]) - cpu;
    qsort(latencies, pings, sizeof(*latencies), compare);
    printf("%.3f %.3f %.3f %.2f %d %.2f %ld %ld\n", latencies[pings / 2] * 1e3,
           latencies[pings * 99 / 100] * 1e3, latencies[pings - 1] * 1e3,
           seconds, done, cpu, before, resident(argv[2], "VmHWM:"));
    return 0;
}
