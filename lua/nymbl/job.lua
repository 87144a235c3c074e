-- SPDX-License-Identifier: MIT
-- Long work on local files: digests, flushing, reading directories. The core does it
-- between the steps of its transfers; in an event loop only the calling coroutine waits.

local core = require "nymbl.core"
local errors = require "nymbl.errors"
local wait = require "nymbl.wait"

local job = {}

-- The entries of a directory become tables in slices of so many entries. Between two slices, the
-- coroutine waits for so many seconds, so that others may run.
local SLICE = 1000
local PAUSE = 1 / 1000

-- Wait until a job has ended. Returns true, or nil and error fields.
local function wait_until_ended(transfer, deadline)
  while true do
    local done, err = transfer:result()
    if done ~= false then return done, err end
    local ready
    ready, err = wait.wait(transfer, deadline)
    if ready == nil then return nil, err end
    if not ready then return nil, { kind = "timeout", reason = "deadline" } end
  end
end

-- Start a job by `start(...)`, and wait until it has ended. Returns the results of
-- `take(transfer)`, which closes the transfer; or nil and the error.
local function run(deadline, take, start, ...)
  local ready, err = wait.prepare()
  if not ready then return nil, errors.new(err) end
  local transfer
  transfer, err = start(...)
  if not transfer then
    wait.call_ended()
    return nil, errors.new(err)
  end
  local done
  done, err = wait_until_ended(transfer, deadline)
  if not done then
    wait.close(transfer)
    return nil, errors.new(err)
  end
  return take(transfer)
end

local function take_digest(transfer)
  local digest, size = core.digest_result(transfer)
  wait.close(transfer)
  return digest, size
end

local function take_nothing(transfer)
  wait.close(transfer)
  return true
end

local function take_directory(transfer)
  local list = {}
  while core.take_entries(transfer, list, SLICE) do wait.wait(nil, wait.now() + PAUSE) end
  wait.close(transfer)
  return list
end

-- The SHA-256 of a regular file.
-- @param path a path, or a descriptor (lua/descriptor.c)
-- @tparam ?number deadline a time of `wait.now()`
-- @treturn[1] string 64 hexadecimal digits
-- @treturn[1] number bytes of the file
-- @treturn[2] nil
-- @treturn[2] table the error; `reason` is "changed" if the file changed meanwhile
function job.digest(path, deadline)
  return run(deadline, take_digest, core.digest, path)
end

-- Flush a file, or the names in a directory, to disk. If a file is given by its path, the name
-- is flushed too.
-- @param path a path, or a descriptor (lua/descriptor.c)
-- @tparam ?number deadline a time of `wait.now()`
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] table the error
function job.sync(path, deadline)
  return run(deadline, take_nothing, core.sync, path)
end

-- The entries of a directory, in no particular order.
-- @tparam string path
-- @tparam ?number max entries; if there are more, `reason` is "too_many_entries"
-- @tparam ?number deadline a time of `wait.now()`
-- @treturn[1] table a list of tables with `name`, `kind` ("file", "directory", "link",
--   "other"), `size` and `modified` (seconds since 1970)
-- @treturn[2] nil
-- @treturn[2] table the error
function job.read_directory(path, max, deadline)
  return run(deadline, take_directory, core.read_directory, path, max)
end

return job
