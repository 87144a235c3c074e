-- SPDX-License-Identifier: MIT
-- The limits of the service: two token buckets and a monthly quota.

local monotime = require "cqueues".monotime

local limits = {}
limits.__index = limits

-- The API's documentation states rates for reads and downloads only. Uploads, deletes and metadata count as reads.
local bucket_of = { download = "download" }

function limits.new(settings)
  local self = setmetatable({ settings = settings }, limits)
  self:reset()
  return self
end

function limits:refill_buckets()
  self.buckets = {}
end

--- Fill the buckets, and reset the count of the quota.
function limits:reset()
  self:refill_buckets()
  self.month = os.date "!%Y-%m"
  self.settings.quota_used = 0
end

-- Take a token from a bucket. Returns false if the bucket is empty.
local function bucket_take(self, name)
  local rate, burst = unpack(self.settings.rate[name])
  local now = monotime()
  local bucket = self.buckets[name]
  if not bucket then
    bucket = { tokens = burst, filled = now }
    self.buckets[name] = bucket
  end
  bucket.tokens = math.min(burst, bucket.tokens + (now - bucket.filled) * rate)
  bucket.filled = now
  if bucket.tokens < 1 then
    return false
  end
  bucket.tokens = bucket.tokens - 1
  return true
end

--- Count one request if the limits allow it. Returns nil, or the exceeded limit: "rate" or "quota".
function limits:count_request(operation)
  local settings = self.settings
  if not settings.limits then
    return nil
  end
  local month = os.date "!%Y-%m"
  if month ~= self.month then
    self.month = month
    settings.quota_used = 0
  end
  if not bucket_take(self, bucket_of[operation] or "read") then
    return "rate"
  elseif settings.quota_used >= settings.quota then
    return "quota"
  end
  settings.quota_used = settings.quota_used + 1
  return nil
end

return limits
