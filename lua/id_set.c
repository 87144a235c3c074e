/* SPDX-License-Identifier: MIT */
/* A set of ids: which rows of a listing a script has got.
 *
 * A Lua table could do the same. But it would keep each id as a string, in
 * about three times the memory, and a generational collector would traverse it
 * whenever a row is added.
 *
 * The ids are records in one block of bytes. A hash table with linear probing
 * finds them: no id is ever taken for another one, whatever their hashes are.
 * Ids are not secret, and a service sends 100 of them in a response, so the
 * hash need not resist an attacker. */
#include "id_set.h"

#include <stdint.h>
#include <string.h>

#define ID_SET_CLASS "nymbl.id_set"

/* An id is a member, is excluded, or is neither. A member that
 * is removed becomes neither. */
enum { NEITHER, MEMBER, EXCLUDED };

typedef struct record {
    uint32_t size;
    unsigned char state;
    char id[]; /* not terminated */
} record;

/* Offsets of records in the block, plus 1; 0 is a free slot. */
typedef struct slot {
    uint32_t hash;
    uint32_t record;
} slot;

typedef struct id_set {
    block_tag tag;
    slot *slots;
    size_t capacity; /* of slots: a power of two, or 0 */
    size_t count;    /* of slots in use */
    char *bytes;
    size_t bytes_size;
    size_t bytes_used;
    size_t members;
    int last_added; /* the result of the last add(), or 0 */
} id_set;

static id_set *id_set_check(lua_State *L)
{
    return block_check(L, 1, BLOCK_ID_SET, sizeof(id_set), ID_SET_CLASS);
}

/* FNV-1a. */
static uint32_t hash_of(const char *id, size_t size)
{
    uint32_t hash = 2166136261u;

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)id[i]) * 16777619u;
    return hash;
}

static record *record_at(const id_set *set, const slot *slot)
{
    return (record *)(void *)(set->bytes + slot->record - 1);
}

/* The slot of an id, or the free one in which it belongs. */
static slot *slot_find(const id_set *set, const char *id, size_t size,
                       uint32_t hash)
{
    size_t mask = set->capacity - 1, at = hash & mask;

    for (;; at = (at + 1) & mask) {
        slot *slot = &set->slots[at];

        if (slot->record == 0)
            return slot;
        if (slot->hash == hash) {
            const record *record = record_at(set, slot);

            if (record->size == size && memcmp(record->id, id, size) == 0)
                return slot;
        }
    }
}

static record *record_find(const id_set *set, const char *id, size_t size)
{
    const slot *slot;

    if (set->capacity == 0)
        return NULL;
    slot = slot_find(set, id, size, hash_of(id, size));
    return slot->record != 0 ? record_at(set, slot) : NULL;
}

/* As realloc(), by the allocator of the Lua state: it may have a limit. */
static void *block_resize(lua_State *L, void *block, size_t old, size_t size)
{
    void *payload;
    lua_Alloc allocate = lua_getallocf(L, &payload);

    return allocate(payload, block, old, size);
}

/* Ensure that another slot can be used while a quarter of them is free. */
static bool slots_reserve(lua_State *L, id_set *set)
{
    size_t capacity = set->capacity == 0 ? 64 : 2 * set->capacity;
    slot *slots;

    if (4 * (set->count + 1) <= 3 * set->capacity)
        return true;
    slots = block_resize(L, NULL, 0, capacity * sizeof(*slots));
    if (slots == NULL)
        return false;
    memset(slots, 0, capacity * sizeof(*slots));
    for (size_t i = 0; i < set->capacity; i++) {
        size_t at = set->slots[i].hash & (capacity - 1);

        if (set->slots[i].record == 0)
            continue;
        while (slots[at].record != 0)
            at = (at + 1) & (capacity - 1);
        slots[at] = set->slots[i];
    }
    block_resize(L, set->slots, set->capacity * sizeof(*slots), 0);
    set->slots = slots;
    set->capacity = capacity;
    return true;
}

static bool bytes_reserve(lua_State *L, id_set *set, size_t more)
{
    size_t size = set->bytes_size == 0 ? 1024 : 2 * set->bytes_size;
    char *bytes;

    if (set->bytes_size - set->bytes_used >= more)
        return true;
    while (size - set->bytes_used < more)
        size *= 2;
    if (size > UINT32_MAX)
        return false;
    bytes = block_resize(L, set->bytes, set->bytes_size, size);
    if (bytes == NULL)
        return false;
    set->bytes = bytes;
    set->bytes_size = size;
    return true;
}

/* The record of an id, which is created if it is missing. NULL without memory:
 * then nothing has changed. */
static record *record_make(lua_State *L, id_set *set, const char *id,
                           size_t size)
{
    uint32_t hash = hash_of(id, size);
    size_t needed = sizeof(record) + size;
    slot *slot;

    needed += -needed % sizeof(uint32_t); /* records are aligned */
    if (!slots_reserve(L, set))
        return NULL;
    slot = slot_find(set, id, size, hash);
    if (slot->record == 0) {
        record *record;

        if (!bytes_reserve(L, set, needed))
            return NULL;
        slot->hash = hash;
        slot->record = (uint32_t)set->bytes_used + 1;
        set->count++;
        set->bytes_used += needed;
        record = record_at(set, slot);
        record->size = (uint32_t)size;
        record->state = NEITHER;
        memcpy(record->id, id, size);
    }
    return record_at(set, slot);
}

