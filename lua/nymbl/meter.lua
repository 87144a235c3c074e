-- SPDX-License-Identifier: MIT
-- Counts the requests to the service that a run over many items (batch.lua) makes, against its
-- budget. A meter is attached to a coroutine; call.lua asks it before every request that a call
-- of this coroutine sends. Token requests are not counted.
--
-- A meter has
--   requests     how many were sent, or are about to be
--   prepaid      how many more are reserved for certain coroutines
--   budget       the largest number, or nil
--   stopped      why no more may be sent: a word; or nil. What is prepaid may still be sent if the
--                word is "budget"
--   poll()       called now and then during waits. Returns false to cancel the call

local meter = {}

-- Attachments by coroutine: `meter`, and `credit`, the number of prepaid requests.
local attachments = setmetatable({}, { __mode = "k" })

local MAIN = {} -- the main coroutine, where Lua 5.1 has no value for it

-- Attach a meter to the running coroutine.
-- @param credit how many requests were prepaid for it (default 0)
-- @treturn ?table what was attached before, for `meter.detach`
function meter.attach(self, credit)
  local thread = coroutine.running() or MAIN
  local outer = attachments[thread]
  attachments[thread] = { meter = self, credit = credit or 0 }
  return outer
end

-- Undo `meter.attach`. Credit that was not used may be used by others.
function meter.detach(outer)
  local thread = coroutine.running() or MAIN
  local attachment = attachments[thread]
  attachment.meter.prepaid = attachment.meter.prepaid - attachment.credit
  attachments[thread] = outer
end

local function attachment_of_thread()
  if next(attachments) == nil then return nil end -- no run: a call costs no more than this
  return attachments[coroutine.running() or MAIN]
end

-- How many requests a meter still allows.
function meter.left(self)
  if self.stopped then return 0 end
  return self.budget and self.budget - self.requests - self.prepaid or math.huge
end

-- Reserve a request for a coroutine to which the meter will be attached with credit. Returns
-- whether there was one left.
function meter.prepay(self)
  if meter.left(self) < 1 then return false end
  self.prepaid = self.prepaid + 1
  return true
end

-- Count a request of the running coroutine.
-- @treturn[1] table|boolean the meter, or false if there is none
-- @treturn[2] nil the request must not be sent
-- @treturn[2] table error fields
function meter.take()
  local attachment = attachment_of_thread()
  if not attachment then return false end
  local self = attachment.meter
  if self.stopped and self.stopped ~= "budget" then return nil, { kind = "canceled", reason = "stopped" } end
  if attachment.credit > 0 then
    attachment.credit, self.prepaid = attachment.credit - 1, self.prepaid - 1
  elseif meter.left(self) < 1 then
    return nil, { kind = "canceled", reason = "budget" }
  end
  self.requests = self.requests + 1
  return self
end

-- The request was not sent. `self` is what `meter.take` returned.
function meter.give_back(self)
  if self then self.requests = self.requests - 1 end
end

-- Called during waits. Returns false if the running coroutine's call is to be canceled.
function meter.poll()
  local attachment = attachment_of_thread()
  return not attachment or attachment.meter:poll()
end

return meter
