/* SPDX-License-Identifier: MIT */
/* Plays a script. It contains the bytes of the responses, and actions, each of
 * which is 0xFF and a letter:
 *
 *   W  the end of the response: what follows is for the next request
 *   P  pause: let the client process the bytes sent so far
 *   C  continue when the request is complete
 *   F  close in order          R  reset the connection
 *   X  have the client cancel
 *   K  and a byte: that many KiB of filler
 *   S  the service's origin    O  another origin
 *   L  the length of the body that follows
 *   G  the same for a range that continues the client's partial file
 *
 * The last two keep an input valid if its body is changed.
 *
 * Everything runs in one thread, and the client is not pumped within a step: so
 * the number of bytes sent before a request arrived is known exactly. */
#include "server.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define FILLER_MAX (600u << 10)
#define REQUEST_MAX (4u << 20)
#define RECEIVE_BUFFER 8192 /* small, so that uploads have to wait */

struct server server;

void bytes_add(bytes *to, const void *data, size_t size)
{
    if (to->size + size + 1 > to->capacity) {
        to->capacity = (to->size + size + 1) * 2;
        to->data = realloc(to->data, to->capacity);
        if (to->data == NULL)
            abort();
    }
    if (size > 0)
        memcpy(to->data + to->size, data, size);
    to->size += size;
    to->data[to->size] = '\0';
}

void bytes_free(bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct bytes){0};
}

static void bytes_drop(bytes *from, size_t size)
{
    memmove(from->data, from->data + size, from->size - size + 1);
    from->size -= size;
}

static int listener_open(int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int size = RECEIVE_BUFFER, at_once = 1;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)) < 0 ||
        /* everything sent has arrived: no byte waits for an acknowledgement */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof(int)) < 0 ||
        bind(fd, (struct sockaddr *)&address, length) < 0 ||
        listen(fd, 64) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0) {
        perror("listener");
        abort();
    }
    *port = ntohs(address.sin_port);
    return fd;
}

void server_open(void)
{
    server.listener = listener_open(&server.port);
    server.other_listener = listener_open(&server.other_port);
}

/* No TIME_WAIT: otherwise the ports would run out within minutes. */
static void socket_reset(int fd)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(fd);
}

static bool listener_drain(int listener)
{
    bool any = false;

    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

        if (fd < 0)
            return any;
        socket_reset(fd);
        any = true;
    }
}

void server_reset(void)
{
    for (int i = 0; i < server.connection_count; i++) {
        if (server.connections[i].fd >= 0)
            socket_reset(server.connections[i].fd);
        server.connections[i].fd = -1;
    }
    listener_drain(server.listener);
    listener_drain(server.other_listener);
}

void server_begin(const uint8_t *script, size_t size)
{
    server_reset();
    for (int i = 0; i < server.connection_count; i++) {
        bytes_free(&server.connections[i].in);
        bytes_free(&server.connections[i].sent);
    }
    for (int i = 0; i < server.request_count; i++) {
        bytes_free(&server.requests[i].head);
        bytes_free(&server.requests[i].body);
    }
    server.connection_count = server.request_count = 0;
    server.ready.size = 0;
    server.other_called = server.overrun = server.cancel = false;
    server.awaits_body = false;
    server.answering = -1;
    server.pause = 0;
    server.at = script;
    server.end = script + size;
    server.budget = FILLER_MAX;
}

/* ---- requests ---- */

static const char *field_find(const request *request, const char *name)
{
    size_t length = strlen(name);
    const char *line = strstr(request->head.data, "\r\n");

    for (; line != NULL; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, length) == 0 && line[2 + length] == ':')
            return line + 3 + length;
    }
    return NULL;
}

static void request_open(int index)
{
    connection *connection = &server.connections[index];
    request *request;

    if (server.request_count == SERVER_REQUESTS) {
        server.overrun = true;
        return;
    }
    connection->current = server.request_count;
    request = &server.requests[server.request_count++];
    memset(request, 0, sizeof(*request));
    request->connection = index;
    request->sent_before = connection->sent.size;
}

static bool head_take(connection *connection, request *request)
{
    char *end = memmem(connection->in.data, connection->in.size, "\r\n\r\n", 4);
    const char *value;
    size_t length;

    if (end == NULL)
        return false;
    length = (size_t)(end + 4 - connection->in.data);
    bytes_add(&request->head, connection->in.data, length);
    bytes_drop(&connection->in, length);
    request->has_head = true;
    value = field_find(request, "Transfer-Encoding");
    request->chunked = value != NULL;
    if (request->chunked && strncmp(value, " chunked\r\n", 10) != 0)
        request->wrong = "Transfer-Encoding";
    value = field_find(request, "Content-Length");
    if (value != NULL && request->chunked)
        request->wrong = "two lengths";
    if (value != NULL)
        request->left = strtoul(value, NULL, 10);
    if (request->left > REQUEST_MAX)
        request->wrong = "length";
    request->expects = field_find(request, "Expect") != NULL;
    request->complete = !request->chunked && request->left == 0;
    return true;
}

