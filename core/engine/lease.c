/* SPDX-License-Identifier: MIT */
/* Leases: a stream socket for each transfer, one end with whoever pumps, the
 * other with an event loop. A byte on it says that there is news; its end says
 * that nobody waits any more, and the transfer is canceled at once. */
#include "engine/lease.h"

#include "base/descriptor.h"
#include "base/error.h"
#include "engine/engine.h"
#include "engine/thread.h"
#include "exchange/exchange.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* How many may connect before the next pass takes them in. */
#define BACKLOG 1024

/* Another thread of the host may start a program at any moment: a lease that it
 * inherits never ends. So where it can be, a socket is born closed to it. */
#ifdef SOCK_CLOEXEC
#define STREAM (SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK)
#define ACCEPT(listener)                                                       \
    accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)
#else
#define STREAM SOCK_STREAM
#define ACCEPT(listener) accept(listener, NULL, NULL)
#endif

static void fd_set_up(int fd)
{
#ifndef SOCK_CLOEXEC
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
#endif
#ifdef SO_NOSIGPIPE
    setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &(int){1}, sizeof(int));
#endif
    (void)fd;
}

/* The other end sees it also where a forked process still has this one. */
static void fd_end(int fd)
{
    shutdown(fd, SHUT_RDWR);
    close(fd);
}

/* ---- the owner's side ---- */

static bool pair_open(int ends[2])
{
    int problem;

    if (socketpair(AF_UNIX, STREAM, 0, ends) != 0)
        return false;
    ends[0] = nymbl__fd_high(ends[0]);
    ends[1] = nymbl__fd_high(ends[1]);
    if (ends[0] >= 0 && ends[1] >= 0)
        return true;
    problem = errno;
    for (int i = 0; i < 2; i++) {
        if (ends[i] >= 0)
            close(ends[i]);
    }
    errno = problem;
    return false;
}

nymbl_kind nymbl_transfer_pair(nymbl_transfer *transfer, int *out,
                               nymbl_error *err)
{
    nymbl_engine *engine = transfer->engine;
    nymbl_kind kind = NYMBL_DONE;
    int ends[2];

    *out = -1;
    if (!nymbl_engine_is_own(engine))
        return nymbl__fail(err, NYMBL_CANCELED, "forked");
    if (!pair_open(ends))
        return nymbl__fail(err, NYMBL_IO, nymbl__errno_reason(errno));
    fd_set_up(ends[0]);
    fd_set_up(ends[1]);
    nymbl__engine_lock(engine);
    if (!transfer->ended && transfer->lease >= 0 && transfer->lease_loose) {
        kind = NYMBL_IO; /* the one that was given back is not gone yet */
    } else if (!transfer->ended && transfer->lease < 0) {
        kind = NYMBL_OK;
        transfer->lease = ends[0];
        transfer->lease_token[0] = '\0'; /* a guest would come too late */
        if (transfer->signaled)
            nymbl__lease_wake(transfer);
    }
    nymbl__engine_unlock(engine);
    if (kind != NYMBL_OK) {
        close(ends[0]);
        close(ends[1]);
        return kind < 0 ? nymbl__fail(err, kind, "lease") : kind;
    }
    nymbl__engine_wake(engine);
    *out = ends[1];
    return kind;
}

void nymbl_transfer_unpair(nymbl_transfer *transfer, int fd)
{
    nymbl_engine *engine = transfer->engine;

    if (nymbl_engine_is_own(engine)) {
        nymbl__engine_lock(engine);
        transfer->lease_loose = transfer->lease >= 0;
        nymbl__engine_unlock(engine);
    }
    close(fd); /* whoever pumps sees that, and closes the other end */
}

/* ---- the listener's folder ---- */

/* Folders that nobody else can enter. Their names are few, so that what a
 * killed process has left behind is found and removed without a search: whoever
 * made one holds flock(2) on it for life. Past a group they are used, and
 * looked for, only while all of the group are taken. */
#define GROUP 16
#define FOLDERS 256

static void folder_name(char path[32], const char *place, int number)
{
    snprintf(path, 32, "%s/nymbl-%lu-%d", place,
             (unsigned long)geteuid() & 0xffffffff, number);
}

