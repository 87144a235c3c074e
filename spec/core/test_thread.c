/* SPDX-License-Identifier: MIT */
/* The engine's own thread: waiting on notify fds and notify sockets, canceling,
 * releasing and forking while it runs. */
#include "peer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#define PATTERN_SIZE 700000
#define CONNECTIONS 256
#define WAIT_LIMIT_MS 20000 /* a longer wait has lost its wake-up */

static char *bytes;

/* ---- a server in a separate process ---- */

static int server_port;
static pid_t server_pid;

struct connection {
    int fd;
    text in, out;
    size_t sent;
};

static unsigned hash_of(const char *data, size_t size)
{
    unsigned hash = 2166136261u;

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)data[i]) * 16777619u;
    return hash;
}

/* The size of a complete request with its body in `body`; 0 if more is to come.
 * The chunk framing is not copied to `body`. */
static size_t request_whole(const text *in, const char *end, text *body)
{
    const char *length = strcasestr(in->data, "\r\nContent-Length:");
    size_t at = (size_t)(end - in->data), size;
    char *stop;

    if (strncmp(in->data, "POST", 4) != 0)
        return at;
    if (length != NULL && length < end) {
        size = strtoul(length + 17, NULL, 10);
        if (in->size - at < size)
            return 0;
        text_add(body, end, size);
        return at + size;
    }
    for (;;) {
        if (memchr(in->data + at, '\n', in->size - at) == NULL)
            return 0;
        size = strtoul(in->data + at, &stop, 16);
        at = (size_t)(stop - in->data) + 2;
        if (in->size < at + size + 2)
            return 0;
        text_add(body, in->data + at, size);
        at += size + 2;
        if (size == 0)
            return at;
    }
}

static void response_add(struct connection *connection, int status,
                         const char *type, const char *data, size_t size)
{
    char head[128];

    snprintf(head, sizeof(head),
             "HTTP/1.1 %d Words\r\nContent-Type: %s\r\n"
             "Content-Length: %zu\r\n\r\n",
             status, type, size);
    text_add(&connection->out, head, strlen(head));
    text_add(&connection->out, data, size);
}

/* Answer a complete request: GET returns as many bytes as the document's id
 * says, and never ends for "hang"; POST returns a hash of the file. */
static bool request_serve(struct connection *connection)
{
    text *in = &connection->in;
    char *end = in->size == 0 ? NULL : strstr(in->data, "\r\n\r\n");
    char *id = in->size == 0 ? NULL : strstr(in->data, "Documents(");
    text body = {0};
    char json[64];
    size_t size;

    if (end == NULL)
        return false;
    if (strncmp(in->data, "POST", 4) == 0 && connection->sent == 0 &&
        connection->out.size == 0 &&
        strcasestr(in->data, "Expect: 100") != NULL)
        text_add(&connection->out, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    size = request_whole(in, end + 4, &body);
    if (size == 0) {
        text_free(&body);
        return false;
    }
    if (strncmp(in->data, "POST", 4) == 0) {
        char *line = strstr(body.data, "\r\n");
        size_t boundary_size = (size_t)(line - body.data);
        char *from = strstr(body.data, "\r\n\r\n") + 4;
        char *to =
            memmem(from, body.size - (size_t)(from - body.data), "\r\n--", 4);

        while (memcmp(to + 2, body.data, boundary_size) != 0)
            to = memmem(to + 1, body.size - (size_t)(to + 1 - body.data),
                        "\r\n--", 4);
        snprintf(json, sizeof(json), "{\"id\":%u}",
                 hash_of(from, (size_t)(to - from)));
        response_add(connection, 201, "application/json", json, strlen(json));
    } else if (strncmp(id + 10, "hang", 4) != 0) {
        response_add(connection, 200, "application/octet-stream", bytes,
                     strtoul(id + 10, NULL, 10));
    }
    memmove(in->data, in->data + size, in->size - size + 1);
    in->size -= size;
    text_free(&body);
    return true;
}

static void connection_end(struct connection *connection)
{
    close(connection->fd);
    text_free(&connection->in);
    text_free(&connection->out);
    connection->sent = 0;
    connection->fd = -1;
}

static void connection_serve(struct connection *connection)
{
    char data[65536];
    ssize_t got = recv(connection->fd, data, sizeof(data), MSG_DONTWAIT);

    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        connection_end(connection);
        return;
    }
    if (got > 0)
        text_add(&connection->in, data, (size_t)got);
    while (got > 0 && request_serve(connection))
        ;
    if (connection->out.size > connection->sent) {
        got = send(connection->fd, connection->out.data + connection->sent,
                   connection->out.size - connection->sent,
                   MSG_DONTWAIT | MSG_NOSIGNAL);
        if (got > 0)
            connection->sent += (size_t)got;
        if (connection->sent == connection->out.size) {
            text_free(&connection->out);
            connection->sent = 0;
        }
    }
}

static void server_run(int listener)
{
    static struct connection connections[CONNECTIONS];
    struct pollfd waitfds[CONNECTIONS + 1];

    for (int i = 0; i < CONNECTIONS; i++)
        connections[i].fd = -1;
    for (;;) {
        int free_slot = -1;

        for (int i = 0; i < CONNECTIONS; i++) {
            struct connection *connection = &connections[i];
            bool writes = connection->out.size > connection->sent;

            waitfds[i] = (struct pollfd){
                .fd = connection->fd,
                .events = (short)(POLLIN | (writes ? POLLOUT : 0))};
            if (connection->fd < 0)
                free_slot = i;
        }
        waitfds[CONNECTIONS] = (struct pollfd){
            .fd = free_slot < 0 ? -1 : listener, .events = POLLIN};
        poll(waitfds, CONNECTIONS + 1, -1);
        for (int i = 0; i < CONNECTIONS; i++) {
            if (waitfds[i].fd >= 0 && waitfds[i].revents != 0)
                connection_serve(&connections[i]);
        }
        if (waitfds[CONNECTIONS].fd >= 0 && waitfds[CONNECTIONS].revents != 0)
            connections[free_slot].fd = accept(listener, NULL, NULL);
    }
}

/* Call this before the process has a thread. */
static void server_start(void)
{
    int listener = listener_open(&server_port, 512);

    fflush(stdout);
    server_pid = fork();
    REQUIRE(server_pid >= 0);
    if (server_pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        server_run(listener);
        _exit(0);
    }
    close(listener);
}

/* ---- helpers ---- */

/* A world whose engine has its thread; `served`: the server is its peer. */
static void thread_open(bool served, int max_connections)
{
    nymbl_client_options options = {.max_connections = max_connections};
    char url[64];

    if (served) {
        snprintf(url, sizeof(url), "http://127.0.0.1:%d/v1", server_port);
        options.base_url = url;
    }
    world_open(&options);
    CHECK(nymbl_engine_start_thread(world.engine, NULL) == NYMBL_OK);
    CHECK(nymbl_engine_start_thread(world.engine, NULL) == NYMBL_OK);
}

static nymbl_transfer *download_of(const char *id, const char *path)
{
    nymbl_download_options options = {.path = path,
                                      .content_type = "text/plain"};
    nymbl_transfer *transfer;

    REQUIRE(nymbl_download_start(&transfer, world.engine, world.client, "tok",
                                 "7", id, &options, NULL) == NYMBL_OK);
    return transfer;
}

