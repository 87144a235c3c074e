/* SPDX-License-Identifier: MIT */
/* A Lua module for specs: HTTP to the sandbox's admin port over one persistent
 * connection. It blocks, even in an event loop, so that a spec's next line sees
 * the sandbox's response; and it starts no process. */
#include <lauxlib.h>
#include <lua.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define PATIENCE 120 /* seconds without a byte */
#define HEAD_MAX 65536

/* The process's connection. A forked child opens its own. */
static struct {
    int fd;
    int port;
    pid_t pid;
} connection = {.fd = -1};

static void connection_close(void)
{
    if (connection.fd >= 0)
        close(connection.fd);
    connection.fd = -1;
}

static int connection_open(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct timeval patience = {.tv_sec = PATIENCE};

    if (connection.fd >= 0 && connection.port == port &&
        connection.pid == getpid())
        return 0;
    connection_close();
    connection.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection.fd < 0)
        return -1;
    connection.port = port;
    connection.pid = getpid();
    setsockopt(connection.fd, SOL_SOCKET, SO_RCVTIMEO, &patience,
               sizeof(patience));
    address.sin_port = htons((uint16_t)port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return connect(connection.fd, (struct sockaddr *)&address, sizeof(address));
}

static int bytes_send(const char *data, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(connection.fd, data, size, MSG_NOSIGNAL);

        if (sent < 0)
            return -1;
        data += sent;
        size -= (size_t)sent;
    }
    return 0;
}

/* The number of bytes in the body, from a response's head, or -1. */
static long length_find(const char *head)
{
    for (const char *line = head; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncasecmp(line, "content-length:", 15) == 0)
            return strtol(line + 15, NULL, 10);
    }
    return -1;
}

/* Read one response into *out, which the caller frees: head, an empty line,
 * body. */
static int response_read(char **out, size_t *out_size)
{
    size_t size = 0, capacity = HEAD_MAX, whole = 0;
    char *data = malloc(capacity + 1);

    while (data != NULL && (whole == 0 || size < whole)) {
        ssize_t got = recv(connection.fd, data + size, capacity - size, 0);
        char *body;

        if (got <= 0) {
            errno = got == 0 ? ECONNRESET : errno;
            break;
        }
        size += (size_t)got;
        data[size] = '\0';
        body = whole == 0 ? strstr(data, "\r\n\r\n") : NULL;
        if (body != NULL) {
            long length = length_find(data);
            char *larger;

            if (length < 0) {
                errno = EPROTO;
                break;
            }
            whole = (size_t)(body + 4 - data) + (size_t)length;
            capacity = whole > capacity ? whole : capacity;
            larger = realloc(data, capacity + 1);
            if (larger == NULL)
                break;
            data = larger;
        } else if (size == capacity) {
            errno = EPROTO;
            break;
        }
    }
    if (data == NULL || whole == 0 || size != whole) {
        free(data);
        return -1;
    }
    *out = data;
    *out_size = size;
    return 0;
}

/* exchange(port, request): the complete response to a complete request, as
 * strings.
 */
static int http_exchange(lua_State *L)
{
    int port = (int)luaL_checkinteger(L, 1);
    size_t size, response_size;
    const char *request = luaL_checklstring(L, 2, &size);
    char *response;

    if (connection_open(port) < 0 || bytes_send(request, size) < 0 ||
        response_read(&response, &response_size) < 0) {
        const char *problem = strerror(errno);

        connection_close(); /* any bytes left on it belong to no request */
        return luaL_error(L, "the sandbox's admin port: %s", problem);
    }
    lua_pushlstring(L, response, response_size);
    free(response);
    return 1;
}

__attribute__((visibility("default"))) int luaopen_spec_http(lua_State *L);

int luaopen_spec_http(lua_State *L)
{
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, http_exchange);
    lua_setfield(L, -2, "exchange");
    return 1;
}
