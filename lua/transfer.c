/* SPDX-License-Identifier: MIT */
/* A transfer, as the Lua modules see it. Nothing here waits. */
#include "transfer.h"

#include <errno.h>

#define TRANSFER_CLASS "nymbl.transfer"

typedef struct transfer_ud {
    block_tag tag;
    nymbl_transfer *transfer; /* NULL once closed */
} transfer_ud;

static transfer_ud *transfer_block(lua_State *L, int index)
{
    return block_check(L, index, BLOCK_TRANSFER, sizeof(transfer_ud),
                       TRANSFER_CLASS);
}

nymbl_transfer *transfer_check(lua_State *L, int index)
{
    transfer_ud *self = transfer_block(L, index);

    if (self->transfer == NULL)
        luaL_argerror(L, index, "closed transfer");
    return self->transfer;
}

nymbl_transfer **transfer_new(lua_State *L)
{
    transfer_ud *self = block_new(L, BLOCK_TRANSFER, sizeof(*self));

    luaL_setmetatable(L, TRANSFER_CLASS);
    return &self->transfer;
}

/* ---- methods: false means "not yet, wait until it is ready" ---- */

/* transfer:response(): status; content length, content type, entity-tag and
 * date of the last modification, each may be nil; false; or nil and error
 * fields */
static int transfer_response(lua_State *L)
{
    nymbl_response response;
    nymbl_error err;
    nymbl_kind kind =
        nymbl_transfer_response(transfer_check(L, 1), &response, &err);

    if (kind < 0)
        return failure_push(L, &err);
    if (kind == NYMBL_AGAIN) {
        lua_pushboolean(L, 0);
        return 1;
    }
    lua_pushinteger(L, response.status);
    if (response.content_length >= 0)
        push_size(L, response.content_length);
    else
        lua_pushnil(L);
    lua_pushstring(L, response.content_type);
    lua_pushstring(L, response.etag);
    lua_pushstring(L, response.last_modified);
    return 5;
}

/* transfer:read(): bytes; false; nil at the verified end; or nil and error
 * fields */
static int transfer_read(lua_State *L)
{
    nymbl_transfer *transfer = transfer_check(L, 1);
    char buffer[16384];
    size_t got;
    nymbl_error err;
    nymbl_kind kind =
        nymbl_transfer_read(transfer, buffer, sizeof(buffer), &got, &err);

    if (kind < 0)
        return failure_push(L, &err);
    if (kind == NYMBL_OK)
        lua_pushlstring(L, buffer, got);
    else if (kind == NYMBL_AGAIN)
        lua_pushboolean(L, 0);
    else
        lua_pushnil(L);
    return 1;
}

/* transfer:read_to(handle): the number of bytes that were copied into a file
 * handle; false; nil at the verified end, flushed; or nil and error fields. If
 * the transfer fails after bytes were copied, this call returns their number
 * and the next one the error. No Lua string of the bytes is created. */
static int transfer_read_to(lua_State *L)
{
    nymbl_transfer *transfer = transfer_check(L, 1);
    char buffer[16384];
    size_t total = 0;

    for (;;) {
        FILE *file = handle_check(L, 2);
        size_t got;
        nymbl_error err;
        nymbl_kind kind;

        if (file == NULL)
            return failure_push(
                L, &(nymbl_error){.kind = NYMBL_IO, .reason = "closed"});
        kind =
            nymbl_transfer_read(transfer, buffer, sizeof(buffer), &got, &err);
        if (kind < 0 && total == 0)
            return failure_push(L, &err);
        errno = 0;
        if ((kind == NYMBL_OK && fwrite(buffer, 1, got, file) != got) ||
            (kind == NYMBL_DONE && fflush(file) != 0))
            return failure_push(
                L, &(nymbl_error){.kind = NYMBL_IO,
                                  .reason = nymbl_reason_from_errno(errno)});
        total += got;
        if (kind == NYMBL_OK)
            continue;
        if (kind == NYMBL_AGAIN && total == 0)
            lua_pushboolean(L, 0);
        else if (kind == NYMBL_DONE && total == 0)
            lua_pushnil(L);
        else
            push_size(L, total);
        return 1;
    }
}

