-- SPDX-License-Identifier: MIT
-- Calls within functions that cannot be yielded across, for spec/yield_spec.lua and nginx.
local nymbl = require "nymbl"

local this = {}

local OBJECT = {}

-- Each calls a function from a C function that cannot be yielded across.
local boundaries = {}

function boundaries.gsub(fn)
  string.gsub("x", "x", function() fn() end)
end

function boundaries.sort(fn)
  local done = false
  table.sort({ 2, 1 }, function(a, b)
    if not done then
      done = true
      fn()
    end
    return a < b
  end)
end

function boundaries.require(fn)
  package.preload["nymbl.spec.boundary"] = function()
    fn()
    return true
  end
  package.loaded["nymbl.spec.boundary"] = nil
  require "nymbl.spec.boundary"
end

function boundaries.xpcall(fn)
  xpcall(error, function() fn() end)
end

function boundaries.load(fn)
  local done = false
  load(function()
    if done then return nil end
    done = true
    fn()
    return "return"
  end)
end

-- Each calls a function from a C function that some versions of Lua can yield across.
local maybe_boundaries = {}

function maybe_boundaries.tostring(fn)
  return tostring(setmetatable(OBJECT, { __tostring = function()
    fn()
    return "x"
  end }))
end

function maybe_boundaries.dofile(fn, path)
  rawset(_G, "nymbl_spec_dofile", fn)
  dofile(path)
  rawset(_G, "nymbl_spec_dofile", nil)
end

function maybe_boundaries.index(fn)
  return setmetatable(OBJECT, { __index = function() return fn() end }).x
end

function maybe_boundaries.concat(fn)
  return setmetatable(OBJECT, { __concat = function() return fn() end }) .. ""
end

function maybe_boundaries.pcall(fn)
  assert(pcall(fn))
end

function maybe_boundaries.iterator(fn)
  local count = 0
  for _ in function() return count == 0 and fn() or nil end do count = count + 1 end
end

local calls = {}

function calls.upload(patient)
  return patient:upload({ data = "%PDF-1.4 x" }, { file_name = "a.pdf" })
end

function calls.upload_source(patient)
  return patient:upload(function() error("asked for bytes") end, { file_name = "a.pdf" })
end

function calls.reconcile(patient)
  return patient:upload({ data = "%PDF-1.4 x" }, { file_name = "a.pdf", reconcile = true })
end

function calls.list(patient)
  local ok, err = pcall(patient:documents())
  if ok then return err end
  return nil, err
end

function calls.page(patient) return patient:page() end
function calls.count(patient) return patient:count() end
function calls.get(patient) return patient:get("d") end
function calls.download(patient) return patient:document("d"):download(function() return 1 end) end
function calls.open(patient) return patient:document("d"):open() end
function calls.delete(patient) return patient:document("d"):delete() end

local function words(result, err)
  if result ~= nil then return "good" end
  if type(err) ~= "table" then return tostring(err) end
  return ("%s %s %d"):format(err.kind, err.reason, err.attempts)
end

-- The result of a function that is called across such a boundary, or its error.
local function try(boundary, fn, path)
  local result = "never called"
  local ok, err = pcall(boundary, function()
    local ran, a, b = pcall(fn)
    result = ran and words(a, b) or "raised " .. tostring(a)
    return true
  end, path)
  return ok and result or "raised " .. tostring(err)
end

local function add(lines, name, result)
  lines[#lines + 1] = name .. ": " .. result
end

--- Every call from every function that cannot be yielded across. Returns a line for each call that did
-- not return the expected error.
function this.refused(client, expected)
  local patient = client:patient "p"
  local lines = {}
  for boundary_name, boundary in pairs(boundaries) do
    for name, fn in pairs(calls) do
      local result = try(boundary, function() return fn(patient) end)
      if result ~= expected then add(lines, boundary_name .. " " .. name, result) end
    end
  end
  table.sort(lines)
  return table.concat(lines, "\n")
end

--- A call from each function that some versions of Lua can yield across: it works or is refused.
function this.maybe_refused(client, expected, path)
  local patient = client:patient "p"
  local lines = {}
  for boundary_name, boundary in pairs(maybe_boundaries) do
    local result = try(boundary, function() return patient:count() end, path)
    if result ~= expected and result ~= "good" then add(lines, boundary_name, result) end
  end
  table.sort(lines)
  return table.concat(lines, "\n")
end

--- A read that would have to wait consumes nothing if it must not wait; bytes read before are kept.
-- Returns the errors and the number of bytes at the end.
function this.stream(client)
  local stream = assert(client:patient("p"):document("d"):open())
  local first = #assert(stream:read(1000))
  local lines = {}
  for _, format in ipairs { "a", 200000 } do
    add(lines, tostring(format), try(boundaries.gsub, function() return stream:read(format) end))
  end
  local rest = #assert(stream:read("a"))
  stream:close()
  return table.concat(lines, ", ") .. ", " .. first + rest
end

--- An iteration prefetches no page if it cannot wait for it. Returns the number of documents read.
function this.prefetch(client)
  local count = 0
  local step = client:patient("many"):documents { page_size = 4 }
  assert(step())
  for _ = 1, 3 do
    boundaries.gsub(function() if step() then count = count + 1 end end)
  end
  return 1 + count
end

--- `nymbl.each` runs its functions, but their calls are refused.
function this.each(client)
  local result
  boundaries.gsub(function()
    local good, failed = nymbl.each({ 1, 2 }, nil, function() return client:patient("p"):count() end)
    result = ("%d, %s, %s"):format(good, words(nil, failed[1].err), words(nil, failed[2].err))
  end)
  return result
end

return this
