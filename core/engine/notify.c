/* SPDX-License-Identifier: MIT */
/* Leases: a stream socket for each transfer, one end with whoever pumps, the
 * other with an event loop. A byte on it says that there is news; its end says
 * that nobody waits any more, and the transfer is canceled at once. */
#include "engine/notify.h"

#include "base/fd.h"
#include "base/error.h"
#include "engine/private_dir.h"
#include "engine/run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* How many may connect before the next pass takes them in. */
#define BACKLOG 1024

#ifdef SOCK_CLOEXEC
#define ACCEPT(listener)                                                       \
    accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)
#else
#define ACCEPT(listener) accept(listener, NULL, NULL)
#endif

/* ---- the listener ---- */

void nymbl__notify_path(char path[64], const nymbl_engine *engine)
{
    snprintf(path, 64, "%s/lease", engine->dir);
}

/* A listening socket at a path, or -1 with errno. */
static int socket_listen(const char *path)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = nymbl__fd_avoid_stdio(socket(AF_UNIX, NYMBL__STREAM, 0)), problem;

    snprintf(name.sun_path, sizeof(name.sun_path), "%s", path);
    if (fd < 0)
        return -1;
    if (bind(fd, (struct sockaddr *)&name, sizeof(name)) == 0 &&
        chmod(path, 0600) == 0 && listen(fd, BACKLOG) == 0) {
        nymbl__stream_set_up(fd);
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

    if (!nymbl__private_dir_create(engine->dir, &engine->dir_fd))
        return nymbl__fail(err, NYMBL_IO, nymbl_errno_reason(errno));
    nymbl__file_id_get(&engine->dir_id, engine->dir);
    nymbl__notify_path(path, engine);
    fd = socket_listen(path);
    if (fd >= 0 && engine->listener >= 0)
        fd = listener_replace(engine->listener, fd);
    if (fd < 0) {
        problem = errno;
        nymbl__private_dir_remove(engine->dir, &engine->dir_fd,
                                  &engine->dir_id);
        return nymbl__fail(err, NYMBL_IO, nymbl_errno_reason(problem));
    }
    nymbl__file_id_get(&engine->socket_id, path);
    nymbl__engine_lock(engine);
    engine->listener = fd;
    nymbl__engine_unlock(engine);
    return NYMBL_OK;
}

nymbl_kind nymbl__notify_listen(nymbl_engine *engine, nymbl_error *err)
{
    char path[64];

    if (engine->dir[0] != '\0') {
        nymbl__notify_path(path, engine);
        if (nymbl__file_id_matches(&engine->socket_id, path))
            return NYMBL_DONE;
        nymbl__private_dir_remove(engine->dir, &engine->dir_fd,
                                  &engine->dir_id);
    }
    return listener_open(engine, err);
}

/* ---- the pump's side ---- */

static void waitfd_add(nymbl_engine *engine, int fd)
{
    if (engine->waitfd_count == engine->waitfd_capacity) {
        unsigned capacity =
            engine->waitfd_count == 0 ? 64 : engine->waitfd_count * 2;
        struct curl_waitfd *more =
            realloc(engine->waitfds, capacity * sizeof(*more));

        if (more == NULL)
            return; /* another pass has memory for it */
        engine->waitfds = more;
        engine->waitfd_capacity = capacity;
    }
    engine->waitfds[engine->waitfd_count++] =
        (struct curl_waitfd){.fd = fd, .events = CURL_WAIT_POLLIN};
}

bool nymbl__notify_collect_fds(nymbl_engine *engine)
{
    nymbl_transfer *lists[] = {engine->running, engine->waiting};
    bool accept_paused = engine->accept_paused;

    engine->waitfd_count = 0;
    engine->accept_paused = false;
    for (int i = 0; i < NYMBL__PENDING_MAX; i++) {
        if (engine->pending[i].fd >= 0)
            waitfd_add(engine, engine->pending[i].fd);
    }
    nymbl__engine_lock(engine);
    if (engine->listener >= 0 && !accept_paused)
        waitfd_add(engine, engine->listener);
    for (int i = 0; i < 2; i++) {
        for (nymbl_transfer *t = lists[i]; t != NULL; t = t->next) {
            if (t->port.notify_fd >= 0)
                waitfd_add(engine, t->port.notify_fd);
        }
    }
    nymbl__engine_unlock(engine);
    return accept_paused;
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

    if (token[0] == '\0') /* it would be that of all who await no peer */
        return NULL;
    nymbl__engine_lock(engine);
    for (int i = 0; i < 2; i++) {
        for (nymbl_transfer *t = lists[i]; t != NULL && found == NULL;
             t = t->next) {
            if (memcmp(t->port.notify_token, token, NYMBL__NOTIFY_TOKEN) == 0)
                found = t;
        }
    }
    for (nymbl_transfer *t = engine->commands; t != NULL && found == NULL;
         t = t->next_command) {
        if (!t->port.ended &&
            memcmp(t->port.notify_token, token, NYMBL__NOTIFY_TOKEN) == 0)
            found = t;
    }
    nymbl__engine_unlock(engine);
    return found;
}

