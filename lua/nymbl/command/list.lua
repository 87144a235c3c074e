-- SPDX-License-Identifier: MIT
-- nymbl list

local options = require "nymbl.command.options"

-- A converter of times: a date and time as the service sends it, or a date.
local function time(text)
  local nymbl = require "nymbl"
  local whole = text:find "^%d%d%d%d%-%d%d%-%d%d$" and text .. "T00:00:00Z" or text
  local valid, seconds = pcall(nymbl.time, whole)
  if valid and seconds then return nymbl.datetime(whole) end
  return nil, "a time is expected, such as 2026-02-03 or 2026-02-03T10:00:00Z"
end

-- The filters of the options, combined.
local function combined_filter(given)
  local nymbl = require "nymbl"
  local parts = {}
  if given.filter then parts[#parts + 1] = "(" .. given.filter .. ")" end
  if given.type then parts[#parts + 1] = nymbl.filter("document_type eq ?", given.type) end
  if given.since then parts[#parts + 1] = nymbl.filter("uploaded_at ge ?", given.since) end
  if given.name then parts[#parts + 1] = nymbl.filter("file_name eq ?", given.name) end
  return parts[1] and table.concat(parts, " and ")
end

local COLUMNS = { "id", "file_size_bytes", "uploaded_at", "document_type", "file_name" }

local function run(session, given)
  local client, err = session:open()
  if not client then return session:fail(err) end
  for document in client:patient(given.patient):documents {
    filter = combined_filter(given), orderby = given.orderby, top = given.top,
  } do
    local written
    if given.json then
      written = session.out:json(session.metadata(document))
    else
      local words = {}
      for i, name in ipairs(COLUMNS) do
        local value = document[name]
        words[i] = value == nil and "-" or type(value) == "number" and ("%.0f"):format(value) or value
      end
      written = session.out:row((table.unpack or unpack)(words)) -- luacheck: ignore
    end
    if not written then break end
  end
  return 0
end

return {
  summary = "List a patient's documents",
  text = {
    "Each line has the columns id, size in bytes, time of the upload, type and name, separated by tabs; "
      .. "'-' stands for a missing one. Several of --filter, --type, --since and --name must all be fulfilled.",
  },
  operands = { { name = "PATIENT", help = "The patient's id." } },
  options = {
    { flags = "--filter", name = "F", convert = options.nonempty, help = "An OData filter." },
    { flags = "--type", name = "T", help = "Only documents of this document_type." },
    { flags = "--since", name = "TIME", convert = time, help = "Only documents uploaded at this time (UTC) or later." },
    { flags = "--name", name = "N", help = "Only documents of this file name." },
    { flags = "--orderby", name = "O", convert = options.nonempty, help = "The order, such as 'uploaded_at desc'." },
    { flags = "--top", name = "N", target = "top", convert = options.count, help = "At most so many documents." },
  },
  example = "nymbl list 12345 --type Referral --since 2026-02-01",
  run = run,
}