/* The id at an index of the array at stack index 2. It stays valid while the
 * array has it. */
static const char *id_at(lua_State *L, int index, size_t *size)
{
    const char *id;

    lua_rawgeti(L, 2, index);
    id = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, size) : NULL;
    lua_pop(L, 1);
    return id;
}

/* set:get(id): true for a member, false for an excluded id, otherwise nil */
static int id_set_get(lua_State *L)
{
    const id_set *set = id_set_check(L);
    size_t size;
    const char *id = luaL_checklstring(L, 2, &size);
    const record *record = record_find(set, id, size);

    if (record == NULL || record->state == NEITHER)
        return 0;
    lua_pushboolean(L, record->state == MEMBER);
    return 1;
}

/* set:exclude(id) */
static int id_set_exclude(lua_State *L)
{
    id_set *set = id_set_check(L);
    size_t size;
    const char *id = luaL_checklstring(L, 2, &size);
    record *record = record_make(L, set, id, size);

    if (record == NULL)
        return memory_raise(L);
    if (record->state == MEMBER)
        set->members--;
    record->state = EXCLUDED;
    return 0;
}

static void members_remove(lua_State *L, id_set *set, int first, int last)
{
    for (int i = first; i <= last; i++) {
        size_t size = 0;
        const char *id = id_at(L, i, &size);
        record *record = id != NULL ? record_find(set, id, size) : NULL;

        if (record != NULL && record->state == MEMBER) {
            record->state = NEITHER;
            set->members--;
        }
    }
}

/* set:add(ids, first, last): make the ids at these indices of an array members,
 * in their order, up to one that is a member or excluded already. Returns the
 * index of the last one that was added, or first - 1. Without memory it raises,
 * and none was added. */
static int id_set_add(lua_State *L)
{
    id_set *set = id_set_check(L);
    int first = (int)luaL_checkinteger(L, 3),
        last = (int)luaL_checkinteger(L, 4), i;

    luaL_checktype(L, 2, LUA_TTABLE);
    set->last_added = 0;
    for (i = first; i <= last; i++) {
        size_t size = 0;
        const char *id = id_at(L, i, &size);
        record *record;

        if (id == NULL)
            break;
        record = record_make(L, set, id, size);
        if (record == NULL) {
            members_remove(L, set, first, i - 1);
            return memory_raise(L);
        }
        if (record->state != NEITHER)
            break;
        record->state = MEMBER;
        set->members++;
    }
    set->last_added = i - 1;
    lua_pushinteger(L, i - 1);
    return 1;
}

/* set:take_back(ids, first): what the last add() added, from this index of the
 * same array on, are no members any more. The set knows where that ends: a
 * caller that was interrupted does not. */
static int id_set_take_back(lua_State *L)
{
    id_set *set = id_set_check(L);
    int first = (int)luaL_checkinteger(L, 3);

    luaL_checktype(L, 2, LUA_TTABLE);
    members_remove(L, set, first, set->last_added);
    set->last_added = 0;
    return 0;
}

/* set:count(): how many members it has */
static int id_set_count(lua_State *L)
{
    const id_set *set = id_set_check(L);

    push_size(L, set->members);
    return 1;
}

/* set:last_known(ids): the index of the last id of an array that is a member or
 * excluded, or 0 */
static int id_set_last_known(lua_State *L)
{
    const id_set *set = id_set_check(L);
    int i;

    luaL_checktype(L, 2, LUA_TTABLE);
    for (i = (int)lua_rawlen(L, 2); i > 0; i--) {
        size_t size = 0;
        const char *id = id_at(L, i, &size);
        const record *record = id != NULL ? record_find(set, id, size) : NULL;

        if (record != NULL && record->state != NEITHER)
            break;
    }
    lua_pushinteger(L, i);
    return 1;
}

static int id_set_collect(lua_State *L)
{
    id_set *set = block_test(L, 1, BLOCK_ID_SET, sizeof(*set));

    if (set == NULL)
        return 0;
    block_resize(L, set->slots, set->capacity * sizeof(slot), 0);
    block_resize(L, set->bytes, set->bytes_size, 0);
    *set = (id_set){.tag = set->tag};
    return 0;
}

/* core.id_set(): an empty set */
int id_set_new(lua_State *L)
{
    block_new(L, BLOCK_ID_SET, sizeof(id_set));
    luaL_setmetatable(L, ID_SET_CLASS);
    return 1;
}

void id_set_class(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"get", id_set_get},
        {"exclude", id_set_exclude},
        {"add", id_set_add},
        {"take_back", id_set_take_back},
        {"count", id_set_count},
        {"last_known", id_set_last_known},
        {NULL, NULL},
    };

    block_class(L, ID_SET_CLASS, methods, id_set_collect);
}