static bool body_take(connection *connection, request *request)
{
    size_t size = connection->in.size < request->left ? connection->in.size
                                                      : request->left;

    bytes_add(&request->body, connection->in.data, size);
    bytes_drop(&connection->in, size);
    request->left -= size;
    request->complete = request->left == 0;
    return size > 0;
}

static bool chunk_take(connection *connection, request *request)
{
    char *end = memchr(connection->in.data, '\n', connection->in.size);
    size_t line, size;

    if (end == NULL)
        return false;
    line = (size_t)(end + 1 - connection->in.data);
    size = strtoul(connection->in.data, NULL, 16);
    if (size > REQUEST_MAX) {
        request->wrong = "chunk";
        return false;
    }
    if (connection->in.size < line + size + 2)
        return false;
    if (memcmp(connection->in.data + line + size, "\r\n", 2) != 0)
        request->wrong = "chunk end";
    bytes_add(&request->body, connection->in.data + line, size);
    bytes_drop(&connection->in, line + size + 2);
    request->complete = size == 0;
    return true;
}

/* Parse the received bytes into requests. */
static void requests_read(int index)
{
    connection *connection = &server.connections[index];
    bool more = true;

    while (more && connection->in.size > 0 && !server.overrun) {
        request *request;

        if (connection->current < 0 ||
            server.requests[connection->current].complete)
            request_open(index);
        if (server.overrun)
            return;
        request = &server.requests[connection->current];
        if (!request->has_head)
            more = head_take(connection, request);
        else if (request->chunked)
            more = chunk_take(connection, request);
        else
            more = body_take(connection, request);
    }
}

static bool connection_read(int index)
{
    connection *connection = &server.connections[index];
    static char buffer[65536];
    bool any = false;

    while (connection->fd >= 0 && !connection->eof) {
        ssize_t got =
            recv(connection->fd, buffer, sizeof(buffer), MSG_DONTWAIT);

        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        any = true;
        if (got <= 0)
            connection->eof = true;
        else
            bytes_add(&connection->in, buffer, (size_t)got);
    }
    if (any)
        requests_read(index);
    return any;
}

static bool accept_all(void)
{
    bool any = listener_drain(server.other_listener);

    server.other_called = server.other_called || any;
    for (;;) {
        connection *connection;
        int fd = accept4(server.listener, NULL, NULL, SOCK_CLOEXEC);

        if (fd < 0)
            return any;
        if (server.connection_count == SERVER_CONNECTIONS) {
            server.overrun = true;
            socket_reset(fd);
            return true;
        }
        connection = &server.connections[server.connection_count++];
        memset(connection, 0, sizeof(*connection));
        connection->fd = fd;
        connection->current = -1;
        bytes_add(&connection->in, "", 0);
        bytes_add(&connection->sent, "", 0);
        any = true;
    }
}

static bool read_all(void)
{
    bool any = accept_all();

    for (int i = 0; i < server.connection_count; i++)
        any = connection_read(i) || any;
    return any;
}

void server_drain(void)
{
    while (read_all() && !server.overrun)
        ;
}

/* ---- responses ---- */

static void answer_skip(void)
{
    while (server.at < server.end) {
        if (*server.at++ != 0xff)
            continue;
        if (server.at < server.end && *server.at++ == 'W')
            break;
    }
    server.ready.size = 0;
    server.answering = -1;
    server.awaits_body = false;
}

static connection *answer_connection(void)
{
    return &server.connections[server.requests[server.answering].connection];
}

static void origin_add(int port)
{
    char text[40];
    int length = snprintf(text, sizeof(text), "http://127.0.0.1:%d", port);

    bytes_add(&server.ready, text, (size_t)length);
}

/* The bytes from the next empty line to the end of the response. Bytes after a
 * close or reset count: they belong to the announced length. */
static size_t body_measure(void)
{
    const uint8_t *at = server.at, *end = server.end;
    size_t size = 0;

    for (; at < end; at++) {
        if (*at == 0xff && at + 1 < end && at[1] == 'W')
            return 0;
        if (*at != '\n')
            continue;
        if (at + 1 < end && at[1] == '\n')
            break;
        if (at + 2 < end && at[1] == '\r' && at[2] == '\n')
            break;
    }
    for (at += at + 1 < end && at[1] == '\r' ? 3 : 2; at < end; at++) {
        if (*at != 0xff) {
            size++;
            continue;
        }
        if (++at >= end || *at == 'W')
            break;
        if (*at == 0xff)
            size++;
        if (*at == 'K' && ++at < end)
            size += (size_t)*at << 10;
    }
    return size;
}

