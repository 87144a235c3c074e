/* SPDX-License-Identifier: MIT */
/* Starting the six calls, and reading their transfers. Nothing here waits. */
#include "binding.h"

#include <errno.h>
#include <string.h>

static transfer_ud *transfer_block(lua_State *L, int index)
{
    return block_check(L, index, BLOCK_TRANSFER, sizeof(transfer_ud),
                       TRANSFER_T);
}

nymbl_transfer *transfer_check(lua_State *L, int index)
{
    transfer_ud *self = transfer_block(L, index);

    if (self->transfer == NULL)
        luaL_argerror(L, index, "closed transfer");
    return self->transfer;
}

transfer_ud *transfer_new(lua_State *L)
{
    transfer_ud *self = block_new(L, BLOCK_TRANSFER, sizeof(*self));

    luaL_setmetatable(L, TRANSFER_T);
    return self;
}

/* ---- the six calls ---- */

/* core.token(client) */
int token_start(lua_State *L)
{
    nymbl_client *client = client_check(L, 1);
    nymbl_engine *engine = engine_get(L);
    transfer_ud *self = transfer_new(L);
    nymbl_error err;

    return nymbl_token_start(&self->transfer, engine, client, &err) < 0
               ? failure_push(L, &err)
               : 1;
}

/* core.upload(client, token, patient, body, file_name, content_type,
 * document_type, description, is_rewindable, progress) */
int upload_start(lua_State *L)
{
    nymbl_client *client = client_check(L, 1);
    const char *token = text_check(L, 2);
    const char *patient = text_check(L, 3);
    nymbl_body *body = body_check(L, 4);
    nymbl_upload_options options = {
        .file_name = text_check(L, 5),
        .content_type = text_check(L, 6),
        .document_type = text_optional(L, 7),
        .description = text_optional(L, 8),
        .is_rewindable = lua_toboolean(L, 9),
        .progress = lua_toboolean(L, 10),
    };
    nymbl_engine *engine = engine_get(L);
    transfer_ud *self = transfer_new(L);
    nymbl_error err;

    return nymbl_upload_start(&self->transfer, engine, client, token, patient,
                              body, &options, &err) < 0
               ? failure_push(L, &err)
               : 1;
}

/* core.list(client, token, patient, filter, select, orderby, top, skip, count,
 * next_link) */
int list_start(lua_State *L)
{
    nymbl_client *client = client_check(L, 1);
    const char *token = text_check(L, 2);
    const char *patient = text_check(L, 3);
    nymbl_list_options options = {
        .filter = text_optional(L, 4),
        .select = text_optional(L, 5),
        .orderby = text_optional(L, 6),
        .top = (int64_t)luaL_optnumber(L, 7, 0),
        .skip = (int64_t)luaL_optnumber(L, 8, 0),
        .count = lua_toboolean(L, 9),
        .next_link = text_optional(L, 10),
    };
    nymbl_engine *engine = engine_get(L);
    transfer_ud *self = transfer_new(L);
    nymbl_error err;

    return nymbl_list_start(&self->transfer, engine, client, token, patient,
                            &options, &err) < 0
               ? failure_push(L, &err)
               : 1;
}

/* core.get(client, token, patient, document) */
int get_start(lua_State *L)
{
    nymbl_client *client = client_check(L, 1);
    const char *token = text_check(L, 2);
    const char *patient = text_check(L, 3);
    const char *document = text_check(L, 4);
    nymbl_engine *engine = engine_get(L);
    transfer_ud *self = transfer_new(L);
    nymbl_error err;

    return nymbl_get_start(&self->transfer, engine, client, token, patient,
                           document, &err) < 0
               ? failure_push(L, &err)
               : 1;
}

/* core.download(client, token, patient, document, path, mode, no_overwrite,
 * content_type, size, progress, resume) */
int download_start(lua_State *L)
{
    nymbl_client *client = client_check(L, 1);
    const char *token = text_check(L, 2);
    const char *patient = text_check(L, 3);
    const char *document = text_check(L, 4);
    nymbl_download_options options = {
        .path = text_optional(L, 5),
        .mode = (unsigned)luaL_optnumber(L, 6, 0),
        .no_overwrite = lua_toboolean(L, 7),
        .content_type = text_optional(L, 8),
        .has_size = !lua_isnoneornil(L, 9),
        .size = (int64_t)luaL_optnumber(L, 9, 0),
        .progress = lua_toboolean(L, 10),
        .resume = lua_toboolean(L, 11),
    };
    nymbl_engine *engine = engine_get(L);
    transfer_ud *self = transfer_new(L);
    nymbl_error err;

    return nymbl_download_start(&self->transfer, engine, client, token, patient,
                                document, &options, &err) < 0
               ? failure_push(L, &err)
               : 1;
}

