-- SPDX-License-Identifier: MIT
-- Power cuts: what a disk may have of a folder after one, if a program was killed that recorded what it
-- has flushed (faults/disk.c).
--
--   local before = power.look(folder)                  before the program runs
--   local states = power.states(folder, before, record, limit, random)
--   states[i]:apply()
--
-- `record`: the folder NYMBL_FAULTS_DISK; `random(n)`: from 1 to n.
--
-- Each name of a directory is the one of now or of its last fsync(), but a file that had a name and has
-- one does not lose it. Each file has its bytes of now or of its last fsync(), or a part of the new ones:
-- none of them although it has the new length, their first ones, or those from a sector on. All of these
-- are independent.
local helper = require "helper"

local power = {}

-- The most names of a directory that are old or new one by one; of more, all are old or all are new.
local MAX_NAMES = 4

-- Bytes that a disk writes completely or not at all.
local SECTOR = 512

-- The directories, the files and the root of a folder, by inode.
function power.look(folder)
  local state = { names = {}, bytes = {} }
  local parents = {}
  local list = helper.output(("find %s -printf '%%y %%i %%P\\n'"):format(helper.quote(folder)))
  for kind, inode, path in (list .. "\n"):gmatch "(%l) (%d+) ([^\n]*)\n" do
    local parent, name = path:match "^(.*)/([^/]*)$"
    if path == "" then
      state.root = inode
    else
      state.names[parents[parent or ""]][name or path] = inode
    end
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
  local names = helper.read_if_there(("%s/%s.names"):format(record, inode))
  if names then
    local inodes = {}
    for of, name in names:gmatch "(%d+) ([^\n]+)" do inodes[name] = of end
    return inodes
  end
  return before.names[inode], helper.read_if_there(("%s/%s.bytes"):format(record, inode)) or before.bytes[inode]
end

-- Whether a file with a name in both is in none of these names.
local function loses_a_file(names, old, new)
  local has, is_old = {}, {}
  for _, inode in pairs(names) do has[inode] = true end
  for _, inode in pairs(old) do is_old[inode] = true end
  for _, inode in pairs(new) do
    if is_old[inode] and not has[inode] then return true end
  end
  return false
end

