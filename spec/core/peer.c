/* SPDX-License-Identifier: MIT */
/* The peer of the client: sockets. */
#include "peer.h"

#include <errno.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/socket.h>

#define PATIENCE 5000 /* steps of up to 2 ms without a byte */

void text_add(text *to, const void *data, size_t size)
{
    if (to->size + size + 1 > to->capacity) {
        to->capacity = (to->size + size + 1) * 2;
        to->data = realloc(to->data, to->capacity);
        REQUIRE(to->data != NULL);
    }
    if (size > 0)
        memcpy(to->data + to->size, data, size);
    to->size += size;
    to->data[to->size] = '\0';
}

void text_free(text *text)
{
    free(text->data);
    memset(text, 0, sizeof(*text));
}

static void text_drop(text *from, size_t size)
{
    memmove(from->data, from->data + size, from->size - size + 1);
    from->size -= size;
}

static ssize_t plain_recv(peer *peer, void *data, size_t size)
{
    return recv(peer->fd, data, size, MSG_DONTWAIT);
}

static ssize_t plain_send(peer *peer, const void *data, size_t size)
{
    return send(peer->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
}

ssize_t (*peer_recv)(peer *, void *, size_t) = plain_recv;
ssize_t (*peer_send_some)(peer *, const void *, size_t) = plain_send;

int listener_open(int *port, int backlog)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    REQUIRE(fd >= 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(bind(fd, (struct sockaddr *)&address, length) == 0);
    REQUIRE(listen(fd, backlog) == 0);
    REQUIRE(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    *port = ntohs(address.sin_port);
    return fd;
}

void peer_accept_at(peer *peer, int listener)
{
    memset(peer, 0, sizeof(*peer));
    for (int i = 0; i < PATIENCE; i++) {
        peer->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (peer->fd >= 0)
            return;
        world_step();
    }
    REQUIRE(peer->fd >= 0);
}

void peer_accept(peer *peer)
{
    peer_accept_at(peer, world.listener);
}

bool peer_waits(void)
{
    fd_set set;
    struct timeval none = {0, 0};

    FD_ZERO(&set);
    FD_SET(world.listener, &set);
    return select(world.listener + 1, &set, NULL, NULL, &none) == 1;
}

bool peer_take(peer *peer)
{
    char data[65536];
    ssize_t got;

    if (peer->eof)
        return false;
    got = peer_recv(peer, data, sizeof(data));
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (got <= 0) {
        peer->eof = true;
        peer->broken = got < 0;
        return false;
    }
    text_add(&peer->in, data, (size_t)got);
    return true;
}

bool peer_await(peer *peer, size_t size)
{
    for (int quiet = 0; peer->in.size < size && !peer->eof; quiet++) {
        REQUIRE(quiet < PATIENCE);
        if (peer_take(peer))
            quiet = 0;
        else
            world_step();
    }
    return peer->in.size >= size;
}

void peer_read_head(peer *peer, request *request)
{
    char *end = NULL;

    memset(request, 0, sizeof(*request));
    for (;;) {
        if (peer->in.size > 0)
            end = strstr(peer->in.data, "\r\n\r\n");
        if (end != NULL)
            break;
        if (!peer_await(peer, peer->in.size + 1)) {
            request->cut = true;
            return;
        }
    }
    text_add(&request->head, peer->in.data, (size_t)(end + 4 - peer->in.data));
    text_drop(&peer->in, request->head.size);
}

/* A line of the body, with its newline; 0 if the connection ended. */
static size_t line_await(peer *peer)
{
    for (;;) {
        char *end = peer->in.size == 0
                        ? NULL
                        : memchr(peer->in.data, '\n', peer->in.size);

        if (end != NULL)
            return (size_t)(end + 1 - peer->in.data);
        if (!peer_await(peer, peer->in.size + 1))
            return 0;
    }
}

static void chunks_read(peer *peer, request *request)
{
    unsigned long size;

    request->chunked = true;
    do {
        size_t line = line_await(peer);

        request->cut = line == 0;
        if (request->cut)
            return;
        size = strtoul(peer->in.data, NULL, 16);
        text_drop(&peer->in, line);
        request->cut = !peer_await(peer, size + 2);
        if (request->cut)
            return;
        text_add(&request->body, peer->in.data, size);
        CHECK(memcmp(peer->in.data + size, "\r\n", 2) == 0);
        text_drop(&peer->in, size + 2);
    } while (size > 0);
}

void peer_read(peer *peer, request *request)
{
    const char *length, *encoding;

    peer_read_head(peer, request);
    if (request->cut)
        return;
    encoding = request_field(request, "Transfer-Encoding");
    if (encoding != NULL && strcasecmp(encoding, "chunked") == 0) {
        chunks_read(peer, request);
        return;
    }
    length = request_field(request, "Content-Length");
    if (length != NULL) {
        size_t size = strtoul(length, NULL, 10);

        request->cut = !peer_await(peer, size);
        if (size > peer->in.size)
            size = peer->in.size;
        if (size > 0) {
            text_add(&request->body, peer->in.data, size);
            text_drop(&peer->in, size);
        }
    }
}

void request_free(request *request)
{
    text_free(&request->head);
    text_free(&request->body);
}

static const char *field_find(const char *head, const char *name)
{
    size_t length = strlen(name);

    for (const char *line = strstr(head, "\r\n"); line != NULL;
         line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, length) == 0 && line[2 + length] == ':')
            return line + 2;
    }
    return NULL;
}

const char *request_field(const request *request, const char *name)
{
    static char value[8192];
    const char *at = request->head.data == NULL
                         ? NULL
                         : field_find(request->head.data, name);
    size_t length;

    if (at == NULL)
        return NULL;
    at += strlen(name) + 1;
    at += strspn(at, " \t");
    length = strcspn(at, "\r\n");
    REQUIRE(length < sizeof(value));
    memcpy(value, at, length);
    value[length] = '\0';
    return value;
}

int request_fields(const request *request, const char *name)
{
    const char *at = request->head.data;
    int count = 0;

    while (at != NULL) {
        at = field_find(at, name);
        if (at != NULL)
            count++;
    }
    return count;
}

bool request_begins(const request *request, const char *text)
{
    return request->head.data != NULL &&
           strncmp(request->head.data, text, strlen(text)) == 0;
}

void peer_send(peer *peer, const void *data, size_t size)
{
    const char *at = data;

    for (int quiet = 0; size > 0; quiet++) {
        ssize_t sent = peer_send_some(peer, at, size);

        REQUIRE(quiet < PATIENCE);
        if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            peer->broken = true;
            return;
        }
        if (sent > 0) {
            at += sent;
            size -= (size_t)sent;
            quiet = 0;
        }
        world_step();
    }
}

void peer_say(peer *peer, const char *text)
{
    peer_send(peer, text, strlen(text));
}

void peer_respond(peer *peer, int status, const char *headers, const char *body)
{
    text response = {0};
    char line[96];

    snprintf(line, sizeof(line), "HTTP/1.1 %d Words\r\nContent-Length: %zu\r\n",
             status, strlen(body));
    text_add(&response, line, strlen(line));
    text_add(&response, headers, strlen(headers));
    text_add(&response, "\r\n", 2);
    text_add(&response, body, strlen(body));
    peer_send(peer, response.data, response.size);
    text_free(&response);
}

void peer_close(peer *peer)
{
    text_free(&peer->in);
    if (peer->fd >= 0)
        close(peer->fd);
    peer->fd = -1;
}

void peer_reset(peer *peer)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};

    setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    peer_close(peer);
}