/* core.path_check(path, no_overwrite): true, or nil and a failure */
int path_check(lua_State *L)
{
    nymbl_error err;

    if (nymbl_path_check(text_check(L, 1), lua_toboolean(L, 2), &err) < 0)
        return failure_push(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

/* core.delete(client, token, patient, document) */
int delete_start(lua_State *L)
{
    nymbl_client *client = client_check(L, 1);
    const char *token = text_check(L, 2);
    const char *patient = text_check(L, 3);
    const char *document = text_check(L, 4);
    nymbl_engine *engine = engine_get(L);
    transfer_ud *self = transfer_new(L);
    nymbl_error err;

    return nymbl_delete_start(&self->transfer, engine, client, token, patient,
                              document, &err) < 0
               ? failure_push(L, &err)
               : 1;
}

/* ---- methods: false means "not yet, wait for news" ---- */

/* transfer:head(): status, length or nil, content type or nil; false; or nil
 * and the failure. */
static int transfer_head(lua_State *L)
{
    nymbl_response head;
    nymbl_error err;
    nymbl_kind kind =
        nymbl_transfer_response(transfer_check(L, 1), &head, &err);

    if (kind < 0)
        return failure_push(L, &err);
    if (kind == NYMBL_AGAIN) {
        lua_pushboolean(L, 0);
        return 1;
    }
    lua_pushinteger(L, head.status);
    if (head.content_length >= 0)
        push_size(L, head.content_length);
    else
        lua_pushnil(L);
    lua_pushstring(L, head.content_type);
    return 3;
}

/* transfer:read(): bytes; false; nil at the verified end; or nil and the
 * failure. */
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

/* transfer:read_to(handle): bytes that were copied into a file handle; false;
 * nil at the verified end, flushed; or nil and the failure. No string of them
 * is made. */
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
        if (kind < 0)
            return failure_push(L, &err);
        errno = 0;
        if ((kind == NYMBL_OK && fwrite(buffer, 1, got, file) != got) ||
            (kind == NYMBL_DONE && fflush(file) != 0))
            return failure_push(
                L, &(nymbl_error){.kind = NYMBL_IO,
                                  .reason = nymbl_errno_reason(errno)});
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

/* transfer:result(): true, false, or nil and the failure */
static int transfer_result(lua_State *L)
{
    nymbl_error err;
    nymbl_kind kind = nymbl_transfer_result(transfer_check(L, 1), &err);

    if (kind < 0)
        return failure_push(L, &err);
    lua_pushboolean(L, kind == NYMBL_OK);
    return 1;
}

/* transfer:body(): the reply's body as a string, nil where there is none */
static int transfer_body(lua_State *L)
{
    size_t size;
    const char *body = nymbl_transfer_body(transfer_check(L, 1), &size);

    if (body == NULL)
        return 0;
    lua_pushlstring(L, body, size);
    return 1;
}

/* transfer:counts(): whether it was sent, bytes of the document sent, bytes of
 * the reply's body received, bytes of a part it went on from */
static int transfer_counts(lua_State *L)
{
    nymbl_counts counts;

    nymbl_transfer_counts(transfer_check(L, 1), &counts);
    lua_pushboolean(L, counts.sent);
    push_size(L, counts.body_sent);
    push_size(L, counts.body_received);
    push_size(L, counts.resumed_from);
    return 4;
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

/* transfer:news(): whether it is worth asking again; that another coroutine has
 * closed it is news, too */
static int transfer_news(lua_State *L)
{
    transfer_ud *self = transfer_block(L, 1);

    lua_pushboolean(L, self->transfer == NULL ||
                           nymbl_transfer_is_ready(self->transfer));
    return 1;
}

/* transfer:alarm(at): see nymbl_transfer_wake_at */
static int transfer_alarm(lua_State *L)
{
    nymbl_transfer_wake_at(transfer_check(L, 1), luaL_checknumber(L, 2));
    return 0;
}

/* transfer:watch(at): see nymbl_transfer_watchdog; nothing where another
 * coroutine has closed it */
static int transfer_watch(lua_State *L)
{
    transfer_ud *self = transfer_block(L, 1);
    double at = luaL_checknumber(L, 2);

    if (self->transfer != NULL)
        nymbl_transfer_watchdog(self->transfer, at);
    return 0;
}

/* transfer:pair(): a descriptor, the caller's to close; false where the
 * transfer has ended; or nil and the failure */
static int transfer_pair(lua_State *L)
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

/* transfer:unpair(fd): see nymbl_transfer_notify_fd_release */
static int transfer_unpair(lua_State *L)
{
    nymbl_transfer_notify_fd_release(transfer_check(L, 1),
                                     (int)luaL_checkinteger(L, 2));
    return 0;
}

/* transfer:lease(): a path to connect to and what to send there; false where
 * the transfer has ended; or nil and the failure */
static int transfer_lease(lua_State *L)
{
    nymbl_notify_socket lease;
    nymbl_error err;
    nymbl_kind kind =
        nymbl_transfer_notify_socket(transfer_check(L, 1), &lease, &err);

    if (kind < 0)
        return failure_push(L, &err);
    if (kind == NYMBL_DONE) {
        lua_pushboolean(L, 0);
        return 1;
    }
    lua_pushstring(L, lease.path);
    lua_pushstring(L, lease.token);
    return 2;
}

/* The collector may bring a block that is none of ours. */
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
        {"head", transfer_head},       {"read", transfer_read},
        {"read_to", transfer_read_to}, {"result", transfer_result},
        {"body", transfer_body},       {"counts", transfer_counts},
        {"cancel", transfer_cancel},   {"confirm", transfer_confirm},
        {"news", transfer_news},       {"alarm", transfer_alarm},
        {"watch", transfer_watch},     {"pair", transfer_pair},
        {"lease", transfer_lease},     {"unpair", transfer_unpair},
        {"close", transfer_close},     {NULL, NULL},
    };

    class_make(L, TRANSFER_T, methods, transfer_collect);
}