/* Open and lock a folder of ours. -1 with errno: EWOULDBLOCK if it is another
 * process's, ENOENT or EACCES if it is gone or another user's. */
static int folder_lock(const char *path)
{
    struct stat opened, named;
    int problem;
    int fd = nymbl__fd_high(
        open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));

    if (fd < 0)
        return -1;
    problem = flock(fd, LOCK_EX | LOCK_NB) < 0 ? errno : 0;
    /* looked at once it is locked: until then it may be removed */
    if (problem == 0 &&
        (fstat(fd, &opened) < 0 || lstat(path, &named) < 0 ||
         named.st_dev != opened.st_dev || named.st_ino != opened.st_ino))
        problem = ENOENT;
    if (problem == 0 &&
        (opened.st_uid != geteuid() || (opened.st_mode & 077) != 0))
        problem = EACCES;
    if (problem == 0)
        return fd;
    close(fd);
    errno = problem;
    return -1;
}

static void folder_remove(const char *path)
{
    char lease[48];

    snprintf(lease, sizeof(lease), "%s/lease", path);
    unlink(lease);
    rmdir(path);
}

/* Make a folder of a place, or take over one that was left behind: then its
 * socket goes. Returns its lock, or -1 with errno. */
static int folder_take(char path[32], const char *place)
{
    for (int i = 0; i < FOLDERS; i++) {
        char lease[48];
        bool made;
        int fd;

        folder_name(path, place, i);
        made = mkdir(path, 0700) == 0;
        if (!made && errno != EEXIST)
            return -1;
        if (made) /* whatever the host's umask */
            fchmodat(AT_FDCWD, path, 0700, AT_SYMLINK_NOFOLLOW);
        fd = folder_lock(path);
        if (fd < 0 && made && errno != EWOULDBLOCK && errno != ENOENT) {
            rmdir(path); /* directories cannot be locked here */
            return -1;
        }
        if (fd < 0)
            continue;
        snprintf(lease, sizeof(lease), "%s/lease", path);
        unlink(lease);
        return fd;
    }
    errno = EEXIST;
    return -1;
}

/* Remove the folders that killed processes have left in a place. */
static void folders_sweep(const char *place)
{
    int seen = GROUP;

    for (int i = 0; i < FOLDERS; i++) {
        struct stat status;
        char path[32];
        int fd;

        if (i % GROUP == 0) {
            if (seen < GROUP)
                return;
            seen = 0;
        }
        folder_name(path, place, i);
        if (lstat(path, &status) < 0)
            continue;
        seen++;
        fd = folder_lock(path);
        if (fd < 0)
            continue;
        folder_remove(path);
        close(fd);
    }
}

/* Where all names are taken, or directories cannot be locked, one that stays
 * after a kill. */
static bool folder_make(char path[32], const char *place)
{
    snprintf(path, 32, "%s/nymbl-XXXXXX", place);
    if (mkdtemp(path) == NULL)
        return false;
    chmod(path, 0700);
    return true;
}

static bool folder_open(nymbl_engine *engine)
{
    static const char *const places[] = {"/tmp", "/run", "/dev/shm"};
    int problem = 0;

    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
        folders_sweep(places[i]);
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        engine->folder_fd = folder_take(engine->folder, places[i]);
        if (engine->folder_fd >= 0 || folder_make(engine->folder, places[i]))
            return true;
        problem = errno;
    }
    engine->folder[0] = '\0';
    errno = problem;
    return false;
}

/* Whether a path still is what was made there. Who cleans up a place for
 * temporary files may have removed it, and another process have made its own
 * of the same name. */
static bool mark_is_at(const nymbl__mark *mark, const char *path)
{
    struct stat status;

    return lstat(path, &status) == 0 && status.st_dev == mark->device &&
           status.st_ino == mark->inode;
}

static void mark_take(nymbl__mark *mark, const char *path)
{
    struct stat status = {0};

    (void)!lstat(path, &status);
    *mark = (nymbl__mark){status.st_dev, status.st_ino};
}

