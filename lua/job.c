/* SPDX-License-Identifier: MIT */
/* Jobs: long work on local files, started as transfers. Nothing here waits. */
#include "job.h"

#include "descriptor.h"
#include "engine.h"
#include "transfer.h"

/* Functions that start a job, by a path or by a descriptor. */
typedef nymbl_kind start_path(nymbl_transfer **out, nymbl_engine *engine,
                              const char *path, nymbl_error *err);
typedef nymbl_kind start_fd(nymbl_transfer **out, nymbl_engine *engine, int fd,
                            nymbl_error *err);

/* Start a job for the first argument. */
static int job_start(lua_State *L, start_path *by_path, start_fd *by_fd)
{
    const char *path = lua_isuserdata(L, 1) ? NULL : text_check(L, 1);
    int fd = path == NULL ? descriptor_check(L, 1) : -1;
    nymbl_engine *engine = engine_get(L);
    nymbl_transfer **transfer = transfer_new(L);
    nymbl_error err;
    nymbl_kind kind = path != NULL ? by_path(transfer, engine, path, &err)
                                   : by_fd(transfer, engine, fd, &err);

    return kind < 0 ? failure_push(L, &err) : 1;
}

/* core.digest(path or descriptor) */
int digest_start(lua_State *L)
{
    return job_start(L, nymbl_digest_start, nymbl_digest_start_fd);
}

/* core.digest_result(transfer): 64 hexadecimal digits and the bytes of the
 * file; nothing unless it is a digest that succeeded */
int digest_result(lua_State *L)
{
    const nymbl_file_digest *digest =
        nymbl_transfer_digest(transfer_check(L, 1));

    if (digest == NULL)
        return 0;
    lua_pushstring(L, digest->sha256);
    push_size(L, digest->size);
    return 2;
}

/* core.sync(path or descriptor) */
int sync_start(lua_State *L)
{
    return job_start(L, nymbl_sync_start, nymbl_sync_start_fd);
}

/* core.read_directory(path, max_entries or nil) */
int read_directory_start(lua_State *L)
{
    const char *path = text_check(L, 1);
    lua_Number max = luaL_optnumber(L, 2, 0);
    nymbl_engine *engine = engine_get(L);
    nymbl_transfer **transfer = transfer_new(L);
    nymbl_error err;

    luaL_argcheck(L, max >= 0 && max <= NYMBL_DIRECTORY_MAX, 2, "out of range");
    return nymbl_directory_start(transfer, engine, path, (size_t)max, &err) < 0
               ? failure_push(L, &err)
               : 1;
}

/* core.take_entries(transfer, list, count): append up to so many entries of a
 * directory that was read, {name, kind, size, modified} each. True if there may
 * be more. */
int take_entries(lua_State *L)
{
    static const char *const kinds[] = {"file", "directory", "link", "other"};
    nymbl_transfer *transfer = transfer_check(L, 1);
    int count = (int)luaL_checkinteger(L, 3);
    nymbl_directory_entry entry;
    int at;

    luaL_checktype(L, 2, LUA_TTABLE);
    at = (int)lua_rawlen(L, 2);
    while (count > 0 && nymbl_transfer_next_entry(transfer, &entry)) {
        lua_createtable(L, 0, 4);
        lua_pushstring(L, entry.name);
        lua_setfield(L, -2, "name");
        lua_pushstring(L, kinds[entry.kind]);
        lua_setfield(L, -2, "kind");
        push_size(L, entry.size);
        lua_setfield(L, -2, "size");
        lua_pushnumber(L, entry.modified);
        lua_setfield(L, -2, "modified");
        lua_rawseti(L, 2, ++at);
        count--;
    }
    lua_pushboolean(L, count == 0);
    return 1;
}
