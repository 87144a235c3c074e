/* SPDX-License-Identifier: MIT */
/* Notify sockets: a transfer can have a stream socket of which the pump has one
 * end and an event loop the other. The pump sends a byte if the transfer is
 * ready (port.h). If the event loop closes its end, the transfer is canceled at
 * once. */
#include "engine/notify.h"

#include "base/error.h"
#include "base/fd.h"
#include "base/stream_socket.h"
#include "engine/private_dir.h"
#include "engine/run.h"
#include "engine/waitfds.h"
#include "file/file_id.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 1024 /* connections that may wait for accept() */
#define LISTENER_TRIES 3

#ifdef SOCK_CLOEXEC
#define ACCEPT(listener)                                                       \
    accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)
#else
#define ACCEPT(listener) accept(listener, NULL, NULL)
#endif

/* ---- the listener ---- */

void nymbl__notify_path(char path[64], const nymbl_engine *engine)
{
    snprintf(path, 64, "%s/" NYMBL__PRIVATE_DIR_SOCKET, engine->dir);
}

/* A listening socket at a path, or -1 with errno. */
static int socket_listen(const char *path)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = nymbl__fd_avoid_stdio(socket(AF_UNIX, NYMBL__STREAM_SOCKET, 0));

    snprintf(name.sun_path, sizeof(name.sun_path), "%s", path);
    if (fd < 0)
        return -1;
    if (bind(fd, (struct sockaddr *)&name, sizeof(name)) == 0 &&
        chmod(path, 0600) == 0 && listen(fd, BACKLOG) == 0) {
        nymbl__stream_socket_set_flags(fd);
        return fd;
    }
    nymbl__fd_close(fd);
    return -1;
}

/* Replace a listener whose path was removed. The new one gets its descriptor
 * number, which the pump may be about to use. */
static int listener_replace(int old, int fd)
{
    int replaced;

#ifdef SOCK_CLOEXEC
    replaced = dup3(fd, old, O_CLOEXEC);
#else
    replaced = dup2(fd, old);
    if (replaced >= 0)
        fcntl(replaced, F_SETFD, FD_CLOEXEC);
#endif
    nymbl__fd_close(fd);
    return replaced;
}

/* Listen in a new directory that no other user can enter. */
static int listener_make(nymbl_engine *engine)
{
    char path[64];
    int fd, saved_errno;

    if (!nymbl__private_dir_create(engine->dir, &engine->dir_fd))
        return -1;
    if (engine->dir_fd >= 0) /* another one may be at its path by now */
        nymbl__file_id_get_fd(&engine->dir_id, engine->dir_fd);
    else
        nymbl__file_id_get(&engine->dir_id, engine->dir);
    nymbl__notify_path(path, engine);
    fd = socket_listen(path);
    if (fd >= 0 && engine->listener >= 0)
        fd = listener_replace(engine->listener, fd);
    if (fd >= 0) {
        nymbl__file_id_get(&engine->socket_id, path);
        return fd;
    }
    saved_errno = errno;
    nymbl__private_dir_remove(engine->dir, &engine->dir_fd, &engine->dir_id);
    errno = saved_errno;
    return -1;
}