static void lease_path(char path[64], const nymbl_engine *engine)
{
    snprintf(path, 64, "%s/lease", engine->folder);
}

/* Remove it, and then end the lock. */
static void folder_close(nymbl_engine *engine)
{
    if (mark_is_at(&engine->folder_mark, engine->folder))
        folder_remove(engine->folder);
    engine->folder[0] = '\0';
    if (engine->folder_fd >= 0)
        close(engine->folder_fd);
    engine->folder_fd = -1;
}

/* A listening socket at a path, or -1 with errno. */
static int socket_listen(const char *path)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = nymbl__fd_high(socket(AF_UNIX, STREAM, 0)), problem;

    snprintf(name.sun_path, sizeof(name.sun_path), "%s", path);
    if (fd < 0)
        return -1;
    if (bind(fd, (struct sockaddr *)&name, sizeof(name)) == 0 &&
        chmod(path, 0600) == 0 && listen(fd, BACKLOG) == 0) {
        fd_set_up(fd);
        return fd;
    }
    problem = errno;
    close(fd);
    errno = problem;
    return -1;
}

/* Put a new listener in the place of one that nobody can connect to any more.
 * It keeps its number: whoever pumps may be about to use that. */
static int listener_replace(int old, int fd)
{
    int replaced, problem;

#ifdef SOCK_CLOEXEC
    replaced = dup3(fd, old, O_CLOEXEC);
#else
    replaced = dup2(fd, old);
    if (replaced >= 0)
        fcntl(replaced, F_SETFD, FD_CLOEXEC);
#endif
    problem = errno;
    close(fd);
    errno = problem;
    return replaced;
}

/* A socket to connect to, in a folder that nobody else can enter. */
static nymbl_kind listener_open(nymbl_engine *engine, nymbl_error *err)
{
    char path[64];
    int fd, problem;

    if (!folder_open(engine))
        return nymbl__fail(err, NYMBL_IO, nymbl__errno_reason(errno));
    mark_take(&engine->folder_mark, engine->folder);
    lease_path(path, engine);
    fd = socket_listen(path);
    if (fd >= 0 && engine->listener >= 0)
        fd = listener_replace(engine->listener, fd);
    if (fd < 0) {
        problem = errno;
        folder_close(engine);
        return nymbl__fail(err, NYMBL_IO, nymbl__errno_reason(problem));
    }
    mark_take(&engine->socket_mark, path);
    nymbl__engine_lock(engine);
    engine->listener = fd;
    nymbl__engine_unlock(engine);
    return NYMBL_OK;
}

/* See that there is a listener, and that it can be found. */
static nymbl_kind listener_ensure(nymbl_engine *engine, nymbl_error *err)
{
    char path[64];
    nymbl_kind kind;

    if (engine->folder[0] != '\0') {
        lease_path(path, engine);
        if (mark_is_at(&engine->socket_mark, path))
            return NYMBL_OK;
        folder_close(engine);
    }
    kind = listener_open(engine, err);
    if (kind == NYMBL_OK)
        nymbl__engine_wake(engine); /* it has to be listened on */
    return kind;
}

/* Digits that nobody can guess. */
static bool token_make(char token[NYMBL__LEASE_TOKEN])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char bytes[NYMBL__LEASE_TOKEN / 2];
    int fd = nymbl__fd_high(open("/dev/urandom", O_RDONLY | O_CLOEXEC));
    bool good = fd >= 0 && read(fd, bytes, sizeof(bytes)) == sizeof(bytes);

    if (fd >= 0)
        close(fd);
    for (size_t i = 0; good && i < sizeof(bytes); i++) {
        token[2 * i] = digits[bytes[i] >> 4];
        token[2 * i + 1] = digits[bytes[i] & 15];
    }
    return good;
}