/* transfer:result(): true; false; or nil and error fields */
static int transfer_result(lua_State *L)
{
    nymbl_error err;
    nymbl_kind kind = nymbl_transfer_result(transfer_check(L, 1), &err);

    if (kind < 0)
        return failure_push(L, &err);
    lua_pushboolean(L, kind == NYMBL_OK);
    return 1;
}

/* transfer:body(): the response body as a string, or nil if there is none */
static int transfer_body(lua_State *L)
{
    size_t size;
    const char *body = nymbl_transfer_body(transfer_check(L, 1), &size);

    if (body == NULL)
        return 0;
    lua_pushlstring(L, body, size);
    return 1;
}

static nymbl_counts counts_of(lua_State *L)
{
    nymbl_counts counts;

    nymbl_transfer_counts(transfer_check(L, 1), &counts);
    return counts;
}

/* transfer:was_sent(): whether any byte of the request was sent */
static int transfer_was_sent(lua_State *L)
{
    lua_pushboolean(L, counts_of(L).sent);
    return 1;
}

/* transfer:bytes_sent(): bytes of the document that were sent */
static int transfer_bytes_sent(lua_State *L)
{
    push_size(L, counts_of(L).body_sent);
    return 1;
}

/* transfer:bytes_received(): bytes of the response body that were received */
static int transfer_bytes_received(lua_State *L)
{
    push_size(L, counts_of(L).body_received);
    return 1;
}

/* transfer:is_queued(): whether it waits for a connection slot */
static int transfer_is_queued(lua_State *L)
{
    lua_pushboolean(L, nymbl_transfer_is_queued(transfer_check(L, 1)));
    return 1;
}

/* transfer:request_id(): the service's id of the request, or nil */
static int transfer_request_id(lua_State *L)
{
    char id[NYMBL_REQUEST_ID_MAX + 1];

    nymbl_transfer_request_id(transfer_check(L, 1), id);
    if (*id == '\0')
        return 0;
    lua_pushstring(L, id);
    return 1;
}

/* transfer:resumed_from(): bytes of the partial file that the response
 * continues */
static int transfer_resumed_from(lua_State *L)
{
    push_size(L, counts_of(L).resumed_from);
    return 1;
}

/* transfer:peer(): seconds until the server's certificate expires, or nil; this
 * machine's clock minus the response's Date, or nil. See nymbl_request.inspect
 */
static int transfer_peer(lua_State *L)
{
    nymbl_peer peer;

    nymbl_transfer_peer(transfer_check(L, 1), &peer);
    if (peer.has_certificate)
        lua_pushnumber(L, peer.certificate_lifetime);
    else
        lua_pushnil(L);
    if (peer.has_date)
        lua_pushnumber(L, peer.clock_skew);
    else
        lua_pushnil(L);
    return 2;
}

/* transfer:sha256(): the digest of a downloaded document as hexadecimal digits,
 * or nil */
static int transfer_sha256(lua_State *L)
{
    lua_pushstring(L, nymbl_transfer_sha256(transfer_check(L, 1)));
    return 1;
}

/* transfer:cancel(kind, reason): kind is "canceled", "timeout" or "io"; reason
 * one of nymbl_reasons() */
static int transfer_cancel(lua_State *L)
{
    static const char *const kinds[] = {"canceled", "timeout", "io", NULL};
    static const nymbl_kind values[] = {NYMBL_CANCELED, NYMBL_TIMEOUT,
                                        NYMBL_IO};
    const char *const *reasons = nymbl_reasons();
    nymbl_transfer *transfer = transfer_check(L, 1);
    nymbl_kind kind = values[luaL_checkoption(L, 2, NULL, kinds)];
    const char *reason = lua_isnoneornil(L, 3)
                             ? NULL
                             : reasons[luaL_checkoption(L, 3, NULL, reasons)];

    nymbl_transfer_cancel(transfer, kind, reason);
    return 0;
}

/* transfer:confirm(received): see nymbl_transfer_confirm */
static int transfer_confirm(lua_State *L)
{
    nymbl_transfer_confirm(transfer_check(L, 1),
                           (int64_t)luaL_checknumber(L, 2));
    return 0;
}

