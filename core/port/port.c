/* SPDX-License-Identifier: MIT */
/* The port: what a caller and the I/O thread share of a transfer. */
#include "port/port.h"

#include "base/stream_socket.h"

#include <errno.h>
#include <sys/socket.h>

#define NOTIFY_ATTEMPTS 3 /* to send a byte to a notify socket */

void nymbl__port_init(nymbl__port *port, nymbl__mutex *mutex)
{
    port->mutex = mutex;
    port->confirmed = -1;
    port->notify_fd = -1;
    nymbl__ring_init(&port->window, NYMBL__RECEIVE_WINDOW);
}

void nymbl__port_free(nymbl__port *port)
{
    nymbl__buffer_free(&port->response_body);
    nymbl__ring_free(&port->window);
}

void nymbl__port_lock(const nymbl__port *port)
{
    nymbl__mutex_lock(port->mutex);
}

void nymbl__port_unlock(const nymbl__port *port)
{
    nymbl__mutex_unlock(port->mutex);
}

void nymbl__port_notify(const nymbl__port *port)
{
    /* A full socket is no failure: the caller has not read all bytes yet. If
     * the system has no memory for the byte, try again: without it an event
     * loop would wait for ever. */
    for (int i = 0; i < NOTIFY_ATTEMPTS && port->notify_fd >= 0; i++) {
        if (send(port->notify_fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 ||
            errno == EAGAIN || errno == EWOULDBLOCK || errno == EPIPE)
            return;
    }
}

void nymbl__port_rearm(nymbl__port *port, nymbl_kind kind)
{
    if (kind == NYMBL_AGAIN)
        port->notified = false;
}

void nymbl__port_notify_close(nymbl__port *port)
{
    int fd;

    nymbl__port_lock(port);
    fd = port->notify_fd;
    port->notify_fd = -1;
    port->notify_fd_released = false;
    port->notify_token[0] = '\0';
    nymbl__port_unlock(port);
    if (fd >= 0)
        nymbl__stream_socket_close(fd);
}