-- What the names of a directory may be: those of now first, those of the last fsync() last.
local function options_of_names(old, new)
  local differing = {}
  for name, inode in pairs(new) do
    if old[name] ~= inode then differing[#differing + 1] = name end
  end
  for name in pairs(old) do
    if not new[name] then differing[#differing + 1] = name end
  end
  table.sort(differing) -- so that a seed always chooses the same
  local options = { { names = new } }
  for choice = 1, #differing <= MAX_NAMES and 2 ^ #differing - 2 or 0 do
    local names, rest = {}, choice
    for name, inode in pairs(new) do names[name] = inode end
    for _, name in ipairs(differing) do
      if rest % 2 == 1 then names[name] = old[name] end
      rest = math.floor(rest / 2)
    end
    if not loses_a_file(names, old, new) then options[#options + 1] = { names = names } end
  end
  if #differing > 0 then options[#options + 1] = { names = old } end
  return options
end

-- What the bytes of a file may be: those of now first, those of the last fsync() last. `how` says what has
-- become of them.
local function options_of_bytes(old, new, random)
  local options, known = {}, {}
  local function add(how, bytes)
    if not known[bytes] then options[#options + 1] = { how = how, bytes = bytes } end
    known[bytes] = true
  end
  add("new", new)
  known[old] = true
  local lost = old:sub(1, #new) .. ("\0"):rep(#new - #old)
  local same = new:sub(1, #old) == old and #old or 0 -- what is before the first byte that differs is on the disk
  while same < #new and same < #old and new:byte(same + 1) == old:byte(same + 1) do same = same + 1 end
  local at = same + (#new - same > 1 and random(#new - same - 1) or 0)
  add("lost", lost)
  add("front", new:sub(1, at) .. old:sub(at + 1))
  local first, last = math.floor(same / SECTOR) + 1, math.floor((#new - 1) / SECTOR)
  if last >= first then
    at = SECTOR * (first - 1 + random(last - first + 1))
    add("back", lost:sub(1, at) .. new:sub(at + 1))
  end
  if old ~= new then options[#options + 1] = { how = "old", bytes = old } end
  return options
end

local state = {}
state.__index = state

-- Change the folder to this state. Each file keeps its inode if it still has the same name.
function state:apply()
  local now = power.look(self.folder)

  local function change(path, inode)
    local current = now.names[inode] or {}
    local names = self.names[inode]
    for name, of in pairs(current) do
      if names[name] ~= of then assert(os.execute("rm -rf " .. helper.quote(path .. "/" .. name))) end
    end
    for name, of in pairs(names) do
      local entry, is_there = path .. "/" .. name, current[name] == of
      if self.names[of] then
        if not is_there then assert(os.execute("mkdir -m 700 " .. helper.quote(entry))) end
        change(entry, of)
      else
        if not is_there or self.bytes[of] ~= now.bytes[of] then helper.write_file(entry, self.bytes[of]) end
        if not is_there then assert(os.execute("chmod 600 " .. helper.quote(entry))) end
      end
    end
  end

  change(self.folder, self.root)
end

-- The state with the chosen option of each inode. `shape` says what it has, in a way in which two states
-- of different runs compare; `is_damaged`, whether a file has a part of its new bytes.
local function chosen(folder, root, options, choice)
  local made = setmetatable({ folder = folder, root = root, names = {}, bytes = {}, is_damaged = false }, state)
  local shape = {}
  local function visit(path, inode)
    local option = options[inode][choice[inode]]
    if option.bytes then
      made.bytes[inode] = option.bytes
      made.is_damaged = made.is_damaged or option.how ~= "new" and option.how ~= "old"
      shape[#shape + 1] = ("%s: %d %s bytes"):format(path, #option.bytes, option.how)
      return
    end
    made.names[inode] = option.names
    shape[#shape + 1] = path .. "/"
    for name, of in pairs(option.names) do visit(path .. "/" .. name, of) end
  end
  visit("", root)
  table.sort(shape)
  made.shape = table.concat(shape, ", ")
  return made
end

-- What a disk may have after a power cut: all states, or some of them if there are more than `limit`. The
-- first one has nothing that was not flushed.
function power.states(folder, before, record, limit, random)
  local now = power.look(folder)
  local options, inodes, count = {}, {}, 1
  local function add(inode) -- and all below it
    if options[inode] then return end
    local old_names, old_bytes = flushed(before, record, inode)
    local new_names = now.names[inode]
    if old_names or new_names then
      options[inode] = options_of_names(old_names or {}, new_names or old_names)
    else
      options[inode] = options_of_bytes(old_bytes or "", now.bytes[inode] or old_bytes or "", random)
    end
    inodes[#inodes + 1] = inode
    count = count * #options[inode]
    for _, names in ipairs { old_names or {}, new_names or {} } do
      local sorted = {}
      for name in pairs(names) do sorted[#sorted + 1] = name end
      table.sort(sorted)
      for _, name in ipairs(sorted) do add(names[name]) end
    end
  end
  add(now.root)

  local states, known = {}, {}
  local function keep(choose)
    local choice = {}
    for _, inode in ipairs(inodes) do choice[inode] = choose(#options[inode]) end
    local made = chosen(folder, now.root, options, choice)
    if not known[made.shape] then states[#states + 1] = made end
    known[made.shape] = true
  end
  keep(function(most) return most end)
  if count <= limit then
    for number = 0, count - 1 do
      local rest = number
      keep(function(most)
        local digit = rest % most
        rest = (rest - digit) / most
        return digit + 1
      end)
    end
  else
    for _ = 2, limit do keep(random) end
  end
  return states
end

return power