/* transfer:is_ready(): whether other methods may have a new result. A transfer
 * that another coroutine has closed is ready, too. */
static int transfer_is_ready(lua_State *L)
{
    transfer_ud *self = transfer_block(L, 1);

    lua_pushboolean(L, self->transfer == NULL ||
                           nymbl_transfer_is_ready(self->transfer));
    return 1;
}

/* transfer:wake_at(time): see nymbl_transfer_wake_at */
static int transfer_wake_at(lua_State *L)
{
    nymbl_transfer_wake_at(transfer_check(L, 1), luaL_checknumber(L, 2));
    return 0;
}

/* transfer:set_watchdog(time): see nymbl_transfer_set_watchdog. Does nothing if
 * another coroutine has closed the transfer. */
static int transfer_set_watchdog(lua_State *L)
{
    transfer_ud *self = transfer_block(L, 1);
    double at = luaL_checknumber(L, 2);

    if (self->transfer != NULL)
        nymbl_transfer_set_watchdog(self->transfer, at);
    return 0;
}

/* transfer:notify_fd(): a descriptor that the caller must close; false if the
 * transfer has ended; or nil and error fields */
static int transfer_notify_fd(lua_State *L)
{
    nymbl_error err;
    int fd;
    nymbl_kind kind = nymbl_transfer_notify_fd(transfer_check(L, 1), &fd, &err);

    if (kind < 0)
        return failure_push(L, &err);
    if (kind == NYMBL_DONE)
        lua_pushboolean(L, 0);
    else
        lua_pushinteger(L, fd);
    return 1;
}

/* transfer:release_notify_fd(fd): see nymbl_transfer_notify_fd_release */
static int transfer_release_notify_fd(lua_State *L)
{
    nymbl_transfer_notify_fd_release(transfer_check(L, 1),
                                     (int)luaL_checkinteger(L, 2));
    return 0;
}

/* transfer:notify_socket(): a path to connect to and the token to send first;
 * false if the transfer has ended; or nil and error fields */
static int transfer_notify_socket(lua_State *L)
{
    nymbl_notify_socket address;
    nymbl_error err;
    nymbl_kind kind =
        nymbl_transfer_notify_socket(transfer_check(L, 1), &address, &err);

    if (kind < 0)
        return failure_push(L, &err);
    if (kind == NYMBL_DONE) {
        lua_pushboolean(L, 0);
        return 1;
    }
    lua_pushstring(L, address.path);
    lua_pushstring(L, address.token);
    return 2;
}

/* The collector may pass a block of another type. */
static int transfer_collect(lua_State *L)
{
    transfer_ud *self = block_test(L, 1, BLOCK_TRANSFER, sizeof(*self));
    nymbl_transfer *transfer;

    if (self == NULL)
        return 0;
    transfer = self->transfer;
    self->transfer = NULL;
    nymbl_transfer_free(transfer);
    return 0;
}

static int transfer_close(lua_State *L)
{
    transfer_block(L, 1);
    return transfer_collect(L);
}

void transfer_class(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"response", transfer_response},
        {"read", transfer_read},
        {"read_to", transfer_read_to},
        {"result", transfer_result},
        {"body", transfer_body},
        {"was_sent", transfer_was_sent},
        {"bytes_sent", transfer_bytes_sent},
        {"bytes_received", transfer_bytes_received},
        {"is_queued", transfer_is_queued},
        {"request_id", transfer_request_id},
        {"resumed_from", transfer_resumed_from},
        {"peer", transfer_peer},
        {"sha256", transfer_sha256},
        {"cancel", transfer_cancel},
        {"confirm", transfer_confirm},
        {"is_ready", transfer_is_ready},
        {"wake_at", transfer_wake_at},
        {"set_watchdog", transfer_set_watchdog},
        {"notify_fd", transfer_notify_fd},
        {"release_notify_fd", transfer_release_notify_fd},
        {"notify_socket", transfer_notify_socket},
        {"close", transfer_close},
        {NULL, NULL},
    };

    block_class(L, TRANSFER_CLASS, methods, transfer_collect);
}
