-- SPDX-License-Identifier: MIT
-- Power cuts: a folder is changed to what a disk may have after one, if a program was killed that
-- recorded what it has flushed (faults/disk.c).
--
--   local before = power.look(folder)       before the program runs
--   power.cut(folder, before, record, random)   `record`: the folder NYMBL_FAULTS_DISK; `random(n)`
--
-- Each directory has its names of now, or of its last fsync(). Each file has its bytes of now or of its
-- last fsync(), some of the new ones, or zeros instead of them. All of these are independent.
local helper = require "helper"

local power = {}

-- The lines "INODE NAME" of a directory, as a table.
local function names_of(text)
  local names = {}
  for inode, name in text:gmatch "(%d+) ([^\n]+)" do names[name] = inode end
  return names
end

-- The directories, the files and the root of a folder, by inode.
function power.look(folder)
  local state = { names = {}, bytes = {}, root = helper.output("stat -c %i " .. helper.quote(folder)) }
  local parents = { [""] = state.root }
  state.names[state.root] = {}
  local list = helper.output(("find %s -mindepth 1 -printf '%%y %%i %%P\\n'"):format(helper.quote(folder)))
  for kind, inode, path in list:gmatch "(%l) (%d+) ([^\n]+)" do
    local parent, name = path:match "^(.*)/([^/]*)$"
    state.names[parents[parent or ""]][name or path] = inode
    if kind == "d" then
      parents[path], state.names[inode] = inode, {}
    else
      state.bytes[inode] = helper.read_file(folder .. "/" .. path)
    end
  end
  return state
end

-- What certainly is on the disk of an inode: the names of a directory, or the bytes of a file.
local function flushed(before, record, inode)
  for _, kind in ipairs { "names", "bytes" } do
    local path = ("%s/%s.%s"):format(record, inode, kind)
    if helper.exists(path) then
      local text = helper.read_file(path)
      return kind == "names" and names_of(text) or nil, kind == "bytes" and text or nil
    end
  end
  return before.names[inode], before.bytes[inode]
end

-- The bytes of a file.
local function bytes_after(now, old, random)
  if not now or now == old then return now or old end
  local way, at = random(4), random(#now + 1) - 1
  if way == 1 then return now end
  if way == 2 then return old end
  if way == 3 then return old:sub(1, #now) .. ("\0"):rep(#now - #old) end
  return now:sub(1, at) .. old:sub(at + 1)
end

-- Change a folder to what a disk may have after a power cut.
function power.cut(folder, before, record, random)
  local now = power.look(folder)
  local chosen = {} -- bytes by inode: a file may have two names

  local function change(path, inode)
    local current = now.names[inode] or {}
    local names = flushed(before, record, inode) or {}
    if now.names[inode] and random(2) == 1 then names = current end
    for name, of in pairs(current) do
      if names[name] ~= of then assert(os.execute("rm -rf " .. helper.quote(path .. "/" .. name))) end
    end
    local sorted = {} -- so that a seed always chooses the same
    for name in pairs(names) do sorted[#sorted + 1] = name end
    table.sort(sorted)
    for _, name in ipairs(sorted) do
      local of, entry = names[name], path .. "/" .. name
      local is_there = current[name] == of
      local old_names, old_bytes = flushed(before, record, of)
      if now.names[of] or old_names then
        if not is_there then assert(os.execute("mkdir -m 700 " .. helper.quote(entry))) end
        change(entry, of)
      else
        chosen[of] = chosen[of] or bytes_after(now.bytes[of], old_bytes or "", random)
        if not is_there or chosen[of] ~= now.bytes[of] then helper.write_file(entry, chosen[of]) end
        if not is_there then assert(os.execute("chmod 600 " .. helper.quote(entry))) end
      end
    end
  end

  change(folder, now.root)
end

return power