static nymbl_kind listener_open(nymbl_engine *engine, nymbl_error *err)
{
    int fd = listener_make(engine);

    /* Until it contains the socket, a process that has created the directory as
     * well, but could not lock it, may remove it; and a third one may make its
     * own (EADDRINUSE). */
    for (int tries = 1; tries < LISTENER_TRIES && fd < 0 &&
                        (errno == ENOENT || errno == EADDRINUSE);
         tries++)
        fd = listener_make(engine);
    if (fd < 0)
        return nymbl__error_set(err, NYMBL_IO, nymbl_reason_from_errno(errno));
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

bool nymbl__notify_collect_fds(nymbl_engine *engine)
{
    bool accept_paused = engine->accept_paused;
    nymbl_transfer *t = NULL;

    nymbl__waitfds_clear(engine);
    engine->accept_paused = false;
    for (int i = 0; i < NYMBL__PENDING_MAX; i++) {
        if (engine->pending[i].fd >= 0)
            nymbl__waitfds_add(engine, engine->pending[i].fd, CURL_WAIT_POLLIN);
    }
    nymbl__engine_lock(engine);
    if (engine->listener >= 0 && !accept_paused)
        nymbl__waitfds_add(engine, engine->listener, CURL_WAIT_POLLIN);
    while ((t = nymbl__transfer_next(engine, t)) != NULL) {
        if (t->port.notify_fd >= 0)
            nymbl__waitfds_add(engine, t->port.notify_fd, CURL_WAIT_POLLIN);
    }
    nymbl__engine_unlock(engine);
    return accept_paused;
}

/* Whether the peer of a connection is this process. */
static bool peer_is_self(int fd)
{
#ifdef SO_PEERCRED
    struct ucred peer;
    socklen_t size = sizeof(peer);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           peer.pid == getpid();
#else
    (void)fd; /* the directory and the token are protection enough */
    return true;
#endif
}

static bool expects_token(const nymbl_transfer *transfer, const char *token)
{
    return !transfer->port.ended &&
           memcmp(transfer->port.notify_token, token, NYMBL__NOTIFY_TOKEN) == 0;
}

/* The transfer that expects a token, or NULL. If the transfer was started just
 * now, it may still be in the command queue. */
static nymbl_transfer *transfer_of(nymbl_engine *engine, const char *token)
{
    nymbl_transfer *t = NULL;

    if (token[0] == '\0') /* it would match all transfers without a token */
        return NULL;
    nymbl__engine_lock(engine);
    while ((t = nymbl__transfer_next(engine, t)) != NULL) {
        if (expects_token(t, token))
            break;
    }
    if (t == NULL) {
        t = engine->commands;
        while (t != NULL && !expects_token(t, token))
            t = t->next_command;
    }
    nymbl__engine_unlock(engine);
    return t;
}

/* Read the token of a peer. Once it is complete, attach the connection to its
 * transfer, or close it if the transfer has ended meanwhile. */
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
        nymbl__stream_socket_close(peer->fd);
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

/* Accept all connections. A peer whose token has not arrived yet gets a slot
 * for pending peers. If all slots are in use, the peer that has been pending
 * the longest is closed. */
static void pending_accept(nymbl_engine *engine, int listener)
{
    for (;;) {
        nymbl__pending_peer peer = {
            .fd = nymbl__fd_avoid_stdio(ACCEPT(listener))};
        nymbl__pending_peer *slot;

        if (peer.fd < 0) {
            engine->accept_paused = errno == EMFILE || errno == ENFILE ||
                                    errno == ENOBUFS || errno == ENOMEM;
            return;
        }
        if (!peer_is_self(peer.fd)) {
            close(peer.fd);
            continue;
        }
        nymbl__stream_socket_set_flags(peer.fd);
        pending_serve(engine, &peer);
        if (peer.fd < 0)
            continue;
        slot = &engine->pending[engine->pending_next++ % NYMBL__PENDING_MAX];
        if (slot->fd >= 0)
            nymbl__stream_socket_close(slot->fd);
        *slot = peer;
    }
}

/* Whether the other end was closed. Bytes from it are ignored. */
static bool peer_has_closed(int fd)
{
    char bytes[64];
    ssize_t got;

    do
        got = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    while (got > 0);
    return got == 0 ||
           (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

/* The transfer of a notify socket, or NULL. *released: closing the other end
 * does not cancel it. */
static nymbl_transfer *notify_fd_transfer(nymbl_engine *engine, int fd,
                                          bool *released)
{
    nymbl_transfer *t = NULL;

    nymbl__engine_lock(engine);
    while ((t = nymbl__transfer_next(engine, t)) != NULL) {
        if (t->port.notify_fd == fd) {
            *released = t->port.notify_fd_released;
            break;
        }
    }
    nymbl__engine_unlock(engine);
    return t;
}

/* Cancel the transfer of a notify socket if the other end was closed. */
static void notify_fd_serve(nymbl_engine *engine, int fd)
{
    bool released = false;
    nymbl_transfer *transfer = notify_fd_transfer(engine, fd, &released);

    if (transfer == NULL || !peer_has_closed(fd))
        return;
    if (released)
        nymbl__port_notify_close(&transfer->port);
    else
        nymbl__run_abort(transfer, NYMBL_CANCELED, nymbl__reason_disconnected);
}

void nymbl__notify_serve(nymbl_engine *engine)
{
    int listener;

    nymbl__engine_lock(engine);
    listener = engine->listener;
    nymbl__engine_unlock(engine);
    /* Since the poll a descriptor may have been closed and its number reused.
     * So the result of the poll is only a hint. */
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
            nymbl__stream_socket_close(engine->pending[i].fd);
        engine->pending[i].fd = -1;
    }
    if (engine->listener >= 0)
        close(engine->listener);
    engine->listener = -1;
    if (engine->dir[0] != '\0')
        nymbl__private_dir_remove(engine->dir, &engine->dir_fd,
                                  &engine->dir_id);
}