/* Open a file or directory that is to be removed. As long as it is open, no
 * other one gets its inode. All processes number their directories alike, so
 * its path may be another process's soon. */
static int held_open(const char *path)
{
    int held = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);

    REQUIRE(held >= 0);
    return held;
}

/* Check that it does not have its path any more. */
static void check_removed(int held, const char *path)
{
    struct stat was, is;

    CHECK(fstat(held, &was) == 0);
    CHECK(lstat(path, &is) < 0 || is.st_dev != was.st_dev ||
          is.st_ino != was.st_ino);
    close(held);
}

static int notify_fd_of(nymbl_transfer *transfer)
{
    int fd = -1;

    REQUIRE(nymbl_transfer_notify_fd(transfer, &fd, NULL) == NYMBL_OK);
    return fd;
}

static nymbl_notify_socket notify_socket_of(nymbl_transfer *transfer)
{
    nymbl_notify_socket notify;

    REQUIRE(nymbl_transfer_notify_socket(transfer, &notify, NULL) == NYMBL_OK);
    CHECK_NUMBER((long long)strlen(notify.token), 32);
    return notify;
}

static int listener_connect(const nymbl_notify_socket *notify)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(name.sun_path, notify->path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&name, sizeof(name)) != 0) {
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

static int notify_connect(const nymbl_notify_socket *notify)
{
    int fd = listener_connect(notify);

    REQUIRE(fd >= 0);
    CHECK(send(fd, notify->token, 32, MSG_NOSIGNAL) == 32);
    return fd;
}

/* Wait until the descriptor is readable. */
static bool is_woken(int fd, int milliseconds)
{
    struct pollfd waitfds = {.fd = fd, .events = POLLIN};

    return poll(&waitfds, 1, milliseconds) == 1;
}

/* The number of available bytes, or -1 at the end. */
static int wakes_take(int fd)
{
    char data[64];
    ssize_t got = recv(fd, data, sizeof(data), MSG_DONTWAIT);

    return got > 0 ? (int)got : got < 0 && errno == EAGAIN ? 0 : -1;
}

static bool is_at_end(int fd)
{
    return is_woken(fd, WAIT_LIMIT_MS) && wakes_take(fd) < 0;
}

/* Wait until the thread has carried out all commands. */
static bool comes_to(int (*count)(int), int argument, int expected)
{
    for (int i = 0; i < WAIT_LIMIT_MS && count(argument) != expected; i++)
        usleep(1000);
    return count(argument) == expected;
}

static int live(int none)
{
    (void)none;
    return (int)nymbl_object_count();
}

static nymbl_kind wait_result(nymbl_transfer *transfer, nymbl_error *err)
{
    nymbl_kind kind = nymbl_transfer_result(transfer, err);

    while (kind == NYMBL_AGAIN) {
        REQUIRE(nymbl_transfer_wait(transfer, 20) == NYMBL_OK);
        kind = nymbl_transfer_result(transfer, err);
    }
    return kind;
}

static double cpu_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Whether the thread sleeps, as it should while nothing happens. */
static bool is_calm(void)
{
    double before;

    usleep(50000);
    before = cpu_seconds();
    usleep(200000);
    return cpu_seconds() - before < 0.05;
}

static struct rlimit descriptors_before;
static int descriptors_taken[64], descriptors_count;

/* Use up all descriptors of the process. */
static void descriptors_use_up(void)
{
    struct rlimit tight;

    getrlimit(RLIMIT_NOFILE, &descriptors_before);
    tight = descriptors_before;
    tight.rlim_cur = 64;
    setrlimit(RLIMIT_NOFILE, &tight);
    for (descriptors_count = 0; descriptors_count < 64; descriptors_count++) {
        int fd = dup(0);

        if (fd < 0)
            break;
        descriptors_taken[descriptors_count] = fd;
    }
    CHECK(descriptors_count < 64);
}

static void descriptors_release(void)
{
    setrlimit(RLIMIT_NOFILE, &descriptors_before);
    while (descriptors_count > 0)
        close(descriptors_taken[--descriptors_count]);
}

static bool file_is(const char *name, size_t size)
{
    text got = world_read(name);
    bool same = got.size == size && memcmp(got.data, bytes, size) == 0;

    text_free(&got);
    return same;
}

static void peer_end_awaited(peer *peer)
{
    for (int i = 0; i < WAIT_LIMIT_MS && !peer->eof; i++) {
        peer_take(peer);
        usleep(1000);
    }
    CHECK(peer->eof);
    peer_close(peer);
}

/* ---- many at once ---- */

enum work { STREAM, SAVE, SEND_PATH, SEND_BYTES, SEND_STREAM, GET, WORKS };

struct slot {
    nymbl_transfer *transfer;
    nymbl_body *body;
    enum work work;
    int fd, number;
    size_t size, at;
    int waits, wakes;
    int steps_left; /* until it is canceled; -1: never */
    bool canceled;
};

static uint32_t dice_state;

static uint32_t dice(uint32_t sides)
{
    dice_state = dice_state * 1664525u + 1013904223u;
    return (dice_state >> 8) % sides;
}

static void slot_open(struct slot *slot, int number)
{
    static const size_t sizes[] = {0,     1,      31,     5000,
                                   65536, 131072, 131073, 400000};
    char id[32], name[32];

    *slot = (struct slot){.work = dice(WORKS),
                          .number = number,
                          .size = sizes[dice(8)],
                          .steps_left = dice(4) == 0 ? (int)dice(6) : -1};
    snprintf(id, sizeof(id), "%zu", slot->size);
    snprintf(name, sizeof(name), "%d", number);
    switch (slot->work) {
    case STREAM:
        slot->transfer = download_of(id, NULL);
        break;
    case SAVE:
        slot->transfer = download_of(id, world_path(name));
        break;
    case SEND_PATH:
        world_write(name, bytes, slot->size);
        REQUIRE(nymbl_body_from_path(&slot->body, world_path(name), NULL) ==
                NYMBL_OK);
        break;
    case SEND_BYTES:
        slot->body = body_of(bytes, slot->size);
        break;
    case SEND_STREAM:
        REQUIRE(nymbl_body_stream(&slot->body, (int64_t)slot->size, NULL) ==
                NYMBL_OK);
        break;
    default:
        REQUIRE(nymbl_get_start(&slot->transfer, world.engine, world.client,
                                "tok", "7", id, NULL) == NYMBL_OK);
        break;
    }
    if (slot->body != NULL)
        slot->transfer = start_upload(slot->body);
    if (dice(2) == 0) {
        slot->fd = -1; /* it may have ended already */
        nymbl_transfer_notify_fd(slot->transfer, &slot->fd, NULL);
    } else {
        nymbl_notify_socket notify;

        slot->fd = nymbl_transfer_notify_socket(slot->transfer, &notify,
                                                NULL) == NYMBL_OK
                       ? notify_connect(&notify)
                       : -1;
    }
}

static void slot_close(struct slot *slot)
{
    if (slot->fd >= 0 && dice(2) == 0)
        close(slot->fd), slot->fd = -1;
    nymbl_transfer_free(slot->transfer);
    nymbl_body_free(slot->body);
    if (slot->fd >= 0)
        close(slot->fd);
    slot->transfer = NULL;
}

/* The result, and whether its content is correct. */
static void slot_check(struct slot *slot, nymbl_kind kind)
{
    char expected[64], name[32];
    const char *response;
    size_t size;

    if (slot->canceled && kind == NYMBL_CANCELED)
        return;
    CHECK_NUMBER(kind, NYMBL_OK);
    response = nymbl_transfer_body(slot->transfer, &size);
    snprintf(name, sizeof(name), "%d", slot->number);
    switch (slot->work) {
    case STREAM:
        CHECK(slot->at == slot->size);
        break;
    case SAVE:
        CHECK(file_is(name, slot->size));
        break;
    case GET:
        CHECK(size == slot->size &&
              (size == 0 || memcmp(response, bytes, size) == 0));
        break;
    default:
        snprintf(expected, sizeof(expected), "{\"id\":%u}",
                 hash_of(bytes, slot->size));
        CHECK(size == strlen(expected) &&
              memcmp(response, expected, size) == 0);
        break;
    }
}

/* Transfer as many bytes as possible. Returns the kind that stops it. */
static nymbl_kind slot_step(struct slot *slot)
{
    char piece[30011];
    nymbl_kind kind = NYMBL_OK;
    size_t got;

    while (slot->work == SEND_STREAM && slot->at <= slot->size) {
        size_t size = slot->size - slot->at;

        kind = nymbl_body_write(slot->body, bytes + slot->at, size, &got);
        slot->at += got;
        if (kind == NYMBL_AGAIN)
            return kind;
        nymbl_body_finish(slot->body);
        slot->at = slot->size + 1;
    }
    while (slot->work == STREAM) {
        kind = nymbl_transfer_read(slot->transfer, piece, sizeof(piece), &got,
                                   NULL);
        if (kind != NYMBL_OK)
            return kind == NYMBL_DONE ? NYMBL_OK : kind;
        CHECK(slot->at + got <= slot->size &&
              memcmp(piece, bytes + slot->at, got) == 0);
        slot->at += got;
    }
    return nymbl_transfer_result(slot->transfer, NULL);
}

/* Continue a slot, and return whether it has ended. */
static bool slot_serve(struct slot *slot)
{
    nymbl_kind kind;

    if (slot->steps_left >= 0 && slot->steps_left-- == 0) {
        if (dice(2) == 0) {
            slot_close(slot);
            return true;
        }
        slot->canceled = true;
        nymbl_transfer_cancel(slot->transfer, NYMBL_CANCELED, NULL);
    }
    if (slot->fd >= 0) {
        int wakes = wakes_take(slot->fd);

        slot->wakes += wakes > 0 ? wakes : 0;
        /* one more wake-up than calls: readiness before the first call */
        CHECK(slot->wakes <= slot->waits + 1);
    }
    kind = slot_step(slot);
    if (kind == NYMBL_AGAIN) {
        slot->waits++;
        REQUIRE(slot->fd >= 0); /* if there is none, the transfer has ended */
        return false;
    }
    slot_check(slot, kind);
    slot_close(slot);
    return true;
}

static void mixed_run(uint32_t seed, int total)
{
    static struct slot slots[40];
    struct pollfd waitfds[40];
    int started = 0, through = 0, rounds = 0;

    dice_state = seed;
    memset(slots, 0, sizeof(slots));
    while (through < total && !test_failed()) {
        REQUIRE(rounds++ < 100000);
        for (int i = 0; i < 40; i++) {
            while (slots[i].transfer == NULL && started < total) {
                slot_open(&slots[i], started++);
                if (slot_serve(&slots[i]))
                    through++;
            }
            waitfds[i] = (struct pollfd){
                .fd = slots[i].transfer == NULL ? -1 : slots[i].fd,
                .events = POLLIN};
        }
        if (through == total)
            break;
        REQUIRE(poll(waitfds, 40, WAIT_LIMIT_MS) > 0); /* no lost wake-up */
        for (int i = 0; i < 40; i++) {
            if (waitfds[i].fd >= 0 && waitfds[i].revents != 0 &&
                slot_serve(&slots[i]))
                through++;
        }
    }
    for (int i = 0; i < 40; i++) {
        if (slots[i].transfer != NULL)
            slot_close(&slots[i]);
    }
}

static void forty_at_once_arrive_byte_for_byte(void)
{
    const char *given = getenv("NYMBL_SEED");
    uint32_t first = given == NULL ? 1 : (uint32_t)strtoul(given, NULL, 10);

    for (uint32_t i = 0; i < 3; i++) {
        thread_open(true, i == 0 ? 0 : 40);
        mixed_run(first + i, 150);
        CHECK(comes_to(live, 0, 1));
        world_close();
    }
    printf("tried 450 random transfers on threads (seeds %u to %u)\n", first,
           first + 2);
}

/* ---- windows and notify fds ---- */

static void canceling_at_any_moment_is_canceled_or_too_late(void)
{
    thread_open(true, 0);
    for (int i = 0; i < 600; i++) {
        nymbl_transfer *transfer = download_of("31", NULL);
        nymbl_error err = {0};
        nymbl_kind kind;

        for (int spin = 0; spin < i * 200; spin++) /* about 100 us at most */
            atomic_signal_fence(memory_order_seq_cst);
        nymbl_transfer_cancel(transfer, NYMBL_TIMEOUT, "deadline");
        while (!nymbl_transfer_is_ready(transfer))
            nymbl_transfer_wait(transfer, 1);
        kind = nymbl_transfer_result(transfer, &err);
        while (kind == NYMBL_AGAIN) {
            char bytes[64];
            size_t got;

            nymbl_transfer_read(transfer, bytes, sizeof(bytes), &got, NULL);
            nymbl_transfer_wait(transfer, 1);
            kind = nymbl_transfer_result(transfer, &err);
        }
        if (kind != NYMBL_OK)
            CHECK_NUMBER(kind, NYMBL_TIMEOUT);
        nymbl_transfer_free(transfer);
    }
    world_close();
}

static void stream_that_nobody_reads_stops_at_its_window(void)
{
    nymbl_transfer *transfer;
    text got = {0};
    int64_t before;

    thread_open(true, 1);
    transfer = download_of("600000", NULL);
    for (int i = 0; i < WAIT_LIMIT_MS; i++) {
        if (counts_of(transfer).body_received > 100000)
            break;
        usleep(1000);
    }
    CHECK(is_calm());
    before = counts_of(transfer).body_received;
    CHECK(before > 100000 && before <= 131072);
    CHECK(read_all(transfer, &got, NULL) == NYMBL_DONE);
    CHECK(got.size == 600000 && memcmp(got.data, bytes, 600000) == 0);
    text_free(&got);
    nymbl_transfer_free(transfer);
    world_close();
}

static void closing_the_other_end_of_a_notify_fd_cancels(void)
{
    nymbl_transfer *transfer;
    request request;
    peer peer;
    int fd;

    thread_open(false, 0);
    transfer = start_get();
    fd = notify_fd_of(transfer);
    peer_accept(&peer);
    peer_read(&peer, &request);
    CHECK(send(fd, "chatter", 7, MSG_NOSIGNAL) == 7); /* is ignored */
    CHECK(!is_woken(fd, 50));
    close(fd);
    peer_end_awaited(&peer); /* without any call */
    CHECK_NUMBER(wait_result(transfer, NULL), NYMBL_CANCELED);
    CHECK(nymbl_transfer_notify_fd(transfer, &fd, NULL) == NYMBL_DONE);
    CHECK_NUMBER(fd, -1);
    nymbl_transfer_free(transfer);
    request_free(&request);
    world_close();
}

static void notify_fd_is_woken_once_after_each_call(void)
{
    nymbl_transfer *transfer;
    request request;
    char data[64];
    size_t got;
    peer peer;
    int fd;

    thread_open(false, 0);
    transfer = start_download(NULL);
    fd = notify_fd_of(transfer);
    peer_accept(&peer);
    peer_read(&peer, &request);
    CHECK(!is_woken(fd, 20));
    peer_say(&peer, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
    peer_say(&peer, "0123456789012345678901234567890123456789");
    CHECK(is_woken(fd, WAIT_LIMIT_MS));
    for (int i = 0; i < 5; i++) {
        peer_say(&peer, "01234");
        usleep(5000);
    }
    CHECK_NUMBER(wakes_take(fd), 1); /* no call was made since */
    while (nymbl_transfer_read(transfer, data, sizeof(data), &got, NULL) ==
           NYMBL_OK)
        ;
    peer_say(&peer, "01234");
    CHECK(is_woken(fd, WAIT_LIMIT_MS));
    CHECK_NUMBER(wakes_take(fd), 1);
    nymbl_transfer_free(transfer);
    CHECK(is_at_end(fd));
    close(fd);
    request_free(&request);
    peer_close(&peer);
    world_close();
}

static void end_is_reported_though_a_forked_process_has_the_socket_too(void)
{
    nymbl_transfer *transfer;
    pid_t child;
    int fd, status;

    thread_open(true, 0);
    transfer = download_of("hang", NULL);
    fd = notify_fd_of(transfer);
    CHECK(!is_woken(fd, 20));
    fflush(stdout);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0)
        for (;;)
            pause();
    nymbl_transfer_free(transfer);
    CHECK(is_woken(fd, 2000) && wakes_take(fd) != 0);
    CHECK(is_woken(fd, 2000) && wakes_take(fd) < 0);
    close(fd);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    world_close();
}

/* ---- notify sockets ---- */

/* A refused peer is at the end of its connection. */
static void check_refused(const nymbl_notify_socket *notify, const char *token,
                          size_t size)
{
    int fd = listener_connect(notify);

    REQUIRE(fd >= 0);
    CHECK(send(fd, token, size, MSG_NOSIGNAL) == (ssize_t)size);
    CHECK(is_at_end(fd));
    close(fd);
}

static void notify_socket_requires_its_token(void)
{
    static const char zeros[32];
    nymbl_transfer *other, *connected;
    nymbl_notify_socket notify;
    char almost[33];
    int fd, other_fd;

    thread_open(true, 0);
    other = download_of("hang", NULL);
    other_fd = notify_fd_of(other);
    connected = download_of("hang", NULL);
    notify = notify_socket_of(connected);
    strcpy(almost, notify.token);
    almost[31] = almost[31] == '0' ? '1' : '0';
    check_refused(&notify, almost, 32);
    check_refused(&notify, zeros, 32);
    fd = listener_connect(&notify);
    for (int i = 0; i < 32; i++) {
        CHECK(send(fd, notify.token + i, 1, MSG_NOSIGNAL) == 1);
        usleep(500);
    }
    CHECK(!is_woken(fd, 20));
    check_refused(&notify, notify.token, 32); /* a second time */
    strcpy(almost, notify.token);
    almost[0] = '\0';
    check_refused(&notify, almost, 32);
    CHECK(nymbl_transfer_result(connected, NULL) == NYMBL_AGAIN);
    CHECK(nymbl_transfer_result(other, NULL) == NYMBL_AGAIN);
    nymbl_transfer_wake_at(connected, 1);
    CHECK(is_woken(fd, WAIT_LIMIT_MS));
    CHECK_NUMBER(wakes_take(fd), 1);
    CHECK(!is_woken(other_fd, 0));
    close(fd);
    CHECK_NUMBER(wait_result(connected, NULL), NYMBL_CANCELED);
    CHECK(nymbl_transfer_result(other, NULL) == NYMBL_AGAIN);
    CHECK(nymbl_transfer_notify_socket(connected, &notify, NULL) == NYMBL_DONE);
    close(other_fd);
    nymbl_transfer_free(connected);
    nymbl_transfer_free(other);
    world_close();
}

/* The first notify socket of an engine whose thread is asleep. */
static void first_notify_socket_is_accepted_at_once(void)
{
    nymbl_transfer *transfer;
    nymbl_notify_socket notify;

    thread_open(true, 0);
    transfer = download_of("hang", NULL);
    usleep(400000); /* libcurl's own timers have expired too */
    notify = notify_socket_of(transfer);
    close(notify_connect(&notify));
    CHECK(nymbl_transfer_wait(transfer, 7) ==
          NYMBL_OK); /* one times out after 10 s */
    CHECK_NUMBER(wait_result(transfer, NULL), NYMBL_CANCELED);
    nymbl_transfer_free(transfer);
    world_close();
}

static void other_process_is_refused(void)
{
    nymbl_transfer *transfer;
    nymbl_notify_socket notify;
    int status, fd;
    pid_t child;

    thread_open(true, 0);
    transfer = download_of("hang", NULL);
    notify = notify_socket_of(transfer);
    fflush(stdout);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        fd = listener_connect(&notify);
        send(fd, notify.token, 32, MSG_NOSIGNAL);
        _exit(fd >= 0 && is_at_end(fd) ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    fd = notify_connect(&notify); /* the token is still valid */
    CHECK(!is_woken(fd, 20));
    CHECK(nymbl_transfer_result(transfer, NULL) == NYMBL_AGAIN);
    nymbl_transfer_free(transfer);
    close(fd);
    world_close();
}

static void late_connection_is_notified_at_once(void)
{
    nymbl_transfer *running, *over;
    nymbl_notify_socket notify, late;
    int fd;

    thread_open(true, 0);
    running = download_of("600000", NULL);
    over = download_of("10", world_path("doc"));
    notify = notify_socket_of(running);
    late = nymbl_transfer_notify_socket(over, &late, NULL) == NYMBL_OK ? late
                                                                       : notify;
    CHECK_NUMBER(wait_result(over, NULL), NYMBL_OK);
    for (int i = 0; i < WAIT_LIMIT_MS; i++) {
        if (nymbl_transfer_is_ready(running))
            break;
        usleep(1000);
    }
    fd = notify_connect(&notify);
    CHECK(is_woken(fd, WAIT_LIMIT_MS));
    CHECK_NUMBER(wakes_take(fd), 1);
    if (strcmp(notify.token, late.token) != 0)
        check_refused(&late, late.token, 32);
    close(fd);
    nymbl_transfer_free(running);
    nymbl_transfer_free(over);
    world_close();
}

static void silent_connections_block_no_other(void)
{
    nymbl_transfer *transfer;
    nymbl_notify_socket notify;
    int silent[100], fd;

    thread_open(true, 0);
    transfer = download_of("hang", NULL);
    notify = notify_socket_of(transfer);
    for (int i = 0; i < 100; i++) {
        silent[i] = listener_connect(&notify);
        CHECK(silent[i] >= 0);
    }
    CHECK(is_calm());
    fd = notify_connect(&notify);
    nymbl_transfer_wake_at(transfer, 1);
    CHECK(is_woken(fd, WAIT_LIMIT_MS) && wakes_take(fd) == 1);
    CHECK(is_at_end(silent[0]));
    CHECK(!is_woken(silent[99], 0));
    for (int i = 0; i < 100; i++)
        close(silent[i]);
    close(fd);
    CHECK_NUMBER(wait_result(transfer, NULL), NYMBL_CANCELED);
    nymbl_transfer_free(transfer);
    world_close();
}

/* Each connects right after its start: the thread may not have seen its command
 * yet. */
static void hundreds_connect_at_once(void)
{
    enum { MANY = 300 };
    static nymbl_transfer *transfers[MANY];
    static int fds[MANY];

    thread_open(true, 4);
    for (int i = 0; i < MANY; i++) {
        nymbl_notify_socket notify;

        transfers[i] = download_of("hang", NULL);
        notify = notify_socket_of(transfers[i]);
        fds[i] = notify_connect(&notify);
    }
    for (int i = 0; i < MANY; i++)
        nymbl_transfer_wake_at(transfers[i], 1);
    for (int i = 0; i < MANY; i++)
        CHECK(is_woken(fds[i], WAIT_LIMIT_MS) && wakes_take(fds[i]) == 1);
    for (int i = 0; i < MANY; i++)
        close(fds[i]);
    for (int i = 0; i < MANY; i++) {
        CHECK_NUMBER(wait_result(transfers[i], NULL), NYMBL_CANCELED);
        nymbl_transfer_free(transfers[i]);
    }
    world_close();
}

static void connection_without_a_descriptor_waits(void)
{
    nymbl_transfer *transfer;
    nymbl_notify_socket notify;
    int fd, spare;

    thread_open(true, 0);
    transfer = download_of("hang", NULL);
    notify = notify_socket_of(transfer);
    while (!counts_of(transfer).sent)
        usleep(1000);
    spare = dup(0);
    descriptors_use_up();
    close(spare);
    fd = notify_connect(&notify); /* the last one */
    nymbl_transfer_wake_at(transfer, 1);
    CHECK(is_calm());
    CHECK(!is_woken(fd, 0));
    descriptors_release();
    CHECK(is_woken(fd, WAIT_LIMIT_MS) && wakes_take(fd) == 1);
    close(fd);
    nymbl_transfer_free(transfer);
    world_close();
}

/* The directory of a program that uses our name, unless a process of ours has
 * the path. It is not empty: if it were, one that finds it in the place of its
 * own might remove it. */
static bool foreign_dir_make(const char *path)
{
    const char *made = world_path("foreign");

    REQUIRE(mkdir(made, 0700) == 0 && chmod(made, 0755) == 0);
    world_write("foreign/file", "text", 4);
    if (renameat2(AT_FDCWD, made, AT_FDCWD, path, RENAME_NOREPLACE) == 0)
        return true;
    CHECK(errno == EEXIST);
    world_clear("foreign");
    CHECK(rmdir(made) == 0);
    return false;
}

static void foreign_dir_remove(const char *path)
{
    char file[80];

    snprintf(file, sizeof(file), "%s/file", path);
    CHECK(unlink(file) == 0);
    CHECK(rmdir(path) == 0);
}

/* A cleaner of temporary files removes the socket, or its directory. */
static void removed_listener_is_created_again(void)
{
    for (int how = 0; how < 5; how++) {
        nymbl_transfer *before, *after;
        nymbl_notify_socket old, notify;
        bool is_ours = false; /* what is at the directory's path */
        char dir[64];
        int held, socket, fd;

        thread_open(true, 0);
        before = download_of("hang", NULL);
        old = notify_socket_of(before);
        held = notify_connect(&old);
        snprintf(dir, sizeof(dir), "%s", old.path);
        *strrchr(dir, '/') = '\0';
        /* a wakeup shows that the connection was accepted */
        nymbl_transfer_wake_at(before, 1);
        CHECK(is_woken(held, WAIT_LIMIT_MS) && wakes_take(held) == 1);
        CHECK(nymbl_transfer_result(before, NULL) == NYMBL_AGAIN);
        CHECK(unlink(old.path) == 0);
        if (how > 0)
            CHECK(rmdir(dir) == 0);
        if (how == 2)
            is_ours = foreign_dir_make(dir);
        if (how == 3)
            is_ours = mknod(dir, S_IFREG | 0600, 0) == 0;
        if (how == 4)
            is_ours = symlink("nowhere", dir) == 0;
        CHECK(is_ours || how <= 2 || errno == EEXIST);
        after = download_of("hang", NULL);
        notify = notify_socket_of(after);
        fd = notify_connect(&notify);
        nymbl_transfer_wake_at(after, 1);
        CHECK(is_woken(fd, WAIT_LIMIT_MS) && wakes_take(fd) == 1);
        close(fd);
        CHECK_NUMBER(wait_result(after, NULL), NYMBL_CANCELED);
        /* an existing connection is not affected */
        CHECK(nymbl_transfer_result(before, NULL) == NYMBL_AGAIN);
        nymbl_transfer_wake_at(before, 1);
        CHECK(is_woken(held, WAIT_LIMIT_MS) && wakes_take(held) == 1);
        close(held);
        CHECK_NUMBER(wait_result(before, NULL), NYMBL_CANCELED);
        nymbl_transfer_free(before);
        nymbl_transfer_free(after);
        socket = held_open(notify.path);
        nymbl_engine_free(world.engine);
        world.engine = NULL;
        check_removed(socket, notify.path);
        world_close();
        if (is_ours && how == 2)
            foreign_dir_remove(dir);
        else if (is_ours)
            CHECK(unlink(dir) == 0);
        if (test_failed())
            printf("how %d\n", how);
    }
}

/* As if an event loop could not watch it. */
static void released_notify_fd_cancels_nothing(void)
{
    nymbl_transfer *transfer;
    int fd = -1;

    thread_open(true, 0);
    transfer = download_of("hang", NULL);
    for (int i = 0; i < 50; i++) {
        nymbl_kind kind;
        nymbl_error err;

        do { /* the thread must have seen it */
            usleep(100);
            kind = nymbl_transfer_notify_fd(transfer, &fd, &err);
        } while (kind == NYMBL_IO);
        REQUIRE(kind == NYMBL_OK);
        nymbl_transfer_notify_fd_release(transfer, fd);
    }
    usleep(50000);
    CHECK(nymbl_transfer_result(transfer, NULL) == NYMBL_AGAIN);
    fd = notify_fd_of(transfer);
    nymbl_transfer_wake_at(transfer, 1);
    CHECK(is_woken(fd, WAIT_LIMIT_MS) && wakes_take(fd) == 1);
    close(fd);
    CHECK_NUMBER(wait_result(transfer, NULL), NYMBL_CANCELED);
    nymbl_transfer_free(transfer);
    world_close(); /* no descriptor is left */
}

/* A caller without notify fd or notify socket, which polls from time to time,
 * or is gone. */
static void transfer_that_nobody_polls_is_canceled(void)
{
    nymbl_transfer *gone, *asks, *free;
    double now;

    thread_open(true, 0);
    gone = download_of("hang", NULL);
    asks = download_of("hang", NULL);
    free = download_of("hang", NULL);
    usleep(50000); /* the thread waits for an hour */
    now = nymbl_engine_now(world.engine);
    nymbl_transfer_set_watchdog(gone, now + 0.2);
    nymbl_transfer_set_watchdog(free, now + 0.2);
    nymbl_transfer_set_watchdog(free, 0);
    while (nymbl_transfer_result(gone, NULL) == NYMBL_AGAIN &&
           nymbl_engine_now(world.engine) < now + WAIT_LIMIT_MS / 1000) {
        nymbl_transfer_set_watchdog(asks, nymbl_engine_now(world.engine) + 0.2);
        usleep(5000);
    }
    CHECK_NUMBER(wait_result(gone, NULL), NYMBL_CANCELED);
    /* not before a stopped caller had a chance to continue */
    CHECK(nymbl_engine_now(world.engine) >= now + 0.9);
    CHECK(nymbl_transfer_result(asks, NULL) == NYMBL_AGAIN);
    CHECK(nymbl_transfer_result(free, NULL) == NYMBL_AGAIN);
    nymbl_transfer_free(gone);
    nymbl_transfer_free(asks);
    nymbl_transfer_free(free);
    world_close();
}

static void directory_of_notify_sockets_is_private_whatever_the_umask(void)
{
    mode_t before = umask(0777);
    nymbl_transfer *transfer;
    struct stat status;
    nymbl_notify_socket notify;
    int dir, fd;

    world_open(NULL);
    CHECK(chmod(world.dir, 0700) == 0);
    CHECK(nymbl_engine_start_thread(world.engine, NULL) == NYMBL_OK);
    transfer = start_get();
    notify = notify_socket_of(transfer);
    umask(before);
    CHECK(stat(notify.path, &status) == 0);
    CHECK_NUMBER(status.st_mode & 0777, 0600);
    *strrchr(notify.path, '/') = '\0';
    CHECK(stat(notify.path, &status) == 0);
    CHECK_NUMBER(status.st_mode & 0777, 0700);
    dir = held_open(notify.path);
    strcat(notify.path, "/notify");
    fd = notify_connect(&notify);
    CHECK(!is_woken(fd, 20));
    nymbl_transfer_free(transfer);
    nymbl_engine_free(world.engine);
    world.engine = NULL;
    CHECK(is_at_end(fd) || is_at_end(fd));
    close(fd);
    *strrchr(notify.path, '/') = '\0';
    check_removed(dir, notify.path);
    world_close();
}

/* ---- waiting ---- */

static void timer_wakes_at_its_time(void)
{
    nymbl_transfer *transfer;
    double before, after;
    int fd;

    thread_open(true, 0);
    transfer = download_of("hang", NULL);
    fd = notify_fd_of(transfer);
    CHECK(nymbl_transfer_result(transfer, NULL) == NYMBL_AGAIN);
    before = nymbl_engine_now(world.engine);
    nymbl_transfer_wake_at(transfer, before + 3600);
    nymbl_transfer_wake_at(transfer, before + 0.1);
    CHECK(is_woken(fd, WAIT_LIMIT_MS));
    after = nymbl_engine_now(world.engine);
    CHECK(after - before >= 0.1);
    CHECK_NUMBER(wakes_take(fd), 1);
    CHECK(nymbl_transfer_result(transfer, NULL) == NYMBL_AGAIN);
    nymbl_transfer_wake_at(transfer, nymbl_engine_now(world.engine) + 2);
    nymbl_transfer_wake_at(transfer, 0); /* cancel the timer */
    CHECK(!is_woken(fd, 2200));
    close(fd);
    nymbl_transfer_free(transfer);
    world_close();
}

static void caller_can_wait_as_without_a_thread(void)
{
    nymbl_transfer *transfer;

    thread_open(true, 0);
    transfer = download_of("hang", NULL);
    CHECK(nymbl_transfer_wait(transfer, 0) == NYMBL_AGAIN);
    CHECK(nymbl_transfer_wait(transfer, 0.05) == NYMBL_AGAIN);
    CHECK(nymbl_engine_pump(world.engine, 0) == NYMBL_OK);
    nymbl_transfer_cancel(transfer, NYMBL_TIMEOUT, "word");
    CHECK(nymbl_transfer_wait(transfer, 20) == NYMBL_OK);
    CHECK_NUMBER(nymbl_transfer_result(transfer, NULL), NYMBL_TIMEOUT);
    nymbl_transfer_free(transfer);
    for (int i = 0; i < 200; i++) {
        transfer = download_of("10", world_path("doc"));
        CHECK_NUMBER(wait_result(transfer, NULL), NYMBL_OK);
        nymbl_transfer_free(transfer);
    }
    world_close();
}

static void thread_sleeps_while_nothing_happens(void)
{
    nymbl_transfer *running, *waiting, *paused;
    nymbl_body *body;
    int fd;

    thread_open(true, 1);
    CHECK(is_calm());
    running = download_of("hang", NULL);
    waiting = download_of("hang", NULL);
    fd = notify_fd_of(waiting);
    CHECK(is_calm());
    nymbl_transfer_free(running);
    nymbl_transfer_free(waiting);
    close(fd);
    REQUIRE(nymbl_body_stream(&body, 1000, NULL) == NYMBL_OK);
    paused = start_upload(body);
    usleep(300000); /* after a while it is sent without a 100 */
    CHECK(is_calm());
    nymbl_transfer_free(paused);
    nymbl_body_free(body);
    world_close();
}

/* Commands that end each wait must not prevent a timeout. */
static void stall_is_detected_in_spite_of_endless_commands(void)
{
    nymbl_client_options options = {.stall_timeout = 0.2};
    nymbl_transfer *transfer;
    nymbl_kind kind = NYMBL_AGAIN;
    nymbl_error err = {0};
    request request;
    double end;
    peer peer;

    world_open(&options);
    CHECK(nymbl_engine_start_thread(world.engine, NULL) == NYMBL_OK);
    transfer = start_get();
    peer_accept(&peer);
    peer_read(&peer, &request);
    end = nymbl_engine_now(world.engine) + 15;
    while (kind == NYMBL_AGAIN && nymbl_engine_now(world.engine) < end) {
        nymbl_transfer_wake_at(transfer, 0);
        kind = nymbl_transfer_result(transfer, &err);
    }
    CHECK_NUMBER(kind, NYMBL_TIMEOUT);
    CHECK_TEXT(err.reason, "stall");
    nymbl_transfer_free(transfer);
    request_free(&request);
    peer_close(&peer);
    world_close();
}

static volatile sig_atomic_t signals_seen;

static void signal_note(int number)
{
    (void)number;
    signals_seen++;
}

static void signals_are_not_for_the_thread(void)
{
    struct sigaction action = {.sa_handler = signal_note}, before;
    sigset_t one, old, now;

    thread_open(true, 0);
    sigaction(SIGUSR1, &action, &before);
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &one, &old);
    CHECK(!sigismember(&old, SIGTERM)); /* the caller's mask is unchanged */
    kill(getpid(), SIGUSR1);
    usleep(50000);
    CHECK_NUMBER(signals_seen, 0);
    sigpending(&now);
    CHECK(sigismember(&now, SIGUSR1));
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    CHECK_NUMBER(signals_seen, 1);
    sigaction(SIGUSR1, &before, NULL);
    world_close();
}

/* ---- closing and releasing ---- */

static nymbl_client *client_more(void)
{
    nymbl_client_options options = {.api_key = "k", .allow_http = true};
    nymbl_client *client;
    char url[64];

    snprintf(url, sizeof(url), "http://127.0.0.1:%d/v1", server_port);
    options.base_url = url;
    REQUIRE(nymbl_client_new(&client, &options, NULL) == NYMBL_OK);
    return client;
}

static void closing_a_client_ends_its_transfers(void)
{
    nymbl_transfer *transfers[8];
    nymbl_error err;
    int fds[8];

    thread_open(true, 4);
    for (int i = 0; i < 8; i++) {
        transfers[i] = download_of(i % 2 == 0 ? "hang" : "600000", NULL);
        fds[i] = notify_fd_of(transfers[i]);
    }
    nymbl_client_close(world.client);
    for (int i = 0; i < 8; i++) {
        CHECK_NUMBER(wait_result(transfers[i], &err), NYMBL_CANCELED);
        CHECK_TEXT(err.reason, "closed");
        nymbl_transfer_free(transfers[i]);
        close(fds[i]);
    }
    CHECK(comes_to(sockets_to, server_port, 0));
    world_close();
}

/* The engine closes its connections after its last client, while the caller
 * already creates, closes and frees the next clients. */
static void clients_may_come_and_go_at_any_moment(void)
{
    nymbl_transfer *transfers[3], *early;
    nymbl_client *client;
    nymbl_error err;

    thread_open(true, 0);
    nymbl_client_close(world.client);
    for (int i = 0; i < 300 && !test_failed(); i++) {
        for (int j = 0; j < 3; j++) {
            client = client_more();
            CHECK_NUMBER(nymbl_download_start(&transfers[j], world.engine,
                                              client, "tok", "7", "hang", NULL,
                                              &err),
                         NYMBL_OK);
            if (test_failed())
                return;
            if (i % 3 == j)
                usleep(dice(200));
            nymbl_client_close(client);
            nymbl_client_free(client);
        }
        client = client_more();
        REQUIRE(nymbl_get_start(&early, world.engine, client, "tok", "7", "5",
                                NULL) == NYMBL_OK);
        CHECK_NUMBER(wait_result(early, NULL), NYMBL_OK);
        for (int j = 0; j < 3; j++) {
            CHECK_NUMBER(wait_result(transfers[j], &err), NYMBL_CANCELED);
            nymbl_transfer_free(transfers[j]);
        }
        nymbl_transfer_free(early);
        nymbl_client_close(client);
        nymbl_client_free(client);
    }
    CHECK(comes_to(live, 0, 1));
    world_close();
}

static void last_client_may_close_without_a_descriptor_left(void)
{
    nymbl_transfer *transfer;
    nymbl_client *client;

    thread_open(true, 0);
    transfer = download_of("10", world_path("doc"));
    CHECK_NUMBER(wait_result(transfer, NULL), NYMBL_OK);
    nymbl_transfer_free(transfer);
    descriptors_use_up();
    nymbl_client_close(world.client);
    usleep(50000);
    descriptors_release();
    client = client_more();
    REQUIRE(nymbl_get_start(&transfer, world.engine, client, "tok", "7", "5",
                            NULL) == NYMBL_OK);
    CHECK_NUMBER(wait_result(transfer, NULL), NYMBL_OK);
    nymbl_transfer_free(transfer);
    nymbl_client_free(client);
    world_close();
}

static void engine_may_be_freed_right_after_its_last_client(void)
{
    for (int i = 0; i < 500; i++) {
        nymbl_transfer *transfer;
        nymbl_client *client = client_more();
        nymbl_engine *engine;

        REQUIRE(nymbl_engine_new(&engine, NULL, NULL) == NYMBL_OK);
        CHECK(nymbl_engine_start_thread(engine, NULL) == NYMBL_OK);
        REQUIRE(nymbl_get_start(&transfer, engine, client, "tok", "7", "hang",
                                NULL) == NYMBL_OK);
        nymbl_transfer_free(transfer);
        nymbl_client_close(client);
        nymbl_client_free(client);
        for (uint32_t spin = dice(20000); spin > 0; spin--)
            __asm__ volatile("");
        nymbl_engine_free(engine); /* the alarm of test_main() ends a hang */
    }
    CHECK_NUMBER(nymbl_object_count(), 0);
}

/* One running, one waiting, one paused, one awaiting confirmation. */
static void four_start(nymbl_transfer *transfers[4])
{
    nymbl_download_options awaiting = {.path = world_path("doc"),
                                       .content_type = "text/plain",
                                       .progress = true};

    REQUIRE(nymbl_download_start(&transfers[3], world.engine, world.client,
                                 "tok", "7", "1000", &awaiting,
                                 NULL) == NYMBL_OK);
    while (counts_of(transfers[3]).body_received < 1000)
        usleep(1000);
    transfers[2] = download_of("600000", NULL);
    while (counts_of(transfers[2]).body_received < 100000)
        usleep(1000);
    transfers[0] = download_of("hang", NULL);
    transfers[1] = download_of("hang", NULL);
    usleep(20000);
}

static void engine_can_be_freed_while_all_kinds_are_under_way(void)
{
    for (int order = 0; order < 3; order++) {
        nymbl_transfer *transfers[4];
        nymbl_notify_socket notify;
        int fds[4], socket, dir;
        char path[64];

        thread_open(true, 2);
        four_start(transfers);
        for (int i = 0; i < 4; i++) {
            notify = notify_socket_of(transfers[i]);
            fds[i] = i % 2 == 0 ? notify_fd_of(transfers[i])
                                : notify_connect(&notify);
        }
        if (order == 1) {
            for (int i = 0; i < 4; i++)
                nymbl_transfer_free(transfers[i]);
        }
        if (order == 2) {
            nymbl_client_free(world.client);
            world.client = NULL;
        }
        snprintf(path, sizeof(path), "%s", notify.path);
        *strrchr(path, '/') = '\0';
        socket = held_open(notify.path);
        dir = held_open(path);
        nymbl_engine_free(world.engine);
        world.engine = NULL;
        check_removed(socket, notify.path);
        check_removed(dir, path);
        for (int i = 0; i < 4; i++) {
            CHECK(is_woken(fds[i], 2000));
            if (order != 1) {
                CHECK_NUMBER(nymbl_transfer_result(transfers[i], NULL),
                             NYMBL_CANCELED);
                nymbl_transfer_free(transfers[i]);
            }
            close(fds[i]);
        }
        CHECK_NUMBER(sockets_to(server_port), 0);
        CHECK_NUMBER(world_names(), 0);
        world_close();
    }
}

static long resident(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    long all = 0, pages = 0;

    REQUIRE(file != NULL);
    CHECK(fscanf(file, "%ld %ld", &all, &pages) == 2);
    fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void ten_thousand_canceled_leave_nothing(void)
{
    long before = 0;
    int fds = 0;

    thread_open(true, 0);
    for (int i = 0; i < 10000; i++) {
        nymbl_transfer *transfer = download_of("hang", NULL);
        int fd;

        if (i % 2 == 0) {
            fd = notify_fd_of(transfer);
        } else {
            nymbl_notify_socket notify = notify_socket_of(transfer);

            fd = notify_connect(&notify);
        }
        close(fd);
        if (i % 4 < 2)
            CHECK(wait_result(transfer, NULL) == NYMBL_CANCELED);
        nymbl_transfer_free(transfer);
        if (i == 1000) {
            CHECK(comes_to(live, 0, 1));
            before = resident();
            fds = fds_open();
        }
    }
    CHECK(comes_to(live, 0, 1));
    CHECK(comes_to(sockets_to, server_port, 0));
    CHECK(fds_open() <= fds + 1);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    CHECK(resident() - before < 2000); /* KB */
#endif
    (void)before;
    world_close();
}

/* ---- fork ---- */

/* A child that has the engine, but not its thread, which may hold the lock. */
static void child_of_a_fork(nymbl_transfer **transfers, nymbl_body *body)
{
    nymbl_engine *engine = NULL;
    nymbl_transfer *own = NULL;
    nymbl_client *client;
    char data[100];
    size_t got;
    bool good = true;

    for (int i = 0; i < 4; i++) {
        nymbl_kind kind =
            nymbl_transfer_read(transfers[i], data, sizeof(data), &got, NULL);

        good = good && (kind == NYMBL_CANCELED || kind >= 0) &&
               kind != NYMBL_AGAIN &&
               nymbl_transfer_wait(transfers[i], 1) == NYMBL_MISUSE;
        nymbl_transfer_cancel(transfers[i], NYMBL_CANCELED, NULL);
        nymbl_transfer_free(transfers[i]);
    }
    good = good && nymbl_body_write(body, "1", 1, &got) == NYMBL_DONE;
    nymbl_body_free(body);
    nymbl_client_close(world.client);
    nymbl_client_free(world.client);
    nymbl_engine_free(world.engine);
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    _exit(good ? 0 : 1); /* the locks are as the other thread left them */
#endif
    client = client_more();
    good = good && nymbl_engine_new(&engine, NULL, NULL) == NYMBL_OK &&
           nymbl_engine_start_thread(engine, NULL) == NYMBL_OK &&
           nymbl_get_start(&own, engine, client, "tok", "7", "100", NULL) ==
               NYMBL_OK &&
           wait_result(own, NULL) == NYMBL_OK;
    nymbl_transfer_free(own);
    nymbl_client_free(client);
    nymbl_engine_free(engine);
    _exit(good ? 0 : 1);
}

static void fork_leaves_the_parent_alone(void)
{
    for (int round = 0; round < 20 && !test_failed(); round++) {
        nymbl_upload_options options = {.file_name = "a",
                                        .content_type = "b/c"};
        nymbl_transfer *transfers[4], *upload;
        nymbl_body *body;
        text got = {0};
        size_t taken;
        int status;
        pid_t child;

        thread_open(true, 0);
        REQUIRE(nymbl_body_stream(&body, 3, NULL) == NYMBL_OK);
        REQUIRE(nymbl_upload_start(&upload, world.engine, world.client, "tok",
                                   "7", body, &options, NULL) == NYMBL_OK);
        for (int i = 0; i < 4; i++)
            transfers[i] = download_of(
                "600000", i % 2 == 0 ? NULL : world_path(i == 1 ? "a" : "b"));
        usleep(dice(3000));
        fflush(stdout);
        child = fork();
        REQUIRE(child >= 0);
        if (child == 0)
            child_of_a_fork(transfers, body);
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        for (int i = 0; i < 4; i += 2) {
            CHECK(read_all(transfers[i], &got, NULL) == NYMBL_DONE);
            CHECK(got.size == 600000 && memcmp(got.data, bytes, 600000) == 0);
            text_free(&got);
            CHECK_NUMBER(wait_result(transfers[i + 1], NULL), NYMBL_OK);
        }
        CHECK(file_is("a", 600000) && file_is("b", 600000));
        CHECK(nymbl_body_write(body, "123", 3, &taken) == NYMBL_OK);
        nymbl_body_finish(body);
        CHECK_NUMBER(wait_result(upload, NULL), NYMBL_OK);
        nymbl_transfer_free(upload);
        nymbl_body_free(body);
        for (int i = 0; i < 4; i++)
            nymbl_transfer_free(transfers[i]);
        world_close();
    }
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(forty_at_once_arrive_byte_for_byte),
        TEST(canceling_at_any_moment_is_canceled_or_too_late),
        TEST(stream_that_nobody_reads_stops_at_its_window),
        TEST(closing_the_other_end_of_a_notify_fd_cancels),
        TEST(notify_fd_is_woken_once_after_each_call),
        TEST(end_is_reported_though_a_forked_process_has_the_socket_too),
        TEST(notify_socket_requires_its_token),
        TEST(first_notify_socket_is_accepted_at_once),
        TEST(other_process_is_refused),
        TEST(late_connection_is_notified_at_once),
        TEST(silent_connections_block_no_other),
        TEST(hundreds_connect_at_once),
        TEST(connection_without_a_descriptor_waits),
        TEST(removed_listener_is_created_again),
        TEST(released_notify_fd_cancels_nothing),
        TEST(transfer_that_nobody_polls_is_canceled),
        TEST(directory_of_notify_sockets_is_private_whatever_the_umask),
        TEST(timer_wakes_at_its_time),
        TEST(caller_can_wait_as_without_a_thread),
        TEST(thread_sleeps_while_nothing_happens),
        TEST(stall_is_detected_in_spite_of_endless_commands),
        TEST(signals_are_not_for_the_thread),
        TEST(closing_a_client_ends_its_transfers),
        TEST(clients_may_come_and_go_at_any_moment),
        TEST(last_client_may_close_without_a_descriptor_left),
        TEST(engine_may_be_freed_right_after_its_last_client),
        TEST(engine_can_be_freed_while_all_kinds_are_under_way),
        TEST(ten_thousand_canceled_leave_nothing),
        TEST(fork_leaves_the_parent_alone),
    };
    int failed;

    unsetenv("NYMBL_TEST_THREAD");
    bytes = pattern(PATTERN_SIZE);
    dice_state = 7;
    server_start();
    failed = test_main(tests, TEST_COUNT(tests), argc, argv);
    kill(server_pid, SIGKILL);
    waitpid(server_pid, NULL, 0);
    free(bytes);
    return failed;
}