static void length_add(bool range)
{
    size_t size = body_measure(), all = server.part + size;
    char text[96];
    int length;

    if (range)
        length = snprintf(text, sizeof(text), "%zu-%zu/%zu", server.part,
                          all > 0 ? all - 1 : 0, all);
    else
        length = snprintf(text, sizeof(text), "%zu", size);
    bytes_add(&server.ready, text, (size_t)length);
}

static void filler_add(unsigned kilobytes)
{
    for (size_t size = (size_t)kilobytes << 10; size > 0 && server.budget > 0;
         size--, server.budget--) {
        char byte = (char)('a' + size % 23);

        bytes_add(&server.ready, &byte, 1);
    }
}

static void connection_close(connection *connection, bool reset)
{
    if (reset) {
        socket_reset(connection->fd);
        connection->fd = -1;
    } else {
        shutdown(connection->fd, SHUT_WR);
        connection->ended = true;
    }
}

/* Carry out the action after an 0xFF; `ready` has been written. */
static void action_take(uint8_t action)
{
    switch (action) {
    case 'W':
        server.answering = -1;
        break;
    case 'P':
        server.pause = 2;
        break;
    case 'C':
        server.awaits_body = !server.requests[server.answering].complete;
        break;
    case 'F':
    case 'R':
        connection_close(answer_connection(), action == 'R');
        answer_skip();
        break;
    case 'X':
        server.cancel = true;
        server.pause = 1;
        break;
    default:
        break;
    }
}

/* Collect the bytes that can be written at once. Returns whether an action
 * follows, which has to wait until they are written. */
static bool ready_fill(void)
{
    while (server.at < server.end) {
        const uint8_t *action =
            memchr(server.at, 0xff, (size_t)(server.end - server.at));
        const uint8_t *last = action != NULL ? action : server.end;
        size_t size = (size_t)(server.end - last);

        bytes_add(&server.ready, server.at, (size_t)(last - server.at));
        server.at = last;
        if (size < 2) {
            server.at = server.end;
            return false;
        }
        if (action[1] == 'S')
            origin_add(server.port);
        else if (action[1] == 'O')
            origin_add(server.other_port);
        else if (action[1] == 'L' || action[1] == 'G')
            length_add(action[1] == 'G');
        else if (action[1] == 'K')
            filler_add(size > 2 ? action[2] : 0);
        else if (action[1] == 0xff)
            bytes_add(&server.ready, action, 1);
        else
            return true;
        server.at += action[1] == 'K' && size > 2 ? 3 : 2;
    }
    return false;
}

/* Write one piece; false if nothing could be written. */
static bool ready_write(void)
{
    connection *connection = answer_connection();
    size_t size = server.ready.size;
    ssize_t sent;

    if (server.piece > 0 && server.pieces > 0 && size > server.piece) {
        size = server.piece;
        server.pieces--;
    }
    sent = connection->fd < 0 || connection->ended
               ? -1
               : send(connection->fd, server.ready.data, size,
                      MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && connection->fd >= 0 && !connection->ended &&
        (errno == EAGAIN || errno == EINTR))
        return false;
    if (sent < 0) {
        answer_skip();
        return true;
    }
    bytes_add(&connection->sent, server.ready.data, (size_t)sent);
    bytes_drop(&server.ready, (size_t)sent);
    if (size == server.piece)
        server.pause = 1;
    return true;
}

/* The next request that may be answered, or -1. */
static int request_next(void)
{
    for (int i = 0; i < server.request_count; i++) {
        request *request = &server.requests[i];

        if (!request->answered &&
            (request->complete ||
             (request->has_head && (server.early || request->expects)))) {
            request->answered = true;
            return i;
        }
    }
    return -1;
}

static bool write_all(void)
{
    bool any = false;

    if (server.pause > 0) {
        server.pause--;
        return true;
    }
    for (;;) {
        bool action;

        if (server.answering < 0) {
            server.answering = request_next();
            if (server.answering < 0)
                return any;
            any = true;
            if (server.at == server.end) { /* the script is finished */
                connection *connection = answer_connection();

                if (connection->fd >= 0 && !connection->ended)
                    connection_close(connection, false);
                server.answering = -1;
                continue;
            }
        }
        if (server.awaits_body) {
            server.awaits_body = !server.requests[server.answering].complete;
            if (server.awaits_body)
                return any;
        }
        action = ready_fill();
        while (server.answering >= 0 && server.ready.size > 0) {
            if (!ready_write())
                return any;
            any = true;
            if (server.pause > 0)
                return any;
        }
        if (server.answering < 0)
            continue;
        if (!action) {
            server.answering = -1;
            continue;
        }
        server.at += 2;
        action_take(server.at[-1]);
        any = true;
        if (server.pause > 0)
            return any;
    }
}

bool server_step(void)
{
    bool any = read_all();

    return write_all() || any;
}

bool server_unstick(void)
{
    bool stuck = server.awaits_body;

    server.awaits_body = false;
    return stuck;
}