/* Take his token; where it is whole, make him the holder of a lease. One whose
 * transfer has ended meanwhile is told by the end of the connection. */
static void pending_serve(nymbl_engine *engine, nymbl__pending_peer *peer)
{
    ssize_t got = recv(peer->fd, peer->token + peer->got,
                       sizeof(peer->token) - peer->got, MSG_DONTWAIT);
    nymbl_transfer *transfer;

    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (got > 0)
        peer->got += (size_t)got;
    if (got > 0 && peer->got < sizeof(peer->token))
        return;
    transfer = got > 0 ? transfer_of(engine, peer->token) : NULL;
    if (transfer == NULL) {
        nymbl__stream_close(peer->fd);
    } else {
        nymbl__engine_lock(engine);
        transfer->port.notify_fd = peer->fd;
        transfer->port.notify_token[0] = '\0';
        if (transfer->port.notified)
            nymbl__port_notify(&transfer->port);
        nymbl__engine_unlock(engine);
    }
    peer->fd = -1;
}

/* Let in all who wait, each with his token at once where it is there already.
 * Who has said nothing yet gets a place, and where all are taken, that of the
 * one who has been silent longest. */
static void pending_accept(nymbl_engine *engine, int listener)
{
    for (;;) {
        nymbl__pending_peer peer = {
            .fd = nymbl__fd_avoid_stdio(ACCEPT(listener))};
        nymbl__pending_peer *place;

        if (peer.fd < 0) {
            engine->accept_paused = errno == EMFILE || errno == ENFILE ||
                                    errno == ENOBUFS || errno == ENOMEM;
            return;
        }
        if (!peer_is_self(peer.fd)) {
            close(peer.fd);
            continue;
        }
        nymbl__stream_set_up(peer.fd);
        pending_serve(engine, &peer);
        if (peer.fd < 0)
            continue;
        place = &engine->pending[engine->pending_next++ % NYMBL__PENDING_MAX];
        if (place->fd >= 0)
            nymbl__stream_close(place->fd);
        *place = peer;
    }
}

/* Whether the other end is closed. What comes from it otherwise is nothing. */
static bool notify_has_closed(int fd)
{
    char bytes[64];
    ssize_t got;

    do
        got = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    while (got > 0);
    return got == 0 ||
           (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

static int notify_fd_of(nymbl_transfer *transfer, bool *loose)
{
    int lease;

    nymbl__engine_lock(transfer->engine);
    lease = transfer->port.notify_fd;
    *loose = transfer->port.notify_fd_released;
    nymbl__engine_unlock(transfer->engine);
    return lease;
}

static void notify_fd_serve(nymbl_engine *engine, int fd)
{
    nymbl_transfer *lists[] = {engine->running, engine->waiting};

    for (int i = 0; i < 2; i++) {
        for (nymbl_transfer *t = lists[i]; t != NULL; t = t->next) {
            bool loose;

            if (notify_fd_of(t, &loose) != fd)
                continue;
            if (!notify_has_closed(fd))
                return;
            if (loose)
                nymbl__port_notify_close(&t->port);
            else
                nymbl__transfer_abort(t, NYMBL_CANCELED,
                                      nymbl__reason_disconnected);
            return;
        }
    }
}

void nymbl__notify_serve(nymbl_engine *engine)
{
    int listener;

    nymbl__engine_lock(engine);
    listener = engine->listener;
    nymbl__engine_unlock(engine);
    /* A number may be another socket's by now: all are asked, not believed. */
    for (unsigned i = 0; i < engine->waitfd_count; i++) {
        if (engine->waitfds[i].revents != 0)
            notify_fd_serve(engine, engine->waitfds[i].fd);
    }
    engine->waitfd_count = 0;
    if (listener < 0)
        return;
    for (int i = 0; i < NYMBL__PENDING_MAX; i++) {
        if (engine->pending[i].fd >= 0)
            pending_serve(engine, &engine->pending[i]);
    }
    pending_accept(engine, listener);
}

void nymbl__notify_close(nymbl_engine *engine)
{
    for (int i = 0; i < NYMBL__PENDING_MAX; i++) {
        if (engine->pending[i].fd >= 0)
            nymbl__stream_close(engine->pending[i].fd);
        engine->pending[i].fd = -1;
    }
    if (engine->listener >= 0)
        close(engine->listener);
    engine->listener = -1;
    if (engine->dir[0] != '\0')
        nymbl__private_dir_remove(engine->dir, &engine->dir_fd,
                                  &engine->dir_id);
}