nymbl_kind nymbl_transfer_lease(nymbl_transfer *transfer, nymbl_lease *out,
                                nymbl_error *err)
{
    nymbl_engine *engine = transfer->engine;
    char token[NYMBL__LEASE_TOKEN];
    nymbl_kind kind = NYMBL_DONE;

    if (!nymbl_engine_is_own(engine))
        return nymbl__fail(err, NYMBL_CANCELED, "forked");
    kind = listener_ensure(engine, err);
    if (kind < 0)
        return kind;
    kind = NYMBL_DONE;
    if (!token_make(token))
        return nymbl__fail(err, NYMBL_IO, "random");
    nymbl__engine_lock(engine);
    if (!transfer->ended && transfer->lease < 0) {
        kind = NYMBL_OK;
        memcpy(transfer->lease_token, token, sizeof(token));
    }
    nymbl__engine_unlock(engine);
    if (kind == NYMBL_DONE)
        return kind;
    lease_path(out->path, engine);
    memcpy(out->token, token, sizeof(token));
    out->token[sizeof(token)] = '\0';
    return NYMBL_OK;
}

/* ---- the pump's side ---- */

void nymbl__lease_wake(const nymbl_transfer *transfer)
{
    /* A byte at most is under way each time the owner has asked: where the
     * socket is full there is news enough on it. */
    if (transfer->lease >= 0)
        (void)!send(transfer->lease, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void nymbl__lease_end(nymbl_transfer *transfer)
{
    int lease;

    nymbl__engine_lock(transfer->engine);
    lease = transfer->lease;
    transfer->lease = -1;
    transfer->lease_loose = false;
    transfer->lease_token[0] = '\0';
    nymbl__engine_unlock(transfer->engine);
    if (lease >= 0)
        fd_end(lease);
}

static int lease_of(nymbl_transfer *transfer, bool *loose)
{
    int lease;

    nymbl__engine_lock(transfer->engine);
    lease = transfer->lease;
    *loose = transfer->lease_loose;
    nymbl__engine_unlock(transfer->engine);
    return lease;
}

static void polled_add(nymbl_engine *engine, int fd)
{
    if (engine->polled_count == engine->polled_capacity) {
        unsigned capacity =
            engine->polled_count == 0 ? 64 : engine->polled_count * 2;
        struct curl_waitfd *more =
            realloc(engine->polled, capacity * sizeof(*more));

        if (more == NULL)
            return; /* another pass has memory for it */
        engine->polled = more;
        engine->polled_capacity = capacity;
    }
    engine->polled[engine->polled_count++] =
        (struct curl_waitfd){.fd = fd, .events = CURL_WAIT_POLLIN};
}

bool nymbl__leases_poll(nymbl_engine *engine)
{
    nymbl_transfer *lists[] = {engine->running, engine->waiting};
    bool deaf = engine->deaf;

    engine->polled_count = 0;
    engine->deaf = false;
    for (int i = 0; i < NYMBL__GUESTS; i++) {
        if (engine->guests[i].fd >= 0)
            polled_add(engine, engine->guests[i].fd);
    }
    nymbl__engine_lock(engine);
    if (engine->listener >= 0 && !deaf)
        polled_add(engine, engine->listener);
    for (int i = 0; i < 2; i++) {
        for (nymbl_transfer *t = lists[i]; t != NULL; t = t->next) {
            if (t->lease >= 0)
                polled_add(engine, t->lease);
        }
    }
    nymbl__engine_unlock(engine);
    return deaf;
}

/* Only this very process may hold a lease. */
static bool peer_is_self(int fd)
{
#ifdef SO_PEERCRED
    struct ucred peer;
    socklen_t size = sizeof(peer);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           peer.pid == getpid();
#else
    (void)fd; /* the folder keeps other users out, the token the rest */
    return true;
#endif
}

/* The transfer that a token was given for. One that was started just now may
 * still be a command. */
static nymbl_transfer *transfer_of(nymbl_engine *engine, const char *token)
{
    nymbl_transfer *lists[] = {engine->running, engine->waiting};
    nymbl_transfer *found = NULL;

    if (token[0] == '\0') /* it would be that of all who await no guest */
        return NULL;
    nymbl__engine_lock(engine);
    for (int i = 0; i < 2; i++) {
        for (nymbl_transfer *t = lists[i]; t != NULL && found == NULL;
             t = t->next) {
            if (memcmp(t->lease_token, token, NYMBL__LEASE_TOKEN) == 0)
                found = t;
        }
    }
    for (nymbl_transfer *t = engine->commands; t != NULL && found == NULL;
         t = t->next_command) {
        if (!t->ended && memcmp(t->lease_token, token, NYMBL__LEASE_TOKEN) == 0)
            found = t;
    }
    nymbl__engine_unlock(engine);
    return found;
}

/* Take his token; where it is whole, make him the holder of a lease. One whose
 * transfer has ended meanwhile is told by the end of the connection. */
static void guest_serve(nymbl_engine *engine, nymbl__guest *guest)
{
    ssize_t got = recv(guest->fd, guest->token + guest->got,
                       sizeof(guest->token) - guest->got, MSG_DONTWAIT);
    nymbl_transfer *transfer;

    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (got > 0)
        guest->got += (size_t)got;
    if (got > 0 && guest->got < sizeof(guest->token))
        return;
    transfer = got > 0 ? transfer_of(engine, guest->token) : NULL;
    if (transfer == NULL) {
        fd_end(guest->fd);
    } else {
        nymbl__engine_lock(engine);
        transfer->lease = guest->fd;
        transfer->lease_token[0] = '\0';
        if (transfer->signaled)
            nymbl__lease_wake(transfer);
        nymbl__engine_unlock(engine);
    }
    guest->fd = -1;
}

/* Let in all who wait, each with his token at once where it is there already.
 * Who has said nothing yet gets a place, and where all are taken, that of the
 * one who has been silent longest. */
static void guests_accept(nymbl_engine *engine, int listener)
{
    for (;;) {
        nymbl__guest guest = {.fd = nymbl__fd_high(ACCEPT(listener))};
        nymbl__guest *place;

        if (guest.fd < 0) {
            engine->deaf = errno == EMFILE || errno == ENFILE ||
                           errno == ENOBUFS || errno == ENOMEM;
            return;
        }
        if (!peer_is_self(guest.fd)) {
            close(guest.fd);
            continue;
        }
        fd_set_up(guest.fd);
        guest_serve(engine, &guest);
        if (guest.fd < 0)
            continue;
        place = &engine->guests[engine->guests_seated++ % NYMBL__GUESTS];
        if (place->fd >= 0)
            fd_end(place->fd);
        *place = guest;
    }
}

/* Whether the other end is closed. What comes from it otherwise is nothing. */
static bool lease_has_ended(int fd)
{
    char bytes[64];
    ssize_t got;

    do
        got = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    while (got > 0);
    return got == 0 ||
           (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

static void lease_serve(nymbl_engine *engine, int fd)
{
    nymbl_transfer *lists[] = {engine->running, engine->waiting};

    for (int i = 0; i < 2; i++) {
        for (nymbl_transfer *t = lists[i]; t != NULL; t = t->next) {
            bool loose;

            if (lease_of(t, &loose) != fd)
                continue;
            if (!lease_has_ended(fd))
                return;
            if (loose)
                nymbl__lease_end(t);
            else
                nymbl__transfer_abort(t, NYMBL_CANCELED, "lease");
            return;
        }
    }
}

void nymbl__leases_serve(nymbl_engine *engine)
{
    int listener;

    nymbl__engine_lock(engine);
    listener = engine->listener;
    nymbl__engine_unlock(engine);
    /* A number may be another socket's by now: all are asked, not believed. */
    for (unsigned i = 0; i < engine->polled_count; i++) {
        if (engine->polled[i].revents != 0)
            lease_serve(engine, engine->polled[i].fd);
    }
    engine->polled_count = 0;
    if (listener < 0)
        return;
    for (int i = 0; i < NYMBL__GUESTS; i++) {
        if (engine->guests[i].fd >= 0)
            guest_serve(engine, &engine->guests[i]);
    }
    guests_accept(engine, listener);
}

void nymbl__leases_close(nymbl_engine *engine)
{
    for (int i = 0; i < NYMBL__GUESTS; i++) {
        if (engine->guests[i].fd >= 0)
            fd_end(engine->guests[i].fd);
        engine->guests[i].fd = -1;
    }
    if (engine->listener >= 0)
        close(engine->listener);
    engine->listener = -1;
    if (engine->folder[0] != '\0')
        folder_close(engine);
}
